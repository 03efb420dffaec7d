package server

import "sync"

// crew handles what connections have read. A connection's own goroutine only reads, for the sake of memory:
// waiting for a client takes a kilobyte of stack, handling a message takes several, and a stack that has
// grown hardly ever shrinks. So an idle connection keeps the smallest stack there is, and the large ones are
// those of the crew, of which there are as many as messages are being handled.
type crew struct {
	mu     sync.Mutex // protects what follows; nothing else is locked under it
	idle   []*hand
	closed bool
	// running waits for the goroutines.
	running sync.WaitGroup
}

// spareHands is how many goroutines are kept for the next messages.
const spareHands = 64

// hand is one goroutine of the crew. Its job belongs to whoever has taken it, until do and after.
type hand struct {
	job  job
	wake chan struct{} // closed when the hand is to end
	done chan struct{}
}

// job is the handling of what a client has sent.
type job struct {
	client  *Client
	handle  func(*Client, Incoming)
	message Incoming
}

// do has a job handled and returns when that is done. A panic ends the job's connection.
func (k *crew) do(c *Client, handle func(*Client, Incoming), m Incoming) {
	h := k.take()
	h.job.client, h.job.handle, h.job.message = c, handle, m
	h.wake <- struct{}{}
	<-h.done
	k.release(h)
}

func (k *crew) take() *hand {
	k.mu.Lock()
	last := len(k.idle) - 1
	if last < 0 {
		k.mu.Unlock()
		return k.hire()
	}
	h := k.idle[last]
	k.idle = k.idle[:last]
	k.mu.Unlock()
	return h
}

func (k *crew) hire() *hand {
	h := &hand{wake: make(chan struct{}), done: make(chan struct{})}
	k.running.Go(h.work)
	return h
}

func (k *crew) release(h *hand) {
	h.job = job{} // lets the client be collected
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed || len(k.idle) >= spareHands {
		close(h.wake)
		return
	}
	k.idle = append(k.idle, h)
}

func (h *hand) work() {
	for range h.wake {
		h.job.run()
		h.done <- struct{}{}
	}
}

func (j *job) run() {
	defer func() {
		if recover() != nil {
			j.client.panicked()
		}
	}()
	j.handle(j.client, j.message)
}

// close ends the goroutines. No connection may be left that could have something to do for them.
func (k *crew) close() {
	k.mu.Lock()
	for _, h := range k.idle {
		close(h.wake)
	}
	k.idle, k.closed = nil, true
	k.mu.Unlock()
	k.running.Wait()
}
