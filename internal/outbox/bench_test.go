package outbox

import (
	"fmt"
	"net"
	"runtime"
	"testing"

	"github.com/shoal-go/shoal/internal/frame"
)

// A hall is a pool with many outboxes whose clients always keep up.
type hall struct {
	pool  *Pool
	boxes []*Outbox
	sent  uint64
}

func newHall(t testing.TB, receivers int) *hall {
	t.Helper()
	h := &hall{pool: NewPool(Options{})}
	t.Cleanup(h.pool.Close)
	for range receivers {
		h.boxes = append(h.boxes, openRaw(h.pool, newNullConn(t), Config{Variant: frame.V1}))
	}
	return h
}

func (h *hall) send(f *frame.Frame) {
	for _, o := range h.boxes {
		o.Send(f)
	}
	h.sent += uint64(len(h.boxes))
}

// drain waits until all that was sent has been written.
func (h *hall) drain() {
	for h.pool.Stats().Frames < h.sent {
		runtime.Gosched()
	}
}

func BenchmarkSend(b *testing.B) {
	for _, receivers := range []int{1, 1000} {
		for _, burst := range []int{1, 40} {
			b.Run(fmt.Sprintf("receivers=%d/burst=%d/payload=256", receivers, burst), func(b *testing.B) {
				h := newHall(b, receivers)
				f := data("upload", frame.State, 1, 225)
				b.ReportAllocs()
				for b.Loop() {
					for range burst {
						h.send(f)
					}
					h.drain()
				}
				frames := float64(b.N * receivers * burst)
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/frames, "ns/frame")
			})
		}
	}
}

// BenchmarkConflate replaces states in the queue of a client that takes nothing.
func BenchmarkConflate(b *testing.B) {
	for _, uploads := range []int{1, 400} {
		b.Run(fmt.Sprintf("uploads=%d/payload=256", uploads), func(b *testing.B) {
			server, client := net.Pipe()
			defer client.Close()
			p := NewPool(Options{MaxMessages: 2 * uploads})
			defer p.Close()
			o := p.Open(server, Config{})
			frames := make([]*frame.Frame, uploads)
			for i := range frames {
				frames[i] = data(fmt.Sprint("upload", i), frame.State, 1, 225)
				o.Send(frames[i])
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				o.Send(frames[i%uploads])
			}
		})
	}
}
