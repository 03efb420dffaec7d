package outbox

import (
	"runtime"
	"sync"
)

const (
	// maxBatchesPerTurn is the number of batches after which a writer serves the next connection on its ready list.
	maxBatchesPerTurn = 16
	// dequeueBatch is the number of connections that a writer removes from a ready list at a time.
	dequeueBatch = 8
	// longBusyPeriod is the number of connections served without a pause from which on a writer yields to other
	// goroutines and steals from other writers.
	longBusyPeriod = 64
	// sampleInterval is the number of batches of which one is passed to Options.Written.
	sampleInterval = 32
)

// writer is one goroutine that writes to the connections on its ready list and never blocks for one of them. The
// methods enqueue, link and unlink may be called from any number of goroutines.
type writer struct {
	count counters
	// siblings are all writers of the pool.
	siblings []*writer

	// mu protects the ready list and the links of the open outboxes. No other lock may be acquired while it is
	// held.
	mu     sync.Mutex
	wake   *sync.Cond
	ready  []*Outbox
	head   int     // index of the first outbox in ready; those before it have been dequeued
	open   *Outbox // first of the open outboxes
	closed bool    // no outbox is opened any more
	ending bool

	_ [cacheLine]byte // callers of Send write to the fields above

	// socket belongs to the writer's goroutine.
	socket *socketWriter
}

func newWriter() *writer {
	w := &writer{socket: newSocketWriter()}
	w.socket.count = &w.count
	w.wake = sync.NewCond(&w.mu)
	return w
}

// enqueue appends an outbox to the ready list. The writer is its owner from now on.
func (w *writer) enqueue(o *Outbox) {
	w.mu.Lock()
	if len(w.ready) == cap(w.ready) && 2*w.head > len(w.ready) {
		w.compact() // instead of growing
	}
	w.ready = append(w.ready, o)
	first := len(w.ready) == 1 // dequeue resets an empty list, so head is 0 here
	w.mu.Unlock()
	if first {
		w.wake.Signal()
	}
}

// compact moves the ready list to the beginning of its array.
func (w *writer) compact() {
	n := copy(w.ready, w.ready[w.head:])
	clear(w.ready[n:])
	w.ready, w.head = w.ready[:n], 0
}

func (w *writer) stop() {
	w.mu.Lock()
	w.ending = true
	w.mu.Unlock()
	w.wake.Signal()
}

// run serves the ready list until stop has been called and the list is empty.
//
// During a long busy period it yields now and then: a publisher in the middle of a burst can continue, and the
// connections further down the list then have more frames for one system call. At the end of such a period it steals
// from other writers, so that a message to many clients is not late at some of them because one writer had more work
// or less CPU time.
func (w *writer) run() {
	var outboxes [dequeueBatch]*Outbox
	for served := 0; ; {
		n, left := w.dequeue(outboxes[:])
		if n == 0 && served > longBusyPeriod {
			n = w.steal(outboxes[:])
		}
		if n == 0 {
			if !w.wait() {
				return
			}
			served = 0
			w.socket.sample = sampleInterval - 1
			continue
		}
		if served += n; served+left > longBusyPeriod {
			runtime.Gosched()
		}
		for _, o := range outboxes[:n] {
			if w.socket.serve(o, maxBatchesPerTurn) {
				w.enqueue(o)
			}
		}
		clear(outboxes[:n]) // releases closed outboxes to the garbage collector
	}
}

// wait blocks until the ready list is not empty, and returns false if it is empty and stop has been called.
func (w *writer) wait() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.ready) == 0 && !w.ending {
		w.wake.Wait()
	}
	return len(w.ready) > 0
}

// dequeue moves outboxes from the beginning of the ready list to dst, and returns their number and the number left.
func (w *writer) dequeue(dst []*Outbox) (n, left int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n = copy(dst, w.ready[w.head:])
	clear(w.ready[w.head : w.head+n])
	w.head += n
	left = len(w.ready) - w.head
	if left == 0 {
		w.ready, w.head = w.ready[:0], 0
	}
	return n, left
}

// steal moves outboxes from the end of another writer's ready list to dst: the other writer works at the beginning, and
// adjacent sockets would make the two contend for cache lines.
func (w *writer) steal(dst []*Outbox) int {
	for _, other := range w.siblings { // this writer's own list is empty
		if n := other.giveAway(dst); n > 0 {
			return n
		}
	}
	return 0
}

// giveAway moves outboxes from the end of the ready list to dst if the writer keeps at least as many.
func (w *writer) giveAway(dst []*Outbox) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	rest := len(w.ready) - len(dst)
	if rest-w.head < len(dst) {
		return 0
	}
	n := copy(dst, w.ready[rest:])
	clear(w.ready[rest:])
	w.ready = w.ready[:rest]
	return n
}

// link registers an outbox for Pool.Close. It returns false if the pool is closed.
func (w *writer) link(o *Outbox) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return false
	}
	o.linked, o.nextOpen = true, w.open
	if w.open != nil {
		w.open.prevOpen = o
	}
	w.open = o
	return true
}

// unlink reverts link. It has no effect on an outbox that is not linked.
func (w *writer) unlink(o *Outbox) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !o.linked {
		return
	}
	if o.prevOpen != nil {
		o.prevOpen.nextOpen = o.nextOpen
	} else {
		w.open = o.nextOpen
	}
	if o.nextOpen != nil {
		o.nextOpen.prevOpen = o.prevOpen
	}
	o.linked, o.prevOpen, o.nextOpen = false, nil, nil
}

// closeOpen makes link fail from now on and returns the open outboxes.
func (w *writer) closeOpen() []*Outbox {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	var open []*Outbox
	for o := w.open; o != nil; o = o.nextOpen {
		open = append(open, o)
	}
	return open
}
