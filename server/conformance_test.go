package server_test

import (
	"encoding/binary"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"
)

// startEcho runs a node that returns every message of the user "u".
func startEcho(t *testing.T) *node {
	t.Helper()
	return start(t, func(_ *manager.Options, o *server.Options) {
		o.Authenticate = nil
		o.Identify = func(*http.Request) (server.Identity, error) { return server.Identity{UserID: "u"}, nil }
		o.OnMessage = func(c *server.Client, m server.Incoming) bool {
			if m.Text {
				c.SendText(m.Data)
			} else {
				c.SendBinary(m.Data)
			}
			return true
		}
	})
}

// wantFrame reads a frame and fails unless it is this one.
func (r *raw) wantFrame(first byte, payload string) {
	r.t.Helper()
	if gotFirst, got := r.read(); gotFirst != first || got != payload {
		r.t.Errorf("got %#x %q, want %#x %q", gotFirst, got, first, payload)
	}
}

// RFC 6455, 1.3 and 4.2.2: the key of the standard's example has the answer of the standard's example.
func TestRFC6455_HandshakeAnswer(t *testing.T) {
	n := startEcho(t)
	header := http.Header{"Sec-WebSocket-Extensions": {"permessage-deflate"}, "Sec-WebSocket-Protocol": {"chat, superchat"}}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+n.host+"/ws/uploads", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header = header
	request.Header.Set("Connection", "Upgrade")
	request.Header.Set("Upgrade", "websocket")
	request.Header.Set("Sec-WebSocket-Version", "13")
	request.Header.Set("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
	transport := &http.Transport{DisableKeepAlives: true}
	response, err := transport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	want := map[string]string{
		"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Accept": "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
		"Sec-WebSocket-Protocol": "", "Sec-WebSocket-Extensions": "", "Sec-WebSocket-Version": "",
	}
	for name, value := range want {
		if got := response.Header.Get(name); got != value {
			t.Errorf("%s is %q, want %q", name, got, value)
		}
	}
	if response.StatusCode != http.StatusSwitchingProtocols {
		t.Errorf("status %d, want 101", response.StatusCode)
	}
}

// RFC 6455, 5.2, 5.4 and 5.6: messages of both kinds and any number of fragments, in any pieces, come back whole, and
// control frames may stand between fragments.
func TestRFC6455_Messages(t *testing.T) {
	n := startEcho(t)
	for _, step := range []int{1, 3, 1 << 20} {
		conn := n.raw(t, "")
		stream := appendFrame(nil, 0x81, "text")
		stream = appendFrame(stream, 0x82, "\xff\x00")
		stream = appendFrame(stream, 0x01, "fir")
		stream = appendFrame(stream, 0x89, "between")
		stream = appendFrame(stream, 0x00, "")
		stream = appendFrame(stream, 0x8A, "unsolicited")
		stream = appendFrame(stream, 0x80, "st")
		stream = appendFrame(stream, 0x81, "")
		for len(stream) > 0 {
			piece := stream[:min(step, len(stream))]
			if _, err := conn.conn.Write(piece); err != nil {
				t.Fatal(err)
			}
			stream = stream[len(piece):]
		}
		got := map[string]bool{}
		for range 5 {
			first, payload := conn.read()
			got[fmt.Sprintf("%#x %q", first, payload)] = true
		}
		for _, want := range []string{`0x81 "text"`, `0x82 "\xff\x00"`, `0x8a "between"`, `0x81 "first"`, `0x81 ""`} {
			if !got[want] {
				t.Errorf("in pieces of %d: no frame %s among %v", step, want, got)
			}
		}
		_ = conn.conn.Close()
	}
}

// RFC 6455, 5.5.2 and 5.5.3: each ping is answered with a pong that has its payload.
func TestRFC6455_EachPingIsAnswered(t *testing.T) {
	n := startEcho(t)
	for _, step := range []int{1, 1 << 20} {
		conn := n.raw(t, "")
		const pings = 10
		var stream []byte
		for i := range pings {
			stream = appendFrame(stream, 0x89, fmt.Sprintf("payload-%d", i))
		}
		for len(stream) > 0 {
			piece := stream[:min(step, len(stream))]
			if _, err := conn.conn.Write(piece); err != nil {
				t.Fatal(err)
			}
			stream = stream[len(piece):]
		}
		for i := range pings {
			conn.wantFrame(0x8A, fmt.Sprintf("payload-%d", i))
		}
		_ = conn.conn.Close()
	}
}

// RFC 6455, 8.1: text that cannot become valid UTF-8 fails the connection at once, before its frame or message ends.
func TestRFC6455_InvalidTextFailsAtOnce(t *testing.T) {
	n := startEcho(t)
	const good, bad, more = "κόσμε", "\xf4\x90\x80\x80", "edited"
	frame := func(first byte, announced int, payload string) string {
		return string([]byte{first, 0x80 | byte(announced), 0, 0, 0, 0}) + payload
	}
	whole := len(good + bad + more)
	for name, stream := range map[string]string{
		"in a later fragment":        frame(0x01, len(good), good) + frame(0x00, len(bad), bad),
		"across two fragments":       frame(0x01, len(good)+1, good+bad[:1]) + frame(0x00, 1, bad[1:2]),
		"within an incomplete frame": frame(0x81, whole, good+bad),
		"by its second byte":         frame(0x81, whole, good+bad[:2]),
	} {
		conn := n.raw(t, "")
		if _, err := conn.conn.Write([]byte(stream)); err != nil {
			t.Fatal(err)
		}
		if first, payload := conn.read(); first != 0x88 || !strings.HasPrefix(payload, "\x03\xef") {
			t.Errorf("%s: got %#x %q, want a close frame with 1007", name, first, payload)
		}
		_ = conn.conn.Close()
	}
}

// RFC 6455, 7.4 and 5.5.1: codes that must not be sent fail the connection, all others are answered with themselves,
// and a close frame without a code is answered without one.
func TestRFC6455_CloseCodes(t *testing.T) {
	const failed = "\x03\xeaProtocol error"
	n := startEcho(t)
	answers := map[string]string{"": "", "\x03": failed, "\x03\xe9bye": "\x03\xe9", "\x0f\xa1bye": "\x0f\xa1"}
	for _, text := range []string{"\x03\xe8\xff", "\x03\xf6\xff", "\x0f\xa1\xff"} {
		answers[text] = "\x03\xefText is not valid UTF-8"
	}
	for _, code := range []uint16{0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65535} {
		answers[string(binary.BigEndian.AppendUint16(nil, code))] = failed
	}
	for _, code := range []uint16{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999} {
		sent := string(binary.BigEndian.AppendUint16(nil, code))
		answers[sent] = sent
	}
	for sent, want := range answers {
		conn := n.raw(t, "")
		conn.write(0x88, sent)
		if first, payload := conn.read(); first != 0x88 || payload != want {
			t.Errorf("%q: got %#x %q, want a close frame with %q", sent, first, payload, want)
		}
		_ = conn.conn.Close()
	}
}

// RFC 6455, 5.5.1: no frame is handled, and none is sent, after a close frame. The server closes the TCP connection
// first, 7.1.1.
func TestRFC6455_NothingFollowsTheCloseFrame(t *testing.T) {
	n := startEcho(t)
	conn := n.raw(t, "")
	stream := appendFrame(appendFrame(nil, 0x88, "\x03\xe8"), 0x81, "late")
	if _, err := conn.conn.Write(stream); err != nil {
		t.Fatal(err)
	}
	if first, _ := conn.read(); first != 0x88 {
		t.Errorf("got %#x, want a close frame", first)
	}
	_ = conn.conn.SetDeadline(time.Now().Add(patience))
	var buf [1]byte
	if k, err := conn.conn.Read(buf[:]); k != 0 || err == nil || isTimeout(err) {
		t.Errorf("after the close frame: %d bytes, %v; want the end of the stream", k, err)
	}
}

// Every test that the tables of docs/conformance.md name exists.
func TestRFC6455_PageNamesTestsThatExist(t *testing.T) {
	page, err := os.ReadFile("../docs/conformance.md")
	if err != nil {
		t.Fatal(err)
	}
	var tests strings.Builder
	for _, pattern := range []string{"*_test.go", "../fuzz/*_test.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %d files, %v", pattern, len(files), err)
		}
		for _, file := range files {
			source, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			tests.Write(source)
		}
	}
	names := regexp.MustCompile("`((?:Test|Fuzz)[A-Z]\\w+)").FindAllStringSubmatch(string(page), -1)
	if len(names) < 40 {
		t.Errorf("the page names %d tests", len(names))
	}
	for _, name := range names {
		if !strings.Contains(tests.String(), "func "+name[1]) {
			t.Errorf("there is no %s", name[1])
		}
	}
}
