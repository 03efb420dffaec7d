package outbox

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/shoal/internal/frame"
)

// The ages of frames are measured when they are written: that of the oldest live frame of each batch since it was made,
// and that of the oldest frame of a slow connection since it was queued. Unwritten frames can be counted.
func TestOutbox_MeasuresAges(t *testing.T) {
	var written, waited []time.Duration
	opt := Options{
		Written: func(age time.Duration) { written = append(written, age) },
		Waited:  func(age time.Duration) { waited = append(waited, age) },
	}
	onPipe(t, opt, func(t *testing.T, b bench) {
		b.plug(t)
		<-time.After(2 * time.Second)
		send(t, b.box, Queued, data("a", frame.Event, 1, 0), control(frame.Ping, "x"))
		if p := b.box.Pending(); p.Frames != 3 || p.Bytes == 0 || p.RecoveryBytes != 0 || p.Waiting != 2*time.Second {
			t.Errorf("%+v are pending", p)
		}
		<-time.After(3 * time.Second)
		mustRead(t, b.client, 3)
		synctest.Wait()
		if p := b.box.Pending(); p != (Pending{}) {
			t.Errorf("%+v are pending after all was read", p)
		}
		// The first frame waited for its reader for 5 s, the second one behind it for 3 s.
		want := []time.Duration{5 * time.Second, 3 * time.Second}
		if !slices.Equal(written, want) || !slices.Equal(waited, want) {
			t.Errorf("written after %v, waited for %v, want %v", written, waited, want)
		}
	})
}

// Each traced frame is passed to Traced when it has been written, whether its connection stalls or not, and no other is.
func TestOutbox_ReportsTracedFrames(t *testing.T) {
	var traced []string
	opt := Options{Traced: func(f *frame.Frame) { traced = append(traced, string(f.Body())) }}
	onPipe(t, opt, func(t *testing.T, b bench) {
		b.plug(t)
		first, third := data("a", frame.Event, 1, 0).WithTrace(), data("a", frame.Event, 3, 0).WithTrace()
		send(t, b.box, Queued, first, data("a", frame.Event, 2, 0), third)
		synctest.Wait()
		if len(traced) != 0 {
			t.Errorf("%v are reported before anything is read", traced)
		}
		mustRead(t, b.client, 4)
		synctest.Wait()
		if want := []string{string(first.Body()), string(third.Body())}; !slices.Equal(traced, want) {
			t.Errorf("the frames %v are reported, want %v", traced, want)
		}
	})
}
