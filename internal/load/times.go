package load

import (
	"sync"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Percentiles are percentiles of times, in nanoseconds.
type Percentiles struct {
	Count int64 `json:"-"`
	P50   int64 `json:"p50"`
	P90   int64 `json:"p90"`
	P99   int64 `json:"p99"`
	P999  int64 `json:"p99.9"`
	Max   int64 `json:"max"`
}

// PercentilesOf returns the percentiles of a histogram of nanoseconds.
func PercentilesOf(h *hdrhistogram.Histogram) Percentiles {
	return Percentiles{
		h.TotalCount(), h.ValueAtQuantile(50), h.ValueAtQuantile(90), h.ValueAtQuantile(99), h.ValueAtQuantile(99.9), h.Max(),
	}
}

// Times is a histogram of times in nanoseconds. Its methods may be called from any number of goroutines.
type Times struct {
	mu  sync.Mutex // protects all; nothing is called while it is held
	all *hdrhistogram.Histogram
}

func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, int64(maxLatency), significantDigits)
}

// NewTimes returns an empty histogram.
func NewTimes() *Times { return &Times{all: newHistogram()} }

// Add adds a time. Negative times, from clocks that differ, are recorded as 0, and those beyond maxLatency as this.
func (t *Times) Add(nanoseconds int64) {
	nanoseconds = min(max(nanoseconds, 0), int64(maxLatency))
	t.mu.Lock()
	defer t.mu.Unlock()
	_ = t.all.RecordValue(nanoseconds) // within the range of the histogram
}

// Percentiles returns the percentiles of the times so far.
func (t *Times) Percentiles() Percentiles {
	t.mu.Lock()
	defer t.mu.Unlock()
	return PercentilesOf(t.all)
}

// Reset removes all times.
func (t *Times) Reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all.Reset()
}

func (t *Times) addTo(sum *hdrhistogram.Histogram) {
	t.mu.Lock()
	defer t.mu.Unlock()
	sum.Merge(t.all)
}
