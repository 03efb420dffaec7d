//go:build unix

package outbox

import (
	"bufio"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"

	"github.com/shoal-go/shoal/internal/frame"
)

// Senders, closers and Pool.Close run concurrently. Each sender numbers its messages, so a
// client can tell whether anything came twice, out of order, or mixed with something else.
func TestOutbox_Stress(t *testing.T) {
	const (
		boxes   = 24
		senders = 4
		rounds  = 1000
	)
	p := NewPool(Options{Writers: 2, MaxMessages: 200, MaxBytes: 256 << 10})
	all := make([]*Outbox, boxes)
	var clients, others sync.WaitGroup
	release := make(chan struct{})
	for i := range all {
		server, client := socketPair(t)
		if i%4 == 3 {
			server, client = net.Pipe()
		}
		o := p.Open(server, Config{Variant: frame.V1})
		all[i] = o
		clients.Go(func() { readUntilGone(o, server) })
		clients.Go(func() {
			defer client.Close()
			if i%4 == 1 {
				<-release // a client that takes nothing for most of the time
			}
			checkStream(t, client)
		})
	}
	for s := range senders {
		upload := string(rune('a' + s))
		others.Go(func() {
			for n := range rounds {
				class := frame.State
				if n%50 == 49 {
					class = frame.Event
				}
				f := data(upload, class, n, n%300)
				for _, o := range all {
					o.Send(f)
				}
				o := all[rand.IntN(boxes)]
				switch rand.IntN(3 * rounds / boxes * senders) {
				case 0:
					o.Close(frame.NewClose(1012, ""))
				case 1:
					o.Abort()
				case 2:
					o.PeerGone()
				default:
					o.Send(sharedPing)
				}
			}
		})
	}
	others.Wait()
	close(release)
	for _, o := range all[:boxes/2] {
		o.Close(frame.NewClose(1000, ""))
	}
	p.Close()
	clients.Wait()
	for _, o := range all {
		<-o.Done()
	}
	if got := p.Stats(); got.Stalled != 0 || got.Panics != 0 || got.Frames == 0 {
		t.Errorf("counted %+v", got)
	}
}

// checkStream reads until the stream ends, which an abort may do anywhere, also inside a frame.
func checkStream(t *testing.T, client net.Conn) {
	newest := make(map[string]int)
	r := bufio.NewReader(client)
	for {
		f, err := readFrame(r)
		switch {
		case errors.Is(err, errNotAFrame):
			t.Error("frames were mixed")
			return
		case err != nil:
			_, _ = io.Copy(io.Discard, r)
			return
		case f.opcode != frame.Text:
			continue
		}
		m := f.message(t)
		last, seen := newest[m.Upload]
		if !seen {
			last = -1
		}
		if m.Number != last+1+m.Skipped {
			t.Errorf("upload %s: message %d, replacing %d, came after message %d", m.Upload, m.Number, m.Skipped, last)
		}
		newest[m.Upload] = m.Number
	}
}
