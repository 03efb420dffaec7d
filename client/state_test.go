package client_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/shoal/client"
)

// The calls of OnState are in the order of the states and do not overlap, also where a loop begins while the end of the
// former connection is being reported. They may call the client.
func TestState_CallsAreInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &place{t: t}
		p.serve(func(w http.ResponseWriter, r *http.Request) {
			upgrade(w, r, func(conn net.Conn, frames *bufio.Reader) {
				if login(conn, frames) != nil {
					return
				}
				_, _ = conn.Write(frame(0x88, "\x03\xe8bye")) // 1000: final
				_, _ = io.Copy(io.Discard, frames)
			})
		})
		var seen states
		var c *client.Client
		var running, overlaps atomic.Int32
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		c = p.client(seen.record, func(o *client.Options) {
			record := o.OnState
			o.OnState = func(s client.State) {
				if running.Add(1) > 1 {
					overlaps.Add(1)
				}
				<-time.After(time.Millisecond)
				for _, err := range c.Follow(ended, "v") {
					if !errors.Is(err, context.Canceled) && !errors.Is(err, client.ErrClosed) {
						t.Errorf("a loop within a call: %v", err)
					}
				}
				record(s)
				running.Add(-1)
			}
		})
		for range 20 {
			for _, err := range c.Follow(t.Context(), "u") {
				if !errors.Is(err, client.ErrStopped) {
					t.Errorf("ended with %v", err)
				}
			}
		}
		_ = c.Close()
		if n := overlaps.Load(); n > 0 {
			t.Errorf("%d calls overlapped another one", n)
		}
		want := strings.TrimSuffix(strings.Repeat("connecting live stopped ", 20), " ")
		if s := seen.String(); s != want {
			t.Errorf("states: %s", s)
		}
	})
}

// A connection that breaks while there is no loop is reported, and the next loop connects again.
func TestState_BreakWithoutLoopIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t)
		var seen states
		c := p.client(seen.record)
		l := follow(t, c, "u")
		synctest.Wait()
		l.stop()
		synctest.Wait()
		p.kill()
		synctest.Wait()
		if s := seen.String(); s != "connecting live stopped" {
			t.Errorf("states: %s", s)
		}
		p.start().publish(t, "u", 1)
		follow(t, c, "u").want(1)
		if s := seen.String(); s != "connecting live stopped connecting live" {
			t.Errorf("states: %s", s)
		}
	})
}

// A loop that ends during a delay makes the next attempt needless, which is reported.
func TestState_LastLoopEndsDuringDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t)
		p.drain()
		var seen states
		l := follow(t, p.client(seen.record), "u")
		synctest.Wait()
		l.stop()
		<-time.After(time.Hour)
		if s := seen.String(); s != "connecting waiting stopped" {
			t.Errorf("states: %s", s)
		}
	})
}
