package outbox

import (
	"testing"
	"testing/synctest"

	"github.com/shoal-go/shoal/internal/frame"
)

func control(op frame.Opcode, body string) *frame.Frame {
	return frame.New(op, frame.Control, []byte(body))
}

func TestControlGoesAheadOfWaitingData(t *testing.T) {
	onPipe(t, Options{}, func(t *testing.T, b bench) {
		b.plug(t)
		send(t, b.box, Queued, data("a", frame.Event, 1, 0), control(frame.Ping, "p"), control(frame.Text, "{}"))
		if got := mustRead(t, b.client, 4)[1:]; string(got[0].body) != "p" || string(got[1].body) != "{}" {
			t.Errorf("the client got, behind what was being written:\n%s", bodies(got))
		}
	})
}

func TestAPingThatWaitsIsNotQueuedTwice(t *testing.T) {
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

func TestTheNewestPongIsEnough(t *testing.T) {
	onPipe(t, Options{}, func(t *testing.T, b bench) {
		b.plug(t)
		send(t, b.box, Queued, control(frame.Pong, "1"), control(frame.Ping, "p"), control(frame.Pong, "22"))
		send(t, b.box, Queued, data("a", frame.Event, 1, 0))
		got := mustRead(t, b.client, 4)
		if string(got[1].body) != "22" || string(got[2].body) != "p" || got[3].message(t).Upload != "a" {
			t.Errorf("the client got:\n%s", bodies(got))
		}
		synctest.Wait()
		if held := b.box.control.held; held != (tally{}) {
			t.Errorf("an empty lane counts %+v", held)
		}
	})
}

func TestControlIsBoundedByItself(t *testing.T) {
	t.Run("frames", func(t *testing.T) {
		onPipe(t, Options{MaxMessages: 2}, func(t *testing.T, b bench) {
			b.plug(t)
			for range controlBound.frames {
				send(t, b.box, Queued, control(frame.Ping, ""))
			}
			send(t, b.box, Queued, data("a", frame.Event, 1, 0)) // the data has its own bound
			send(t, b.box, Dropped, control(frame.Ping, ""))
			if b.box.Reason() == nil {
				t.Error("the outbox did not overflow")
			}
		})
	})
	t.Run("bytes", func(t *testing.T) {
		onPipe(t, Options{MaxBytes: 1000}, func(t *testing.T, b bench) {
			b.plug(t)
			send(t, b.box, Queued, control(frame.Text, string(make([]byte, controlBound.bytes-100))))
			send(t, b.box, Dropped, control(frame.Text, string(make([]byte, 100))))
		})
	})
}
