package server_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"
)

const (
	withKey  = "Authorization: Bearer key\r\n"
	onUpload = "POST /v1/uploads/u/messages HTTP/1.1"
	note     = `{"action":"note"}`
)

// exchange is a connection on which the test writes HTTP itself.
type exchange struct {
	t      *testing.T
	conn   net.Conn
	reader *bufio.Reader
	// request has the method of the last request, on which the form of the response depends.
	request http.Request
}

func (n *node) exchange(t *testing.T) *exchange {
	t.Helper()
	conn, err := net.Dial("tcp", n.host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	return &exchange{t: t, conn: conn, reader: bufio.NewReader(conn)}
}

func (e *exchange) send(text string) {
	e.t.Helper()
	if _, err := io.WriteString(e.conn, text); err != nil {
		e.t.Fatal(err)
	}
}

// want reads a response, which must have this status, and text in its header or body.
func (e *exchange) want(status int, text string) {
	e.t.Helper()
	response, err := http.ReadResponse(e.reader, &e.request)
	if err != nil {
		e.t.Fatal(err)
	}
	var all strings.Builder
	_ = response.Header.Write(&all)
	if status >= http.StatusOK {
		body, _ := io.ReadAll(response.Body)
		all.Write(body)
	}
	if response.StatusCode != status || !strings.Contains(all.String(), text) {
		e.t.Errorf("answered with %d\n%s\nwant %d and %q", response.StatusCode, all.String(), status, text)
	}
}

// Requests that ordinary clients do not send are answered like any other, or refused with their fault.
func TestServer_AnswersUnusualRequests(t *testing.T) {
	n := start(t)
	many := strings.Repeat("p-1.example.com, ", 1000)
	length := fmt.Sprintf("Content-Length: %d\r\n", len(note))
	for name, c := range map[string]struct {
		line, headers, body string
		status              int
		text                string
	}{
		"HTTP/1.0":               {"POST /v1/uploads/u/messages HTTP/1.0", withKey + length, note, 202, "accepted"},
		"absolute address":       {"POST http://other.example/v1/uploads/u/messages HTTP/1.1", withKey + length, note, 202, "accepted"},
		"dots as id":             {"POST /v1/uploads/%2e%2e/messages HTTP/1.1", withKey + length, note, 202, "accepted"},
		"escaped letters":        {"POST /v1/%75ploads/u/messages HTTP/1.1", withKey + length, note, 202, "accepted"},
		"empty first segment":    {"GET //v1/stats HTTP/1.1", withKey, "", 404, ""},
		"empty segment":          {"GET /v1//stats HTTP/1.1", withKey, "", 404, "unknown endpoint"},
		"escaped slash":          {"GET /v1%2Fstats HTTP/1.1", withKey, "", 404, "unknown endpoint"},
		"gzip":                   {onUpload, withKey + length + "Content-Encoding: gzip\r\n", note, 415, "Accept-Encoding: identity"},
		"gzip on a second line":  {onUpload, withKey + length + "Content-Encoding: identity\r\nContent-Encoding: gzip\r\n", note, 415, "Content-Encoding"},
		"identity in capitals":   {onUpload, withKey + length + "Content-Encoding: IDENTITY\r\n", note, 202, "accepted"},
		"two lengths":            {onUpload, withKey + length + "Content-Length: 3\r\n", note, 400, ""},
		"two keys":               {onUpload, withKey + withKey + length, note, 401, "API key"},
		"unknown expectation":    {onUpload, withKey + length + "Expect: a-miracle\r\n", note, 417, ""},
		"HEAD of the WebSocket":  {"HEAD /ws/uploads HTTP/1.1", goodHandshake, "", 405, "Allow: GET"},
		"OPTIONS of it":          {"OPTIONS /ws/uploads HTTP/1.1", goodHandshake, "", 405, "Allow: GET"},
		"many subprotocols":      {"GET /ws/uploads HTTP/1.1", goodHandshake + "Sec-WebSocket-Protocol: " + many + "\r\nSec-WebSocket-Protocol: shoal.v1\r\n", "", 101, "Sec-Websocket-Protocol: shoal.v1"},
		"subprotocol with value": {"GET /ws/uploads HTTP/1.1", goodHandshake + "Sec-WebSocket-Protocol: shoal.v1;x, shoal.v2\r\n", "", 101, "Upgrade"},
		"two tokens":             {"GET /ws/uploads HTTP/1.1", goodHandshake + "Authorization: Bearer ann\r\nAuthorization: Bearer bob\r\n", "", 400, "Authorization"},
		"header beyond bounds":   {"GET /ws/uploads HTTP/1.1", goodHandshake + "Sec-WebSocket-Protocol: " + strings.Repeat(many, 4) + "\r\n", "", 431, ""},
		"stream by HEAD":         {"HEAD /events/uploads/u?access_token=ann HTTP/1.1", "", "", 200, "text/event-stream"},
		"stream, escaped letters": {
			"HEAD /%65vents/%75ploads/u HTTP/1.1", "Authorization: Bearer ann\r\n", "", 200, "text/event-stream",
		},
		"streams, escaped letters": {
			"HEAD /events/upload%73?id=u HTTP/1.1", "Authorization: Bearer ann\r\n", "", 200, "text/event-stream",
		},
		"stream, escaped slash":  {"HEAD /events%2Fuploads/u HTTP/1.1", "Authorization: Bearer ann\r\n", "", 404, ""},
		"stream, token twice":    {"GET /events/uploads/u?access_token=ann&access_token=ann HTTP/1.1", "", "", 400, "access_token"},
		"stream, two headers":    {"GET /events/uploads/u HTTP/1.1", "Authorization: Bearer ann\r\nAuthorization: Bearer ann\r\n", "", 401, "token"},
		"stream, id with NUL":    {"GET /events/uploads/u%00 HTTP/1.1", "Authorization: Bearer ann\r\n", "", 400, "upload_id"},
		"stream, chunked":        {"GET /events/uploads/u HTTP/1.1", "Authorization: Bearer ann\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n", 400, "body"},
		"position of letters":    {"GET /events/uploads/u HTTP/1.1", "Authorization: Bearer ann\r\nLast-Event-ID: epoch:x\r\n", "", 400, "Last-Event-ID"},
		"position beyond range":  {"GET /events/uploads/u HTTP/1.1", "Authorization: Bearer ann\r\nLast-Event-ID: e:18446744073709551616\r\n", "", 400, "Last-Event-ID"},
		"bad escape in position": {"GET /events/uploads/u HTTP/1.1", "Authorization: Bearer ann\r\nLast-Event-ID: e%zz:1\r\n", "", 400, "Last-Event-ID"},
		"two positions":          {"GET /events/uploads/u HTTP/1.1", "Authorization: Bearer ann\r\nLast-Event-ID: e:1\r\nLast-Event-ID: e:2\r\n", "", 400, "Last-Event-ID"},
	} {
		t.Run(name, func(t *testing.T) {
			e := n.exchange(t)
			e.request.Method, _, _ = strings.Cut(c.line, " ")
			e.send(c.line + "\r\nHost: " + n.host + "\r\n" + c.headers + "\r\n" + c.body)
			e.want(c.status, c.text)
		})
	}
}

// A publisher that expects 100 Continue is asked for its body only if it may publish a body of that length.
func TestAPI_ExpectContinue(t *testing.T) {
	n := start(t)
	head := "\r\nHost: " + n.host + "\r\nExpect: 100-continue\r\n" + fmt.Sprintf("Content-Length: %d\r\n", len(note))
	e := n.exchange(t)
	e.send(onUpload + head + withKey + "\r\n")
	e.want(http.StatusContinue, "")
	e.send(note)
	e.want(http.StatusAccepted, "accepted")
	large := n.exchange(t)
	large.send(onUpload + "\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 9000000\r\n" + withKey + "\r\n")
	large.want(http.StatusRequestEntityTooLarge, "at most 8388608 bytes")
	sending, body := n.exchange(t), strings.Repeat(" ", 8<<20+1)
	sending.send(onUpload + "\r\nHost: x\r\n" + withKey + fmt.Sprintf("Content-Length: %d\r\n\r\n", len(body)) + body)
	sending.want(http.StatusRequestEntityTooLarge, "at most 8388608 bytes")
	stranger := n.exchange(t)
	stranger.send(onUpload + head + "\r\n")
	stranger.want(http.StatusUnauthorized, "API key")
}

// Pings that arrive while the token is being checked are answered behind auth_success.
func TestAuth_PingsDuringAuthentication(t *testing.T) {
	checking, release := make(chan struct{}), make(chan struct{})
	n := start(t, func(_ *manager.Options, o *server.Options) {
		o.Authenticate = func(ctx context.Context, token string) (server.Identity, error) {
			close(checking)
			<-release
			return tokens(ctx, token)
		}
	})
	r := n.raw(t, "")
	r.write(0x81, `{"type":"auth","token":"ann"}`)
	<-checking
	for _, payload := range []string{"a", "", "b"} {
		r.write(0x89, payload)
	}
	close(release)
	r.want(`{"action":"auth_success","user_id":"ann"}`)
	for _, payload := range []string{"a", "", "b"} {
		if first, got := r.read(); first != 0x8A || got != payload {
			t.Errorf("got %#x %q, want a pong with %q", first, got, payload)
		}
	}
}
