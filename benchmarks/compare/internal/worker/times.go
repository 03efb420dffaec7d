package worker

import (
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Percentiles are percentiles of times, in nanoseconds.
type Percentiles struct{ Count, P50, P99, P999, Max int64 }

// PercentilesOf returns the percentiles of a histogram of nanoseconds.
func PercentilesOf(h *hdrhistogram.Histogram) Percentiles {
	return Percentiles{h.TotalCount(), h.ValueAtQuantile(50), h.ValueAtQuantile(99), h.ValueAtQuantile(99.9), h.Max()}
}

// Times are times of up to a minute. Its methods may be called from any goroutine.
type Times struct {
	mu  sync.Mutex // protects all
	all *hdrhistogram.Histogram
}

// NewTimes returns empty times.
func NewTimes() *Times { return &Times{all: hdrhistogram.New(1, int64(time.Minute), 3)} }

// Add adds a time in nanoseconds. One beyond a minute is dropped.
func (t *Times) Add(nanoseconds int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	_ = t.all.RecordValue(nanoseconds)
}

// Reset removes all times.
func (t *Times) Reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all.Reset()
}

// Percentiles returns the percentiles so far.
func (t *Times) Percentiles() Percentiles {
	t.mu.Lock()
	defer t.mu.Unlock()
	return PercentilesOf(t.all)
}
