package recovery

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoal-go/shoal/manager"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/message"
)

// publisher publishes numbered messages on the node that keeps its broker.
type publisher struct {
	manager *manager.Manager
	bytes   int
	numbers []atomic.Uint64 // of the newest message, by upload
}

// publish publishes the next message of an upload. One goroutine at a time may publish to an upload.
func (p *publisher) publish(ctx context.Context, upload int, planned time.Time) error {
	channel := message.Channel(upload)
	number := p.numbers[upload].Load() + 1
	body := message.Message{Channel: channel, Sent: planned.UnixNano(), Number: number, Size: p.bytes}
	e, err := manager.Parse(channel, body.AppendEvent(make([]byte, 0, p.bytes)), time.Now())
	if err != nil {
		return err
	}
	if _, err := p.manager.Publish(ctx, channel, e); err != nil {
		return fmt.Errorf("recovery: publishing: %w", err)
	}
	p.numbers[upload].Store(number)
	return nil
}

// each publishes to uploads, several at a time.
func (p *publisher) each(ctx context.Context, uploads func(yield func(int) bool)) error {
	const callers = 64
	next := make(chan int)
	failed := make(chan error, callers)
	for range callers {
		go func() {
			var err error
			for i := range next {
				if err == nil {
					err = p.publish(ctx, i, time.Now())
				}
			}
			failed <- err
		}()
	}
	for i := range uploads {
		next <- i
	}
	close(next)
	var err error
	for range callers {
		if e := <-failed; e != nil {
			err = e
		}
	}
	return err
}

// live publishes at a fixed rate to a few uploads in turn, until it is stopped. Messages have their planned time, so that
// a delay of the publisher counts. Each upload has a goroutine of its own.
type live struct {
	publisher *publisher
	uploads   []int
	// paused uploads are left out.
	paused  func(upload int) bool
	pausing atomic.Bool
	cancel  context.CancelFunc
	running sync.WaitGroup
	failure atomic.Pointer[error]
}

// goLive starts to publish rate messages per second.
func goLive(ctx context.Context, p *publisher, uploads []int, rate float64, paused func(int) bool) *live {
	ctx, cancel := context.WithCancel(ctx)
	l := &live{publisher: p, uploads: uploads, paused: paused, cancel: cancel}
	interval := time.Duration(float64(time.Second) * float64(len(uploads)) / rate)
	start := time.Now()
	for i, upload := range uploads {
		first := start.Add(interval * time.Duration(i) / time.Duration(len(uploads)))
		l.running.Go(func() {
			for planned := first; ; planned = planned.Add(interval) {
				select {
				case <-time.After(time.Until(planned)):
				case <-ctx.Done():
					return
				}
				if l.pausing.Load() && l.paused(upload) {
					continue
				}
				if err := p.publish(context.WithoutCancel(ctx), upload, planned); err != nil {
					l.failure.Store(&err)
					return
				}
			}
		})
	}
	return l
}

// stop ends it and returns its first error.
func (l *live) stop() error {
	l.cancel()
	l.running.Wait()
	if err := l.failure.Load(); err != nil {
		return *err
	}
	return nil
}
