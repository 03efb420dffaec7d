package server_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/shoal-go/shoal/internal/wsframe"
)

// raw is a connection on which the test writes frames itself.
type raw struct {
	t    *testing.T
	conn net.Conn
}

// raw upgrades a connection by hand. extra are more lines of the request's header.
func (n *node) raw(t *testing.T, extra string) *raw {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	conn, err := n.dial(ctx, "tcp", n.host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	_, err = fmt.Fprintf(conn, "GET /ws/uploads HTTP/1.1\r\nHost: %s\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n%s\r\n", n.host, extra)
	if err != nil {
		t.Fatal(err)
	}
	r := &raw{t: t, conn: conn}
	head := ""
	for !strings.HasSuffix(head, "\r\n\r\n") {
		head += r.bytes(1)
	}
	if !strings.HasPrefix(head, "HTTP/1.1 101 ") {
		t.Fatalf("the upgrade was answered with %q", head)
	}
	return r
}

// write sends a masked frame with the first byte as given.
func (r *raw) write(first byte, payload string) {
	_, _ = r.conn.Write(wsframe.AppendMasked(nil, first, [4]byte{}, []byte(payload))) // where it fails, so will reading
}

// read returns the next frame.
func (r *raw) read() (first byte, payload string) {
	r.t.Helper()
	f, err := wsframe.Read(r.conn, 1<<16)
	if err != nil || f.Masked {
		r.t.Fatalf("reading a frame: %v, masked: %v", err, f.Masked)
	}
	return f.First, string(f.Payload)
}

func (r *raw) bytes(n int) string {
	r.t.Helper()
	buf := make([]byte, n)
	for got := 0; got < n; {
		k, err := r.conn.Read(buf[got:])
		if err != nil {
			r.t.Fatalf("reading: %v", err)
		}
		got += k
	}
	return string(buf)
}

// enter authenticates on a connection without a client of its own.
func (r *raw) enter(user string) {
	r.t.Helper()
	r.write(0x81, `{"type":"auth","token":"`+user+`"}`)
	r.want(`{"action":"auth_success","user_id":"` + user + `"}`)
}

func (r *raw) want(text string) {
	r.t.Helper()
	if first, payload := r.read(); first != 0x81 || payload != text {
		r.t.Fatalf("got %#x %q, want the text %q", first, payload, text)
	}
}

const unknownAnswer = `{"action":"error","code":"unknown_action","message":"the action is not known here"}`

func v1Header() string { return "Sec-WebSocket-Protocol: shoal.v1\r\n" }
