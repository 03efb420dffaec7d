package server

import (
	"bufio"
	"io"
	"net"
	"net/http"

	"github.com/shoal-go/shoal/internal/frame"
)

// wire is the connection as gws sees it. gws reads from it; what gws writes once the upgrade is done, a close
// frame, goes through the outbox like all other frames and in its turn, and the socket is closed when
// the outbox is done with it, not when gws is.
type wire struct {
	net.Conn
	client *Client
	// early is what the client sent before its upgrade was answered.
	early []byte
}

func (w *wire) Read(p []byte) (int, error) {
	if len(w.early) > 0 {
		n := copy(p, w.early)
		w.early = w.early[n:]
		return n, nil
	}
	return w.Conn.Read(p)
}

func (w *wire) Write(p []byte) (int, error) {
	if w.client == nil { // the answer to the upgrade
		return w.Conn.Write(p)
	}
	if code, ok := closePayload(p); ok {
		w.client.out.Close(frame.New(frame.Close, frame.Control, code))
	}
	return len(p), nil
}

// Close is left to the outbox as soon as there is one.
func (w *wire) Close() error {
	if w.client == nil {
		return w.Conn.Close()
	}
	return nil
}

// closePayload returns a copy of what a close frame carries.
func closePayload(p []byte) ([]byte, bool) {
	const header = 2
	if len(p) < header || frame.Opcode(p[0]&0x0F) != frame.Close {
		return nil, false
	}
	return append([]byte(nil), p[header:]...), true
}

// hijacked hands a wire to gws in the way in which gws takes a connection from a server.
type hijacked struct {
	http.ResponseWriter
	wire *wire
}

func (h hijacked) Hijack() (net.Conn, *bufio.ReadWriter, error) { return h.wire, nil, nil }

// takeOver takes the connection from the HTTP server, with what its reader has read ahead.
func takeOver(w http.ResponseWriter) (*wire, error) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, err
	}
	early := make([]byte, rw.Reader.Buffered())
	if _, err := io.ReadFull(rw.Reader, early); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return &wire{Conn: conn, early: early}, nil
}
