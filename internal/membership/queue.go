package membership

import (
	"context"
	"sync/atomic"
	"time"
)

// job is a command or a question of another node, and when it arrived.
type job struct {
	header
	body []byte
	at   time.Time
}

// queue holds jobs for its workers, bounded in number and in bytes. Any number of goroutines may use it.
type queue struct {
	jobs  chan *job
	bytes atomic.Int64
}

func newQueue() *queue { return &queue{jobs: make(chan *job, waitingMessages)} }

// push adds a job, and reports false if it is too much. It does not block.
func (q *queue) push(h header, body []byte) bool {
	size := int64(len(body))
	if q.bytes.Add(size) <= waitingBytes {
		select {
		case q.jobs <- &job{h, body, time.Now()}:
			return true
		default:
		}
	}
	q.bytes.Add(-size)
	return false
}

// each hands jobs to do, one after the other, until ctx ends.
func (q *queue) each(ctx context.Context, do func(context.Context, job)) {
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case j := <-q.jobs:
			q.bytes.Add(-int64(len(j.body)))
			do(ctx, *j)
		}
	}
}
