package nodes

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shoal-go/shoal/manager"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/message"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/worker"
)

// Probe publishes a message that is not counted as soon as that is possible.
func (n *Node) Probe(worker.None, *worker.None) error {
	return retryUnavailable(context.Background(), func() error {
		return Publish(context.Background(), n.from, message.Message{Channel: message.Channel(0), Size: message.MinSize})
	})
}

// Publish makes an event and publishes it as an application's JSON.
func Publish(ctx context.Context, m *manager.Manager, one message.Message) error {
	_, err := PublishJSON(ctx, m, one.Channel, one.AppendEvent(make([]byte, 0, one.Size)))
	return err
}

// PublishJSON does all that an application's message takes, from its JSON on.
func PublishJSON(ctx context.Context, m *manager.Manager, channel string, body []byte) (manager.Position, error) {
	e, err := manager.Parse(channel, body, time.Now())
	if err != nil {
		return manager.Position{}, err
	}
	return m.Publish(ctx, channel, e)
}

// publisher publishes on a node. It waits for each message before it publishes the next, so that the order of its
// messages to an upload is certain. It is used from one goroutine.
type publisher struct {
	manager *manager.Manager
	number  int
	next    int      // upload
	counts  []uint64 // by upload
	bytes   int
}

// publishers returns the publishers of a load, who keep their numbers from one load to the next. Each begins with another
// upload.
func (n *Node) publishers(q Load) []*publisher {
	all := make([]*publisher, q.Publishers)
	for i := range all {
		if len(n.counts[i]) < q.Channels {
			n.counts[i] = append(n.counts[i], make([]uint64, q.Channels-len(n.counts[i]))...)
		}
		all[i] = &publisher{n.from, i, i * q.Channels / q.Publishers, n.counts[i][:q.Channels], q.Bytes}
	}
	return all
}

// one publishes a message that was to be sent at some time.
func (p *publisher) one(ctx context.Context, planned time.Time) error {
	upload := p.next
	p.next = (p.next + 1) % len(p.counts)
	p.counts[upload]++
	return Publish(ctx, p.manager, message.Message{
		Channel: message.Channel(upload), Sent: planned.UnixNano(),
		Number: p.counts[upload]*MaxPublishers + uint64(p.number), Size: p.bytes, //nolint:gosec // not negative
	})
}

// Publish publishes messages.
func (n *Node) Publish(q Load, a *Published) (err error) {
	began := time.Now()
	a.Began = began.UnixNano()
	if q.Rate > 0 {
		return n.schedule(q, a)
	}
	a.Messages, err = each(n.publishers(q), func(one *publisher) (count uint64, err error) {
		for now := began; now.Sub(began) < q.For; now = time.Now() {
			if err := one.one(context.Background(), now); err != nil {
				return count, err
			}
			count++
		}
		return count, nil
	})
	return err
}

// schedule publishes at a fixed rate. The publishers receive planned times in turn, so that one that takes long does not
// delay the next.
func (n *Node) schedule(q Load, a *Published) (err error) {
	plan := make(chan time.Time, max(int(q.Rate*q.For.Seconds()), 1))
	var start time.Time
	var late time.Duration // valid once paced is done
	paced := make(chan error, 1)
	go func() {
		defer close(plan)
		var err error
		start, err = worker.Pace(q.Rate, cap(plan), func(_ int, planned time.Time) error {
			late = max(late, time.Since(planned))
			plan <- planned
			return nil
		})
		paced <- err
	}()
	a.Messages, err = each(n.publishers(q), func(one *publisher) (count uint64, err error) {
		for planned := range plan {
			if err == nil {
				err = one.one(context.Background(), planned)
				count++
			}
		}
		return count, err
	})
	err = errors.Join(err, <-paced)
	a.Began, a.Late = start.UnixNano(), int64(late)
	return err
}

// each runs something for all publishers at once, and returns the sum.
func each(all []*publisher, run func(*publisher) (uint64, error)) (uint64, error) {
	var sum atomic.Uint64
	var running errgroup.Group
	for _, one := range all {
		running.Go(func() error {
			n, err := run(one)
			sum.Add(n)
			return err
		})
	}
	err := running.Wait()
	return sum.Load(), err
}
