package sinks

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoal-go/shoal/manager"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/message"
)

// each does something for every number below n, once.
func each(n int, do func(i int) error) (Answer, error) {
	began := time.Now()
	for i := range n {
		if err := do(i); err != nil {
			return Answer{}, err
		}
	}
	return Answer{Operations: uint64(n), Took: time.Since(began)}, nil //nolint:gosec // not negative
}

// broadcast sends a message that is encoded already to the first upload, again and again. The clock is looked
// at once in a few thousand receivers, so that it does not count.
func (p *process) broadcast(lasts time.Duration) (Answer, error) {
	const often = 8192
	upload := message.Channel(0)
	encoded, err := manager.Parse(upload, message.Message{Channel: upload, Size: p.bytes}.JSON(), time.Now())
	if err != nil {
		return Answer{}, err
	}
	receivers := (len(p.conns) + p.uploads - 1) / p.uploads
	send := func() error {
		d, err := p.manager.SendToUploadSubscribers(upload, encoded)
		if err == nil && d.Queued != receivers {
			err = fmt.Errorf("sinks: %+v came of a message to %d receivers", d, receivers)
		}
		return err
	}
	if err := send(); err != nil { // the caches warm up
		return Answer{}, err
	}
	var sent uint64
	began := time.Now()
	for sent == 0 || time.Since(began) < lasts {
		for range 1 + often/receivers {
			if err := send(); err != nil {
				return Answer{}, err
			}
			sent++
		}
	}
	return Answer{Operations: sent * uint64(receivers), Took: time.Since(began)}, nil //nolint:gosec // not negative
}

// draw returns a random number below n.
type draw = func(n int) int

// runWorkers does something as often as possible, at least once, from as many goroutines as there are processors.
func runWorkers(q Request, do func(draw) error) (Answer, error) {
	const often = 64 // operations between two looks at the clock
	workers := runtime.GOMAXPROCS(0)
	var done atomic.Uint64
	failures := make([]error, workers)
	began := time.Now()
	var working sync.WaitGroup
	for w := range workers {
		working.Go(func() {
			random := rand.New(rand.NewPCG(uint64(w), 1)) //nolint:gosec // the same each time
			for first := true; failures[w] == nil && (first || time.Since(began) < q.For); first = false {
				for i := 0; i < often && failures[w] == nil; i++ {
					failures[w] = do(random.IntN)
				}
				done.Add(often)
			}
		})
	}
	a := Answer{}
	if q.Collect {
		a.Collected, a.Pause = collect()
	}
	working.Wait()
	a.Operations, a.Took = done.Load(), time.Since(began)
	return a, errors.Join(failures...)
}

// collect collects the garbage, and returns how long that took and for how long everything stood still.
func collect() (took, pause time.Duration) {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	before := m.NumGC
	began := time.Now()
	runtime.GC()
	took = time.Since(began)
	runtime.ReadMemStats(&m)
	for n := before + 1; n <= m.NumGC; n++ {
		pause = max(pause, time.Duration(m.PauseNs[(n+255)%256])) //nolint:gosec // not negative
	}
	return took, pause
}
