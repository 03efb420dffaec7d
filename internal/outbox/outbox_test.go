package outbox

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/shoal-go/shoal/internal/frame"
)

// bench is a pool with one outbox over a pipe, which accepts no byte before it is read: all frames except those of the
// first write are queued. It lives in a synctest bubble.
type bench struct {
	pool   *Pool
	box    *Outbox
	client net.Conn
}

func onPipe(t *testing.T, opt Options, test func(t *testing.T, b bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		server, client := net.Pipe()
		p := NewPool(opt.withoutBurst())
		defer p.Close()
		defer client.Close()
		test(t, bench{p, p.Open(server, Config{Variant: frame.V1}), client})
	})
}

// plug sends a frame and waits until it is being written, so that later frames are queued.
func (b bench) plug(t *testing.T) {
	send(t, b.box, Queued, data("plug", frame.Event, 0, 0))
	synctest.Wait()
}

func TestOutbox_StateReplacesQueuedStateUnderPressure(t *testing.T) {
	onPipe(t, Options{MaxMessages: 8}, func(t *testing.T, b bench) {
		b.plug(t)
		send(t, b.box, Queued,
			data("a", frame.State, 1, 0), data("b", frame.State, 1, 0), data("a", frame.State, 2, 0))
		send(t, b.box, Conflated,
			data("a", frame.State, 3, 0), data("b", frame.State, 2, 0), data("a", frame.State, 4, 0))
		if got, want := numbers(t, mustRead(t, b.client, 4)), "plug0 a1 b2+1 a4+2"; got != want {
			t.Errorf("the client got %s, want %s", got, want)
		}
	})
}

func TestOutbox_ConflatesUnderPressureByBytes(t *testing.T) {
	onPipe(t, Options{MaxBytes: 1000}, func(t *testing.T, b bench) {
		b.plug(t)
		send(t, b.box, Queued, data("a", frame.State, 1, 200), data("a", frame.State, 2, 250))
		send(t, b.box, Conflated, data("a", frame.State, 3, 0))
	})
}

func TestOutbox_ClientThatKeepsUpReceivesEveryState(t *testing.T) {
	onPipe(t, Options{MaxMessages: 8}, func(t *testing.T, b bench) {
		for i := range 100 {
			send(t, b.box, Queued, data("a", frame.State, 2*i, 0), data("a", frame.State, 2*i+1, 0))
			for _, r := range mustRead(t, b.client, 2) {
				if m := r.message(t); m.Skipped != 0 {
					t.Fatalf("message %d replaced %d others", m.Number, m.Skipped)
				}
			}
			synctest.Wait()
		}
	})
}

func TestOutbox_StateDoesNotPassEventOrTerminal(t *testing.T) {
	for name, class := range map[string]frame.Class{"event": frame.Event, "terminal": frame.Terminal} {
		t.Run(name, func(t *testing.T) {
			onPipe(t, Options{MaxMessages: 8}, func(t *testing.T, b bench) {
				b.plug(t)
				send(t, b.box, Queued, data("a", frame.State, 1, 0), data("b", frame.State, 1, 0),
					data("c", frame.State, 1, 0))
				send(t, b.box, Conflated, data("a", frame.State, 2, 0)) // makes the index
				send(t, b.box, Queued, data("a", class, 3, 0), data("a", frame.State, 4, 0))
				send(t, b.box, Conflated, data("a", frame.State, 5, 0), data("b", frame.State, 2, 0))
				want := "plug0 a2+1 b2+1 c1 a3 a5+1"
				if got := numbers(t, mustRead(t, b.client, 6)); got != want {
					t.Errorf("the client got %s, want %s", got, want)
				}
			})
		})
	}
}

func TestOutbox_IndexIncludesFramesQueuedBeforeIt(t *testing.T) {
	onPipe(t, Options{MaxMessages: 8}, func(t *testing.T, b bench) {
		b.plug(t)
		send(t, b.box, Queued, data("a", frame.State, 1, 0), data("a", frame.Event, 2, 0),
			data("b", frame.State, 1, 0))
		send(t, b.box, Queued, data("a", frame.State, 3, 0)) // the event shields a1
		send(t, b.box, Conflated, data("b", frame.State, 2, 0))
		if got, want := numbers(t, mustRead(t, b.client, 5)), "plug0 a1 a2 b2+1 a3"; got != want {
			t.Errorf("the client got %s, want %s", got, want)
		}
	})
}

func TestOutbox_StateWithoutUploadIsNotConflated(t *testing.T) {
	onPipe(t, Options{MaxMessages: 8}, func(t *testing.T, b bench) {
		b.plug(t)
		for i := range 7 {
			send(t, b.box, Queued, data("", frame.State, i, 0))
		}
	})
}

func TestOutbox_DequeuedStateIsNotReplaced(t *testing.T) {
	onPipe(t, Options{MaxMessages: 4}, func(t *testing.T, b bench) {
		b.plug(t)
		send(t, b.box, Queued, data("a", frame.State, 1, 0), data("b", frame.State, 1, 0))
		send(t, b.box, Conflated, data("a", frame.State, 2, 0))
		mustRead(t, b.client, 1)
		synctest.Wait() // a2 and b1 are being written, and count still
		send(t, b.box, Queued, data("a", frame.State, 3, 0))
		send(t, b.box, Conflated, data("a", frame.State, 4, 0))
		if got, want := numbers(t, mustRead(t, b.client, 3)), "a2+1 b1 a4+1"; got != want {
			t.Errorf("the client got %s, want %s", got, want)
		}
		synctest.Wait()
		if b.box.index != nil || !b.box.data.empty() || b.box.owned {
			t.Error("a drained outbox still holds an index, a queue or an owner")
		}
	})
}

func TestOutbox_ReplacementOverLimitOverflows(t *testing.T) {
	onPipe(t, Options{MaxBytes: 1000}, func(t *testing.T, b bench) {
		b.plug(t)
		send(t, b.box, Queued, data("a", frame.State, 1, 500))
		send(t, b.box, Dropped, data("a", frame.State, 2, 1000))
		if !b.box.Overflowed() {
			t.Error("the outbox did not overflow")
		}
	})
}

func control(op frame.Opcode, body string) *frame.Frame {
	return frame.New(op, frame.Control, []byte(body))
}

func TestOutbox_ControlPrecedesQueuedData(t *testing.T) {
	onPipe(t, Options{}, func(t *testing.T, b bench) {
		b.plug(t)
		send(t, b.box, Queued, data("a", frame.Event, 1, 0), control(frame.Ping, "p"), control(frame.Text, "{}"))
		if got := mustRead(t, b.client, 4)[1:]; string(got[0].body) != "p" || string(got[1].body) != "{}" {
			t.Errorf("the client got, behind what was being written:\n%s", bodies(got))
		}
	})
}

func TestOutbox_QueuedPingIsNotQueuedTwice(t *testing.T) {
	onPipe(t, Options{}, func(t *testing.T, b bench) {
		b.plug(t)
		ping := control(frame.Ping, "same")
		send(t, b.box, Queued, ping, ping, control(frame.Ping, "other"), ping)
		b.box.Close(frame.NewClose(1000, ""))
		if got, want := bodies(mustRead(t, b.client, 4)[1:3]), "same\nother\n"; got != want {
			t.Errorf("the client got %q, want %q", got, want)
		}
	})
}

// Up to 16 pings are answered one by one. Of more, the last is answered.
func TestOutbox_PingsAreAnsweredIndividually(t *testing.T) {
	for _, pings := range []int{1, 10, maxPongs, maxPongs + 1, 1000} {
		onPipe(t, Options{}, func(t *testing.T, b bench) {
			b.plug(t)
			var want []string
			for i := range pings {
				send(t, b.box, Queued, control(frame.Pong, fmt.Sprint("pong", i)))
				if len(want) == maxPongs {
					want = want[:maxPongs-1]
				}
				want = append(want, fmt.Sprint("pong", i))
			}
			send(t, b.box, Queued, data("a", frame.Event, 1, 0))
			got := mustRead(t, b.client, 1+len(want)+1)
			if bodies(got[1:1+len(want)]) != strings.Join(want, "\n")+"\n" || got[1+len(want)].message(t).Upload != "a" {
				t.Errorf("%d pings: the client got:\n%s", pings, bodies(got))
			}
			synctest.Wait()
			if unwritten := b.box.control.unwritten; unwritten != (amount{}) {
				t.Errorf("an empty queue counts %+v", unwritten)
			}
		})
	}
}

func TestOutbox_ControlHasItsOwnLimits(t *testing.T) {
	t.Run("frames", func(t *testing.T) {
		onPipe(t, Options{MaxMessages: 2}, func(t *testing.T, b bench) {
			b.plug(t)
			for range controlLimit.frames {
				send(t, b.box, Queued, control(frame.Ping, ""))
			}
			send(t, b.box, Queued, data("a", frame.Event, 1, 0)) // the data has its own bound
			send(t, b.box, Dropped, control(frame.Ping, ""))
			if !b.box.Overflowed() {
				t.Error("the outbox did not overflow")
			}
		})
	})
	t.Run("bytes", func(t *testing.T) {
		onPipe(t, Options{MaxBytes: 1000}, func(t *testing.T, b bench) {
			b.plug(t)
			send(t, b.box, Queued, control(frame.Text, string(make([]byte, controlLimit.bytes-100))))
			send(t, b.box, Dropped, control(frame.Text, string(make([]byte, 100))))
		})
	})
}
