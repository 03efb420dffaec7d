package outbox

import (
	"runtime"
	"sync"
	"syscall"
)

const (
	// maxTurn is the number of batches after which a writer turns to the other connections on its list.
	maxTurn = 16
	// handful is how many connections a writer takes off a list at a time.
	handful = 8
	// longRun is the number of connections from which on a writer that serves them without a pause makes room for
	// others, and helps them.
	longRun = 64
)

// A writer is one goroutine that writes to the connections on its list without ever waiting for one. Its
// methods add, link and unlink may be called from any number of goroutines.
type writer struct {
	count counters
	// peers are all writers of the pool.
	peers []*writer

	// mu protects the list and the links of the open outboxes. Nothing may be locked under it.
	mu     sync.Mutex
	wake   *sync.Cond
	list   []*Outbox
	taken  int     // of the list: what stands before is no longer on it
	open   *Outbox // the first of the open outboxes
	closed bool    // there are no more outboxes
	ending bool

	_ [cacheLine]byte // senders use what stands above

	// What follows belongs to the goroutine. try is the method attempt as a value: to make that for each
	// write would allocate. accepted and err are what attempt returns.
	batch    batch
	try      func(fd uintptr)
	accepted int
	err      error
}

func newWriter() *writer {
	w := &writer{batch: batch{buf: make([]byte, 0, writerBatch)}}
	w.wake = sync.NewCond(&w.mu)
	w.try = w.attempt
	return w
}

// add puts an outbox, which the writer owns from now on, on the list.
func (w *writer) add(o *Outbox) {
	w.mu.Lock()
	if len(w.list) == cap(w.list) && 2*w.taken > len(w.list) {
		w.moveUp() // rather than grow
	}
	w.list = append(w.list, o)
	first := len(w.list) == 1 // if all had been taken, none would be counted as taken
	w.mu.Unlock()
	if first {
		w.wake.Signal()
	}
}

// moveUp makes room at the end of the list.
func (w *writer) moveUp() {
	n := copy(w.list, w.list[w.taken:])
	clear(w.list[n:])
	w.list, w.taken = w.list[:n], 0
}

func (w *writer) stop() {
	w.mu.Lock()
	w.ending = true
	w.mu.Unlock()
	w.wake.Signal()
}

// run serves the list until the writer is told to end and the list is empty.
//
// After a long run it gives way to other goroutines now and then: a publisher that is in the middle of a burst gets
// on with it, and the connections further down the list then have more waiting for the one system call. At the end
// of one it helps the other writers with theirs, so that a message to many is not late at the last of them because
// one writer had more to do, or less of a processor.
func (w *writer) run() {
	var hand [handful]*Outbox
	for served := 0; ; {
		n, left := w.takeFirst(hand[:])
		if n == 0 && served > longRun {
			n = w.takeFromOthers(hand[:])
		}
		if n == 0 {
			if !w.await() {
				return
			}
			served = 0
			continue
		}
		if served += n; served+left > longRun {
			runtime.Gosched()
		}
		for _, o := range hand[:n] {
			w.serve(o)
		}
		clear(hand[:n]) // lets closed outboxes be collected
	}
}

// await blocks until the list is not empty, and returns false if it is and the writer has been told to end.
func (w *writer) await() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.list) == 0 && !w.ending {
		w.wake.Wait()
	}
	return len(w.list) > 0
}

// takeFirst takes outboxes off the beginning of the list, and returns their number and how many are left.
func (w *writer) takeFirst(hand []*Outbox) (n, left int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n = copy(hand, w.list[w.taken:])
	clear(w.list[w.taken : w.taken+n])
	w.taken += n
	left = len(w.list) - w.taken
	if left == 0 {
		w.list, w.taken = w.list[:0], 0
	}
	return n, left
}

// takeFromOthers takes outboxes off the end of another writer's list, far from where that one is: what the kernel
// keeps of neighbours lies side by side.
func (w *writer) takeFromOthers(hand []*Outbox) int {
	for _, other := range w.peers { // this one's own is empty
		if n := other.takeLast(hand); n > 0 {
			return n
		}
	}
	return 0
}

// takeLast takes outboxes off the end of the list, if the writer has enough of them.
func (w *writer) takeLast(hand []*Outbox) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	rest := len(w.list) - len(hand)
	if rest-w.taken < len(hand) {
		return 0
	}
	n := copy(hand, w.list[rest:])
	clear(w.list[rest:])
	w.list = w.list[:rest]
	return n
}

// serve writes what waits in an outbox, and leaves it idle, to a goroutine of its own, or on the list again.
func (w *writer) serve(o *Outbox) {
	defer o.rescue()
	b := &w.batch
	b.reset() // a panic or a stall may have left it in use
	if o.raw == nil {
		o.handOver()
		return
	}
	for range maxTurn {
		if !o.next(b, writerBatch) {
			return
		}
		b.encode(o.variant)
		n, err := w.write(o.raw)
		if err != nil {
			o.Abort()
			continue
		}
		if n < len(b.buf) {
			o.stall(b, n)
			return
		}
		w.count.wrote(len(b.entries), n)
	}
	o.mu.Lock()
	o.settle(b)
	o.mu.Unlock()
	w.add(o)
}

// write hands the batch to the socket in one system call and returns how many bytes it took.
//
// Of the ways to a descriptor Control is the shortest that keeps the socket from being closed meanwhile: Write would
// prepare to wait, which touches memory that is in no cache, and exclude other writers, of whom there are none.
func (w *writer) write(raw syscall.RawConn) (int, error) {
	w.accepted, w.err = 0, nil
	if err := raw.Control(w.try); err != nil {
		return 0, err
	}
	return w.accepted, w.err
}

func (w *writer) attempt(fd uintptr) { w.accepted, w.err = tryWrite(fd, w.batch.buf) }

// link makes an outbox known to Pool.Close. It returns false if the pool is closed.
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

// unlink undoes link. It has no effect on an outbox that is not linked.
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

// closeOpen refuses further outboxes and returns those that are open.
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
