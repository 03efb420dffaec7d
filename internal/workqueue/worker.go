package workqueue

import (
	"container/heap"
	"sync"
	"time"
)

// worker holds the keys of one goroutine.
type worker struct {
	mu sync.Mutex // mu protects the fields below
	// due maps each key to its state. A queue may hold a key more than once; only the entry with the time and the
	// priority of the state counts.
	due map[string]state
	// working holds the keys that Do is processing.
	working       map[string]state
	first, others queue

	wake  chan struct{}
	pause time.Duration // the goroutine's own
}

// state holds the due time, the age and the priority of a key.
type state struct {
	due time.Time
	// since is when the key was due before Do has first failed for it.
	since time.Time
	// first keys precede others; failed ones were returned by Do.
	first, failed bool
}

func (w *worker) add(key string, due time.Time, first bool) {
	w.mu.Lock()
	w.addLocked(key, state{due: due, since: due, first: first})
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *worker) addLocked(key string, s state) {
	if before, ok := w.due[key]; ok {
		s.failed = s.failed || before.failed
		if before.since.Before(s.since) {
			s.since = before.since
		}
		if !s.due.Before(before.due) && (before.first || !s.first) {
			before.since, before.failed = s.since, s.failed
			w.due[key] = before
			return
		}
		s.first = s.first || before.first
	}
	w.due[key] = s
	if s.first {
		heap.Push(&w.first, entry{key, s.due})
	} else {
		heap.Push(&w.others, entry{key, s.due})
	}
}

// requeue ends the processing of the keys that take returned: it enqueues the failed ones for another attempt.
func (w *worker) requeue(failed []string, due time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, key := range failed {
		s := w.working[key]
		s.due, s.failed = due, true
		w.addLocked(key, s)
	}
	clear(w.working)
}

// never is the timeout of a worker without keys.
const never = time.Hour

// take removes up to most due keys and returns the time until the next key is due.
func (w *worker) take(now time.Time, most int) (keys []string, wait time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	keys, wait = w.takeLocked(&w.first, true, nil, now, most)
	keys, other := w.takeLocked(&w.others, false, keys, now, most)
	return keys, min(wait, other)
}

// takeLocked adds the due keys of one queue to keys.
func (w *worker) takeLocked(
	from *queue, first bool, keys []string, now time.Time, most int,
) (_ []string, wait time.Duration) {
	for len(*from) > 0 && len(keys) < most {
		next := (*from)[0]
		if next.due.After(now) {
			return keys, next.due.Sub(now)
		}
		heap.Pop(from)
		if s, ok := w.due[next.key]; ok && s.first == first && s.due.Equal(next.due) {
			delete(w.due, next.key)
			w.working[next.key] = s
			keys = append(keys, next.key)
		}
	}
	return keys, never
}

// backlog counts the keys that have been due since before a time.
func (w *worker) backlog(before time.Time) (untried, failing int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.working {
		if !s.since.After(before) {
			failing++
		}
	}
	for key, s := range w.due {
		_, counted := w.working[key] // since earlier
		switch {
		case counted || s.since.After(before):
		case s.failed:
			failing++
		default:
			untried++
		}
	}
	return untried, failing
}

// len returns the number of keys.
func (w *worker) len() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := len(w.due)
	for key := range w.working {
		if _, again := w.due[key]; !again {
			n++
		}
	}
	return n
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
func (q *queue) Push(x any) { *q = append(*q, x.(entry)) } // nothing else is pushed

// Pop is heap.Interface's.
func (q *queue) Pop() any {
	last := len(*q) - 1
	x := (*q)[last]
	(*q)[last] = entry{} // lets the key be collected
	*q = (*q)[:last]
	return x
}
