// Package workqueue provides a deduplicating, delayed work queue that a bounded number of goroutines processes in
// batches. A key that is added twice before it is due is processed once, so the queue never holds more entries than
// there are distinct keys.
package workqueue

import (
	"context"
	"hash/maphash"
	"sync"
	"time"
)

// Config configures a Queue.
type Config struct {
	// Workers is the number of goroutines, and so of concurrent calls of Do.
	Workers int
	// Batch is the maximum number of keys in one call of Do.
	Batch int
	// Do processes due keys. A key always goes to the same worker, so Do may keep state per worker without a lock. It
	// returns the keys to retry, after a pause that doubles from MinPause to MaxPause while retries continue.
	Do func(ctx context.Context, worker int, keys []string) (again []string)
	// MinPause and MaxPause bound the pause before another attempt.
	MinPause, MaxPause time.Duration
}

// Queue is a running work queue. It is safe for concurrent use; only Close blocks.
type Queue struct {
	cfg     Config
	workers []*worker
	seed    maphash.Seed
	cancel  context.CancelFunc
	running sync.WaitGroup
}

// New returns a queue whose goroutines run until Close.
func New(cfg Config) *Queue {
	l := &Queue{cfg: cfg, seed: maphash.MakeSeed()}
	ctx, cancel := context.WithCancel(context.Background())
	l.cancel = cancel
	for i := range cfg.Workers {
		w := &worker{
			due: make(map[string]state), working: make(map[string]state),
			wake: make(chan struct{}, 1), pause: cfg.MinPause,
		}
		l.workers = append(l.workers, w)
		l.running.Go(func() { l.work(ctx, i, w) })
	}
	return l
}

// Add enqueues a key that is due at once.
func (l *Queue) Add(key string) { l.AddAfter(key, 0) }

// AddAfter enqueues a key that is due after a delay. A key that is already due earlier keeps that time.
func (l *Queue) AddAfter(key string, after time.Duration) {
	l.worker(key).add(key, time.Now().Add(after), false)
}

// AddFirst enqueues a key that is due at once, ahead of all keys that were added otherwise. It stays ahead until Do has
// succeeded.
func (l *Queue) AddFirst(key string) { l.worker(key).add(key, time.Now(), true) }

func (l *Queue) worker(key string) *worker {
	return l.workers[maphash.String(l.seed, key)%uint64(len(l.workers))]
}

// Backlog returns the number of keys that have been due for longer than a time: untried ones that Do has not been
// called with, and failing ones that it returned each time or has not finished. A call that hangs is no progress.
func (l *Queue) Backlog(age time.Duration) (untried, failing int) {
	before := time.Now().Add(-age)
	for _, w := range l.workers {
		u, f := w.backlog(before)
		untried, failing = untried+u, failing+f
	}
	return untried, failing
}

// Len returns the number of keys in the queue, due or not, and of those that Do is processing.
func (l *Queue) Len() (n int) {
	for _, w := range l.workers {
		n += w.len()
	}
	return n
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
			l.process(ctx, index, w, keys)
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

// process calls Do and requeues the keys that it returns.
func (l *Queue) process(ctx context.Context, index int, w *worker, keys []string) {
	again := l.cfg.Do(ctx, index, keys)
	w.requeue(again, time.Now().Add(w.pause))
	if len(again) == 0 {
		w.pause = l.cfg.MinPause
		return
	}
	w.pause = min(2*w.pause, l.cfg.MaxPause)
}
