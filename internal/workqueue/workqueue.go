// Package worklist holds keys that somebody has to look at, now or later, for a bounded number of goroutines
// that do so in batches. A key that is added twice before its turn is looked at once, so the list never holds
// more than there are keys.
package workqueue

import (
	"context"
	"hash/maphash"
	"sync"
	"time"
)

// Config configures a List.
type Config struct {
	// Workers is how many goroutines work, and so how many calls of Do there are at a time. A key always
	// comes to the same one.
	Workers int
	// Batch is how many keys one call of Do gets at most.
	Batch int
	// Do looks at keys that have come to a worker, of whom it may keep notes without a lock. It returns those
	// to be looked at again: after a pause that grows from MinPause to MaxPause as long as there are any.
	Do func(ctx context.Context, worker int, keys []string) (again []string)
	// MinPause and MaxPause bound the pause before another attempt.
	MinPause, MaxPause time.Duration
}

// List is a list at work. All methods may be called from any number of goroutines; only Close blocks.
type Queue struct {
	cfg     Config
	workers []*worker
	seed    maphash.Seed
	cancel  context.CancelFunc
	running sync.WaitGroup
}

// New returns a list whose goroutines work until Close.
func New(cfg Config) *Queue {
	l := &Queue{cfg: cfg, seed: maphash.MakeSeed()}
	ctx, cancel := context.WithCancel(context.Background())
	l.cancel = cancel
	for i := range cfg.Workers {
		w := &worker{due: make(map[string]time.Time), wake: make(chan struct{}, 1), pause: cfg.MinPause}
		l.workers = append(l.workers, w)
		l.running.Go(func() { l.work(ctx, i, w) })
	}
	return l
}

// Add has a key looked at, as soon as a worker gets to it.
func (l *Queue) Add(key string) { l.AddAfter(key, 0) }

// AddAfter has a key looked at after a time, or earlier if it is already to be looked at earlier.
func (l *Queue) AddAfter(key string, after time.Duration) {
	w := l.workers[maphash.String(l.seed, key)%uint64(len(l.workers))]
	w.add(key, time.Now().Add(after))
}

// Close ends the goroutines, and waits for the calls of Do, whose context ends. Keys that are left are
// forgotten.
func (l *Queue) Close() {
	l.cancel()
	l.running.Wait()
}

func (l *Queue) work(ctx context.Context, index int, w *worker) {
	timer := time.NewTimer(never)
	defer timer.Stop()
	for ctx.Err() == nil {
		keys, wait := w.take(time.Now(), l.cfg.Batch)
		if len(keys) > 0 {
			l.look(ctx, index, w, keys)
			continue
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
		case <-timer.C:
		}
	}
}

// look calls Do, and puts back what is to be looked at again.
func (l *Queue) look(ctx context.Context, index int, w *worker, keys []string) {
	again := l.cfg.Do(ctx, index, keys)
	if len(again) == 0 {
		w.pause = l.cfg.MinPause
		return
	}
	due := time.Now().Add(w.pause)
	for _, key := range again {
		w.add(key, due)
	}
	w.pause = min(2*w.pause, l.cfg.MaxPause)
}
