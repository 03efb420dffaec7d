package server

import (
	"sync"

	"github.com/lxzan/gws"
)

// readerPool runs the goroutines that read from clients and handle their messages. A client is queued when its socket
// is readable and leaves its reader when it has no more input, so an idle connection holds neither a stack nor a
// parser, and there are about as many readers as messages are being handled.
type readerPool struct {
	upgrader *gws.Upgrader

	mu    sync.Mutex // protects the fields below; readers are notified under it, which does not block
	queue []*Client  // clients whose sockets are readable, oldest first
	idle  []*reader
	// notifyPending is true while a notified reader has not checked the queue. One at a time is enough, because it
	// notifies the next one before it handles a message: few readers run while handling is fast, and as many as needed
	// where it blocks.
	notifyPending bool
	closed        bool
	// running waits for the goroutines to end.
	running sync.WaitGroup
}

// maxIdleReaders is how many idle goroutines are kept.
const maxIdleReaders = 64

// enqueue queues a client to be read from until it has no more input. It does not block.
func (k *readerPool) enqueue(c *Client) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.queue = append(k.queue, c)
	k.notifyLocked()
}

// startDedicated starts a reader for a client, which parses the bytes in early first. It does not block.
func (k *readerPool) startDedicated(c *Client, early []byte) {
	r := newReader(k)
	r.conn.client, r.unparsed = c, early
	k.running.Go(r.run)
}

// notifyLocked notifies an idle reader, or starts one, if a client is queued; k.mu is held.
func (k *readerPool) notifyLocked() {
	if k.notifyPending || len(k.queue) == 0 {
		return
	}
	k.notifyPending = true
	if last := len(k.idle) - 1; last >= 0 {
		r := k.idle[last]
		k.idle = k.idle[:last]
		r.notify <- struct{}{} // buffered
		return
	}
	r := newReader(k)
	r.notified = true
	k.running.Go(r.run)
}

// next returns the client that was queued first. It blocks until there is one, and returns nil if the reader must end.
func (k *readerPool) next(r *reader) *Client {
	k.mu.Lock()
	defer k.mu.Unlock()
	for {
		if r.notified {
			r.notified, k.notifyPending = false, false
		}
		if len(k.queue) > 0 {
			c := k.queue[0]
			k.queue[0] = nil // for the garbage collector
			k.queue = k.queue[1:]
			k.notifyLocked()
			return c
		}
		if k.closed || len(k.idle) >= maxIdleReaders {
			return nil
		}
		k.idle = append(k.idle, r)
		k.mu.Unlock()
		<-r.notify
		k.mu.Lock()
		r.notified = true
	}
}

// close ends the goroutines and waits for them. All connections must have ended.
func (k *readerPool) close() {
	k.mu.Lock()
	for _, r := range k.idle {
		r.notify <- struct{}{}
	}
	k.idle, k.closed = nil, true
	k.mu.Unlock()
	k.running.Wait()
}
