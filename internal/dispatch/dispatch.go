// Package dispatch decouples producers that must not block from slow consumers by a few bounded, ordered queues. A
// message that does not fit is dropped and its channel is reported afterwards, so that the caller can resynchronize the
// channel.
package dispatch

import (
	"hash/maphash"
	"sync"
)

// Config configures a Queue.
type Config[M any] struct {
	// Lanes is the number of queues, each with a goroutine of its own. Messages of one channel share one.
	Lanes int
	// Messages and Bytes bound one queue.
	Messages, Bytes int
	// Channel returns the channel of a message, Size the bytes that the message adds to its queue.
	Channel func(M) string
	Size    func(M) int
	// Handle processes a message. Messages of one channel are handled sequentially and in order.
	Handle func(M)
	// Lost reports that messages of a channel were dropped, after the earlier messages of the channel were handled. ""
	// stands for all channels.
	Lost func(channel string)
}

// Queue delivers messages from producers to Handle. It is safe for concurrent use; only Close blocks.
type Queue[M any] struct {
	cfg     Config[M]
	lanes   []*lane[M]
	seed    maphash.Seed
	running sync.WaitGroup
}

// New returns a queue whose goroutines run until Close.
func New[M any](cfg Config[M]) *Queue[M] {
	k := &Queue[M]{cfg: cfg, seed: maphash.MakeSeed()}
	for range cfg.Lanes {
		l := new(lane[M])
		l.filled.L = &l.mu
		k.lanes = append(k.lanes, l)
		k.running.Go(func() { k.work(l) })
	}
	return k
}

// Put enqueues a message, or drops it if its lane is full.
func (k *Queue[M]) Put(m M) {
	channel := k.cfg.Channel(m)
	l := k.lanes[maphash.String(k.seed, channel)%uint64(len(k.lanes))]
	l.put(m, channel, k.cfg.Size(m), k.cfg.Messages, k.cfg.Bytes)
}

// Len returns the number of messages that have not been dequeued.
func (k *Queue[M]) Len() (n int) {
	for _, l := range k.lanes {
		l.mu.Lock()
		n += len(l.queue)
		l.mu.Unlock()
	}
	return n
}

// Close handles all queued messages and stops the goroutines.
func (k *Queue[M]) Close() {
	for _, l := range k.lanes {
		l.close()
	}
	k.running.Wait()
}

func (k *Queue[M]) work(l *lane[M]) {
	for {
		messages, lost, ok := l.take()
		if !ok {
			return
		}
		for i, m := range messages {
			k.cfg.Handle(m)
			var none M
			messages[i] = none // the slice is used again
		}
		for _, channel := range lost {
			k.cfg.Lost(channel)
		}
	}
}

// maxLost is the number of channels with losses that a lane records before it reports a loss of all channels.
const maxLost = 1024

// lane is one queue.
type lane[M any] struct {
	mu     sync.Mutex // mu protects the fields below
	filled sync.Cond
	queue  []M
	bytes  int
	lost   map[string]struct{}
	closed bool
	// spare is the slice that was handled last, reused for the next messages.
	spare []M
}

func (l *lane[M]) put(m M, channel string, size, maxMessages, maxBytes int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	if len(l.queue) >= maxMessages || l.bytes+size > maxBytes {
		l.lose(channel)
	} else {
		l.queue = append(l.queue, m)
		l.bytes += size
	}
	l.filled.Signal()
}

func (l *lane[M]) lose(channel string) {
	if l.lost == nil {
		l.lost = make(map[string]struct{})
	}
	if len(l.lost) >= maxLost {
		clear(l.lost)
		channel = ""
	}
	if _, all := l.lost[""]; !all {
		l.lost[channel] = struct{}{}
	}
}

// take blocks until there are messages or losses and dequeues all of them: the messages, and the channels of dropped
// messages. It returns false once the lane is closed and empty.
func (l *lane[M]) take() (messages []M, lost []string, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.queue) == 0 && len(l.lost) == 0 {
		if l.closed {
			return nil, nil, false
		}
		l.filled.Wait()
	}
	messages, l.queue, l.spare = l.queue, l.spare[:0], l.queue
	l.bytes = 0
	for channel := range l.lost {
		lost = append(lost, channel)
	}
	l.lost = nil
	return messages, lost, true
}

func (l *lane[M]) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.filled.Signal()
}
