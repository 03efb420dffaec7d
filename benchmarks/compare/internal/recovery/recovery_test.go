package recovery

import (
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestRun_Simulated: a small trial delivers every message, compares every upload once, and reads only changed uploads.
func TestRun_Simulated(t *testing.T) {
	r, err := Run(t.Context(), Options{
		Broker: Simulated, Uploads: 2000, Stored: 1, Bytes: 256, Changed: 0.01, Cut: 100 * time.Millisecond, Rate: 200,
		Model: Model{RoundTrip: time.Millisecond, Read: 10 * time.Microsecond, PerChannel: time.Microsecond}, Patience: time.Minute,
	})
	if err != nil {
		t.Fatal(err)
	}
	if r.Changed < 10 || r.Changed > 20 || r.Disorder != 0 || r.Current == 0 || r.Live.Count == 0 || r.Behind.Count == 0 {
		t.Errorf("the result is %+v", r)
	}
	if c := r.Calls; c.Compared > 2000 || c.Histories < int64(r.Changed) || c.Histories > 3*int64(r.Changed) {
		t.Errorf("%+v calls for %d changed uploads, want 2000 compared and about the changed ones read", c, r.Changed)
	}
}
