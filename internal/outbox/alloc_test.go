//go:build !race

package outbox

import (
	"testing"

	"github.com/shoal-go/shoal/internal/frame"
)

// The race detector makes sync.Pool forget things on purpose, so this has no meaning with it.
func TestOutbox_SendDoesNotAllocatePerReceiver(t *testing.T) {
	const receivers = 500
	h := newHall(t, receivers)
	message, ping := data("upload", frame.State, 1, 225), frame.New(frame.Ping, frame.Control, nil)
	got := testing.AllocsPerRun(50, func() {
		for range 40 {
			h.send(message)
		}
		h.drain()
		h.send(ping)
		h.drain()
	})
	// A collection in between empties the pools, which may cost a few chunks, but nothing for each receiver.
	if got > receivers/10 {
		t.Errorf("%v allocations for %d receivers of 41 frames", got, receivers)
	}
}
