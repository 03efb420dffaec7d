package workqueue

import (
	"container/heap"
	"sync"
	"time"
)

// worker holds the keys of one goroutine.
type worker struct {
	mu sync.Mutex // mu protects the fields below
	// due maps each key to its due time. The queue may hold a key more than once; only the entry with that
	// time counts.
	due   map[string]time.Time
	queue queue

	wake  chan struct{}
	pause time.Duration // the goroutine's own
}

func (w *worker) add(key string, due time.Time) {
	w.mu.Lock()
	if before, ok := w.due[key]; ok && !due.Before(before) {
		w.mu.Unlock()
		return
	}
	w.due[key] = due
	heap.Push(&w.queue, entry{key, due})
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// never is the timeout of a worker without keys.
const never = time.Hour

// take removes up to most due keys and returns the time until the next key is due.
func (w *worker) take(now time.Time, most int) (keys []string, wait time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.queue) > 0 && len(keys) < most {
		next := w.queue[0]
		if next.due.After(now) {
			return keys, next.due.Sub(now)
		}
		heap.Pop(&w.queue)
		if w.due[next.key].Equal(next.due) {
			delete(w.due, next.key)
			keys = append(keys, next.key)
		}
	}
	return keys, never
}

// queue is a heap of keys, ordered by due time.
type queue []entry

type entry struct {
	key string
	due time.Time
}

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].due.Before(q[j].due) }
func (q queue) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }

// Push is heap.Interface's.
func (q *queue) Push(x any) { *q = append(*q, x.(entry)) } //nolint:forcetypeassert // nothing else is pushed

// Pop is heap.Interface's.
func (q *queue) Pop() any {
	last := len(*q) - 1
	x := (*q)[last]
	(*q)[last] = entry{} // lets the key be collected
	*q = (*q)[:last]
	return x
}
