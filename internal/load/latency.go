package load

import (
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

const (
	// longest is the longest time that is told apart. What takes longer counts as that.
	longest = 10 * time.Minute
	// digits is how many significant decimal digits of a time are kept.
	digits = 3
)

// recorder is a histogram of times in nanoseconds. Its methods may be called from any number of goroutines.
type recorder struct {
	mu    sync.Mutex // protects times; nothing is called under it
	times *hdrhistogram.Histogram
}

func newHistogram() *hdrhistogram.Histogram { return hdrhistogram.New(1, int64(longest), digits) }

func newRecorder() *recorder { return &recorder{times: newHistogram()} }

// record adds a time. One below zero, from clocks that disagree, counts as zero.
func (r *recorder) record(nanoseconds int64) {
	nanoseconds = min(max(nanoseconds, 0), int64(longest))
	r.mu.Lock()
	defer r.mu.Unlock()
	_ = r.times.RecordValue(nanoseconds) // it is within the bounds
}

func (r *recorder) addTo(sum *hdrhistogram.Histogram) {
	r.mu.Lock()
	defer r.mu.Unlock()
	sum.Merge(r.times)
}

func (r *recorder) reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.times.Reset()
}
