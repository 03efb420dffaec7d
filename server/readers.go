package server

import (
	"sync"

	"github.com/lxzan/gws"
)

// readers are the goroutines that read from clients and handle what they read. A client that is silent has
// none: it is handed to a reader when something has come from it. So an idle connection takes neither a stack
// nor a parser, and there are about as many readers as messages are being handled.
type readers struct {
	upgrader *gws.Upgrader

	mu    sync.Mutex // protects what follows; under it readers are woken, which does not block
	queue []*Client  // those from which something has come
	idle  []*reader
	// waking: a reader has been told of the queue and not yet looked at it. One at a time is enough, since it
	// wakes the next before it handles anything: few are awake while handling is quick, and as many as it takes
	// where it blocks.
	waking bool
	closed bool
	// running waits for the goroutines.
	running sync.WaitGroup
}

// spareReaders is how many goroutines are kept for the next clients.
const spareReaders = 64

// serve has a client read from until it is silent again. It does not block.
func (k *readers) serve(c *Client) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.queue = append(k.queue, c)
	k.wakeLocked()
}

// hire gives a client a reader that begins with what was read already. It does not block.
func (k *readers) hire(c *Client, early []byte) {
	r := newReader(k)
	r.wire.client, r.rest = c, early
	k.running.Go(r.run)
}

// wakeLocked wakes a reader if there is anything to do for it.
func (k *readers) wakeLocked() {
	if k.waking || len(k.queue) == 0 {
		return
	}
	k.waking = true
	if last := len(k.idle) - 1; last >= 0 {
		r := k.idle[last]
		k.idle = k.idle[:last]
		r.wake <- struct{}{} // there is room for it
		return
	}
	r := newReader(k)
	r.woken = true
	k.running.Go(r.run)
}

// next returns the client that has waited longest. It blocks until there is one, and returns nil if the reader
// is to end.
func (k *readers) next(r *reader) *Client {
	k.mu.Lock()
	defer k.mu.Unlock()
	for {
		if r.woken {
			r.woken, k.waking = false, false
		}
		if len(k.queue) > 0 {
			c := k.queue[0]
			k.queue[0] = nil // lets the client be collected
			k.queue = k.queue[1:]
			k.wakeLocked()
			return c
		}
		if k.closed || len(k.idle) >= spareReaders {
			return nil
		}
		k.idle = append(k.idle, r)
		k.mu.Unlock()
		<-r.wake
		k.mu.Lock()
		r.woken = true
	}
}

// close ends the goroutines. No connection may be left that could have something to do for them.
func (k *readers) close() {
	k.mu.Lock()
	for _, r := range k.idle {
		r.wake <- struct{}{}
	}
	k.idle, k.closed = nil, true
	k.mu.Unlock()
	k.running.Wait()
}
