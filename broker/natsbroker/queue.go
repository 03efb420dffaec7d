package natsbroker

import (
	"sync/atomic"

	"github.com/nats-io/nats.go"
)

// queue holds the messages that have arrived until they are delivered, bounded in number and in bytes: other programs
// may publish messages as large as the server accepts. One goroutine puts messages, another one takes them.
type queue struct {
	messages chan *nats.Msg
	// bytes are the bytes of the messages, at most limit, except that one message always fits.
	bytes atomic.Int64
	limit int64
}

func newQueue(messages, bytes int) *queue {
	return &queue{messages: make(chan *nats.Msg, messages), limit: int64(bytes)}
}

// put appends a message unless there is no room for it.
func (q *queue) put(m *nats.Msg) bool {
	size := int64(m.Size())
	if sum := q.bytes.Add(size); sum <= q.limit || sum == size {
		select {
		case q.messages <- m:
			return true
		default:
		}
	}
	q.bytes.Add(-size)
	return false
}

// taken makes room again after a message was received from messages.
func (q *queue) taken(m *nats.Msg) { q.bytes.Add(-int64(m.Size())) }

// maxArrivals bounds the messages between the connection and queue, which enqueue moves on without waiting.
const maxArrivals = 1024

// enqueue moves arriving messages into the queue, or drops them, until stop is closed.
func (s *session) enqueue() {
	for {
		select {
		case m := <-s.arrivals:
			if !s.queue.put(m) {
				s.subscriptions.addDropped(m.Subject)
				s.overflows.Add(1)
			}
		case <-s.stop:
			return
		}
	}
}
