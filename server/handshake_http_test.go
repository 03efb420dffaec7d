package server_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// RFC 9112 and RFC 9110, 7.8: the rules for requests on which the upgrade depends. A request that a proxy in front could
// read in another way is refused, and its connection is closed.
func TestUpgrade_FollowsRFC9112(t *testing.T) {
	const get, host = "GET /ws/uploads HTTP/1.1\r\n", "Host: shoal.test\r\n"
	good := get + host + goodHandshake
	n := start(t)
	for name, c := range map[string]struct {
		request string
		status  int
		header  string // a part of the answer's header
	}{
		"2.2 line feed alone ends a line":           {strings.ReplaceAll(good+"\r\n", "\r\n", "\n"), 101, ""},
		"2.2 carriage return within a value":        {good + "X: a\rb\r\n\r\n", 400, "Connection: close"},
		"2.2 white space before the first field":    {get + " X: y\r\n" + host + goodHandshake + "\r\n", 400, "Connection: close"},
		"2.3 the name of the protocol in lower":     {strings.Replace(good, "HTTP/1.1", "http/1.1", 1) + "\r\n", 400, "Connection: close"},
		"2.3 a higher minor version":                {strings.Replace(good, "HTTP/1.1", "HTTP/1.2", 1) + "\r\n", 101, ""},
		"2.3 another major version":                 {strings.Replace(good, "HTTP/1.1", "HTTP/2.0", 1) + "\r\n", 505, "Connection: close"},
		"3 two spaces in the request line":          {strings.Replace(good, "GET ", "GET  ", 1) + "\r\n", 400, "Connection: close"},
		"3 a request target that is too long":       {strings.Replace(good, "uploads", "uploads?"+strings.Repeat("a", 40<<10), 1) + "\r\n", 431, "Connection: close"},
		"3.1 a method is case-sensitive":            {strings.Replace(good, "GET", "get", 1) + "\r\n", 405, "Allow: GET"},
		"3.1 POST":                                  {strings.Replace(good, "GET", "POST", 1) + "\r\n", 405, "Allow: GET"},
		"3.2 no Host":                               {get + goodHandshake + "\r\n", 400, "Connection: close"},
		"3.2 two Hosts":                             {good + host + "\r\n", 400, "Connection: close"},
		"3.2 an invalid Host":                       {get + "Host: a b\r\n" + goodHandshake + "\r\n", 400, "Connection: close"},
		"3.2 another path":                          {strings.Replace(good, "uploads", "other", 1) + "\r\n", 404, ""},
		"3.2.2 the absolute form":                   {strings.Replace(good, "/ws", "http://shoal.test/ws", 1) + "\r\n", 101, ""},
		"5 names of fields are case-insensitive":    {get + host + strings.ToUpper(strings.Split(goodHandshake, "Sec-WebSocket-Key")[0]) + "sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n", 101, ""},
		"5 a line without colon":                    {good + "novalue\r\n\r\n", 400, "Connection: close"},
		"5 an empty name":                           {good + ": value\r\n\r\n", 400, "Connection: close"},
		"5 a header that is too long":               {good + "X: " + strings.Repeat("a", 40<<10) + "\r\n\r\n", 431, "Connection: close"},
		"5.1 white space before the colon":          {strings.Replace(good, "Upgrade:", "Upgrade :", 1) + "\r\n", 400, "Connection: close"},
		"5.1 white space around a value":            {strings.Replace(good, "==\r\n", "== \t\r\n", 1) + "\r\n", 101, ""},
		"5.2 a folded line is one line":             {strings.Replace(good, "Connection: Upgrade", "Connection:\r\n Upgrade", 1) + "\r\n", 101, ""},
		"5.3 a list over two lines":                 {good + "Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Protocol: shoal.v1\r\n\r\n", 101, "Sec-WebSocket-Protocol: shoal.v1\r\n"},
		"6.1 a coding that is not known":            {good + "Transfer-Encoding: gzip\r\n\r\n", 501, "Connection: close"},
		"6.1 chunked is not the last coding":        {good + "Transfer-Encoding: chunked, identity\r\n\r\n", 501, "Connection: close"},
		"6.1 both lengths":                          {good + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "Connection: close"},
		"6.3 two lengths that differ":               {good + "Content-Length: 0\r\nContent-Length: 5\r\n\r\nhello", 400, "Connection: close"},
		"6.3 a length with a sign":                  {good + "Content-Length: +5\r\n\r\nhello", 400, "Connection: close"},
		"6.3 a length that is no number":            {good + "Content-Length: 0x0\r\n\r\n", 400, "Connection: close"},
		"9110 5.5 NUL within a value":               {good + "X: a\x00b\r\n\r\n", 400, "Connection: close"},
		"9110 7.8 one of several protocols":         {strings.Replace(good, ": websocket", ": h2c, WebSocket/13, websocket", 1) + "\r\n", 101, "Upgrade: websocket"},
		"9110 10.1.1 an expectation without a body": {good + "Expect: 100-continue\r\n\r\n", 101, ""},
		"9110 10.1.1 an unknown expectation":        {good + "Expect: other\r\n\r\n", 417, ""},
	} {
		head, status := sendRequest(t, n.host, c.request)
		if status != c.status || !strings.Contains(head, c.header) {
			t.Errorf("%s: answered with %d, want %d and %q in\n%s", name, status, c.status, c.header, head)
		}
	}
}

// sendRequest writes bytes to a new connection and returns the header of the answer and its status.
func sendRequest(t *testing.T, host, request string) (head string, status int) {
	t.Helper()
	conn, err := net.Dial("tcp", host)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	var read strings.Builder
	response, err := http.ReadResponse(bufio.NewReader(io.TeeReader(conn, &read)), nil)
	if err != nil {
		t.Fatalf("%.60q: %v", request, err)
	}
	_ = response.Body.Close()
	return read.String(), response.StatusCode
}
