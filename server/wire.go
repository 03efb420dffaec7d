package server

import (
	"net"
	"time"

	"github.com/shoal-go/shoal/internal/frame"
)

// wire is the connection as a reader's gws writes to it. What gws writes, a close frame, goes through the outbox
// of the client that is being read from, like all other frames and in its turn, and the socket is closed when
// the outbox is done with it, not when gws is. gws reads past it, from the reader. There is no net.Conn in it:
// gws has no use for the methods that are missing.
type wire struct {
	net.Conn
	client *Client
	// upgraded: gws has made its answer to the handshake, which is for nobody.
	upgraded bool
}

func (w *wire) Write(p []byte) (int, error) {
	if code, ok := closePayload(p); ok && w.upgraded && w.client != nil {
		w.client.out.Close(frame.New(frame.Close, frame.Control, code))
	}
	return len(p), nil
}

// Close is left to the outbox.
func (w *wire) Close() error { return nil }

// SetDeadline does nothing, since nothing waits.
func (w *wire) SetDeadline(time.Time) error { return nil }

// closePayload returns a copy of what a close frame carries.
func closePayload(p []byte) ([]byte, bool) {
	const header = 2
	if len(p) < header || frame.Opcode(p[0]&0x0F) != frame.Close {
		return nil, false
	}
	return append([]byte(nil), p[header:]...), true
}
