package dashboard

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

const (
	// residenceWindows is the number of intervals over which percentiles are taken.
	residenceWindows = 10
	maxResidence     = time.Minute
)

// Residence collects the durations from publishing a message until it was handed to the kernel, while somebody looks.
// The zero value is ready for use.
type Residence struct {
	window atomic.Pointer[residenceWindow] // nil while nobody looks
}

type residenceWindow struct {
	mu   sync.Mutex // protects hist
	hist *hdrhistogram.WindowedHistogram
}

// Observe adds a duration. It may be called from any number of goroutines and returns at once.
func (r *Residence) Observe(d time.Duration) {
	w := r.window.Load()
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	_ = w.hist.Current.RecordValue(min(max(d, time.Microsecond), maxResidence).Microseconds()) // it is in range
}

// start begins to collect, stop ends it.
func (r *Residence) start() {
	r.window.Store(&residenceWindow{
		hist: hdrhistogram.NewWindowed(residenceWindows, 1, maxResidence.Microseconds(), 2),
	})
}

func (r *Residence) stop() { r.window.Store(nil) }

// percentiles are in microseconds.
type percentiles struct {
	Count int64 `json:"count"`
	P50   int64 `json:"p50"`
	P90   int64 `json:"p90"`
	P99   int64 `json:"p99"`
	Max   int64 `json:"max"`
}

// next returns the percentiles of the last intervals and begins another one. It returns nil if nothing was observed.
func (r *Residence) next() *percentiles {
	w := r.window.Load()
	if w == nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	all := w.hist.Merge()
	w.hist.Rotate()
	if all.TotalCount() == 0 {
		return nil
	}
	return &percentiles{
		all.TotalCount(), all.ValueAtQuantile(50), all.ValueAtQuantile(90), all.ValueAtQuantile(99), all.Max(),
	}
}
