package nodes

import (
	"context"
	"errors"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-go/shoal/manager"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/message"
)

// publishing counts the messages that a node has published. Publishers keep their numbers from one request to the next.
type publishing struct {
	manager *manager.Manager
	counts  map[int][]uint64 // of each publisher, by upload
}

func newPublishing(m *manager.Manager) *publishing {
	return &publishing{m, map[int][]uint64{}}
}

// probe publishes a message that nobody counts as soon as that is possible.
func (p *publishing) probe(ctx context.Context) error {
	return retryUnavailable(ctx, func() error {
		return p.publish(ctx, message.Message{Channel: message.Channel(0), Size: message.MinSize})
	})
}

// publish does all that an application's message takes, from its JSON on.
func (p *publishing) publish(ctx context.Context, m message.Message) error {
	e, err := manager.Parse(m.Channel, m.AppendEvent(make([]byte, 0, m.Size)), time.Now())
	if err != nil {
		return err
	}
	_, err = p.manager.Publish(ctx, m.Channel, e)
	return err
}

// publisher is one that publishes. It waits for each message before it publishes the next, so that the order of its
// messages to an upload is certain. It is used from one goroutine.
type publisher struct {
	*publishing
	number int
	next   int      // upload
	counts []uint64 // by upload
	bytes  int
}

// publishers returns the publishers of a request. Each begins with another upload.
func (p *publishing) publishers(q Request) []*publisher {
	all := make([]*publisher, q.Publishers)
	for i := range all {
		if len(p.counts[i]) < q.Uploads {
			p.counts[i] = append(p.counts[i], make([]uint64, q.Uploads-len(p.counts[i]))...)
		}
		all[i] = &publisher{p, i, i * q.Uploads / q.Publishers, p.counts[i][:q.Uploads], q.Bytes}
	}
	return all
}

// one publishes a message that was to be sent at some time.
func (p *publisher) one(ctx context.Context, planned time.Time) error {
	upload := p.next
	p.next = (p.next + 1) % len(p.counts)
	p.counts[upload]++
	return p.publish(ctx, message.Message{
		Channel: message.Channel(upload), Sent: planned.UnixNano(),
		Number: p.counts[upload]*MaxPublishers + uint64(p.number), Size: p.bytes, //nolint:gosec // not negative
	})
}

// publishAll has all publishers publish at once, for a while.
func (p *publishing) publishAll(ctx context.Context, q Request) (Answer, error) {
	began := time.Now()
	end := began.Add(q.For)
	published, err := each(p.publishers(q), func(one *publisher) (n uint64, err error) {
		for now := time.Now(); now.Before(end); now = time.Now() {
			if err := one.one(ctx, now); err != nil {
				return n, err
			}
			n++
		}
		return n, nil
	})
	return Answer{Began: began.UnixNano(), Published: published}, err
}

// schedule publishes at a fixed rate. The publishers take messages up in turn, so that one that takes long does not
// hold up the next.
func (p *publishing) schedule(ctx context.Context, q Request) (Answer, error) {
	const lead = 10 * time.Millisecond // so that the first is on time
	start := time.Now().Add(lead)
	plan := make(chan time.Time, max(int(q.Rate*q.For.Seconds()), 1))
	late := make(chan time.Duration, 1)
	go func() { late <- tick(plan, start, q.Rate) }()
	published, err := each(p.publishers(q), func(one *publisher) (n uint64, err error) {
		for planned := range plan {
			if err == nil {
				err = one.one(ctx, planned)
				n++
			}
		}
		return n, err
	})
	return Answer{Began: start.UnixNano(), Published: published, Late: int64(<-late)}, err
}

// tick fills a plan with times, each when it has come, and closes it. It returns by how much it was late at most. It
// sleeps by itself: the runtime's timers are too coarse for less than a millisecond.
func tick(plan chan<- time.Time, start time.Time, rate float64) (late time.Duration) {
	defer close(plan)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for i := range cap(plan) {
		planned := start.Add(time.Duration(math.Round(float64(i) / rate * float64(time.Second))))
		for left := time.Until(planned); left > 0; left = time.Until(planned) {
			pause := unix.NsecToTimespec(int64(left))
			_ = unix.Nanosleep(&pause, nil) // a signal ends it early
		}
		late = max(late, time.Since(planned))
		plan <- planned
	}
	return late
}

// each runs something for all publishers at once, and returns the sum.
func each(all []*publisher, run func(*publisher) (uint64, error)) (uint64, error) {
	var sum atomic.Uint64
	var running sync.WaitGroup
	failures := make([]error, len(all))
	for i, one := range all {
		running.Go(func() {
			n, err := run(one)
			sum.Add(n)
			failures[i] = err
		})
	}
	running.Wait()
	return sum.Load(), errors.Join(failures...)
}
