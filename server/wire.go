package server

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"

	"github.com/shoal-go/shoal/internal/frame"
)

// wire is the connection as gws writes to it. What gws writes once the upgrade is done, a close frame, goes
// through the outbox like all other frames and in its turn, and the socket is closed when the outbox is done
// with it, not when gws is. gws reads past it, from the socket.
type wire struct {
	net.Conn
	client *Client
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

// takeOver takes the connection from the HTTP server, with a reader that begins with what the server's own
// has read ahead.
func takeOver(w http.ResponseWriter) (*wire, *bufio.Reader, error) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, nil, err
	}
	source := newSource(conn)
	if n := rw.Reader.Buffered(); n > 0 {
		early, err := rw.Reader.Peek(n)
		if err != nil {
			_ = conn.Close()
			return nil, nil, err
		}
		source = io.MultiReader(bytes.NewReader(bytes.Clone(early)), source)
	}
	return &wire{Conn: conn}, bufio.NewReaderSize(source, readBuffer), nil
}
