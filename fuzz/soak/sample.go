package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"time"
)

// sample is a measurement of the process.
type sample struct {
	at                                              time.Duration
	clients, subscriptions, goroutines, descriptors int
	heap, delivered                                 uint64
	// p99 is the time from publication to arrival, at clients that behave, since the sample before.
	p99 time.Duration
}

const header = "cycle  clients  subscriptions  goroutines    heap MB  descriptors  delivered   p99 ms"

// String formats the sample below header.
func (s sample) String() string {
	return fmt.Sprintf("%7d  %13d  %10d  %9.1f  %11d  %9d  %7.1f",
		s.clients, s.subscriptions, s.goroutines, float64(s.heap)/(1<<20), s.descriptors, s.delivered, millis(s.p99))
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// measure measures the process. With collect, garbage does not count.
func (w *world) measure(collect bool) sample {
	if collect {
		runtime.GC()
		runtime.GC() // empties the pools, too
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	s := sample{
		at: time.Since(w.start), clients: int(w.open.Load()), goroutines: runtime.NumGoroutine(), heap: m.HeapAlloc,
		delivered: w.delivered.Load(), p99: w.latency(),
	}
	for _, n := range w.nodes {
		n.mu.RLock()
		s.subscriptions += n.server.Stats().Subscriptions
		n.mu.RUnlock()
	}
	if all, err := os.ReadDir("/proc/self/fd"); err == nil { // elsewhere descriptors are not counted
		s.descriptors = len(all)
	}
	return s
}

// busiest returns the sample with most clients.
func busiest(all []sample) sample {
	if len(all) == 0 {
		return sample{}
	}
	return slices.MaxFunc(all, func(a, b sample) int { return a.clients - b.clients })
}

// Growth that the end of a cycle may have over the end of the first one: idle readers are kept, and the garbage
// collector and the runtime keep some memory for reuse.
const (
	spareGoroutines  = 30
	spareDescriptors = 4
	spareHeap        = 4 << 20
)

// grown returns an error that names each resource that is larger at the end of the last cycle than at the end of the
// first. All of it must be left at the end of the two last cycles: a single measurement may fall into a moment of work.
func grown(quiet []sample) error {
	first, last := quiet[0], quiet[len(quiet)-1]
	if before := quiet[len(quiet)-2]; len(quiet) > 2 {
		last.goroutines = min(last.goroutines, before.goroutines)
		last.descriptors = min(last.descriptors, before.descriptors)
		last.heap = min(last.heap, before.heap)
	}
	var problems []error
	check := func(name string, first, last, spare int) {
		if last > first+first/10+spare {
			problems = append(problems, fmt.Errorf("%s grew from %d to %d", name, first, last))
		}
	}
	check("the number of goroutines", first.goroutines, last.goroutines, spareGoroutines)
	check("the number of descriptors", first.descriptors, last.descriptors, spareDescriptors)
	check("the heap", int(first.heap), int(last.heap), spareHeap) //nolint:gosec // less than the address space
	return errors.Join(problems...)
}
