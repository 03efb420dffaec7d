package outbox

import (
	"runtime"
	"sync"
	"syscall"
)

// maxTurn is the number of batches after which a writer turns to the other connections on its list.
const maxTurn = 16

// A writer is one goroutine that writes to the connections on its list without ever waiting for one. Its
// methods add, link and unlink may be called from any number of goroutines.
type writer struct {
	count counters

	// mu protects the list and the links of the open outboxes. Nothing may be locked under it.
	mu     sync.Mutex
	wake   *sync.Cond
	list   []*Outbox
	open   *Outbox // the first of the open outboxes
	closed bool    // there are no more outboxes
	ending bool

	_ [cacheLine]byte // senders use what stands above

	// What follows belongs to the goroutine. try is the method attempt as a value: to make that for each
	// write would allocate. taken and err are what attempt returns.
	batch batch
	try   func(fd uintptr)
	taken int
	err   error
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
	w.list = append(w.list, o)
	first := len(w.list) == 1
	w.mu.Unlock()
	if first {
		w.wake.Signal()
	}
}

func (w *writer) stop() {
	w.mu.Lock()
	w.ending = true
	w.mu.Unlock()
	w.wake.Signal()
}

// run serves the list until the writer is told to end and the list is empty.
func (w *writer) run() {
	var list []*Outbox
	for {
		w.mu.Lock()
		for len(w.list) == 0 && !w.ending {
			w.wake.Wait()
		}
		list, w.list = w.list, list[:0]
		w.mu.Unlock()
		if len(list) == 0 {
			return
		}
		w.serveAll(list)
		clear(list) // lets closed outboxes be collected
	}
}

// serveAll serves a list. During a long one it gives way to other goroutines now and then: a publisher that
// is in the middle of a burst gets on with it, and the connections further down the list then have more
// waiting for the one system call.
func (w *writer) serveAll(list []*Outbox) {
	const long, turn = 64, 8
	for i, o := range list {
		if len(list) > long && i%turn == 0 {
			runtime.Gosched()
		}
		w.serve(o)
	}
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
	w.taken, w.err = 0, nil
	if err := raw.Control(w.try); err != nil {
		return 0, err
	}
	return w.taken, w.err
}

func (w *writer) attempt(fd uintptr) { w.taken, w.err = tryWrite(fd, w.batch.buf) }

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
