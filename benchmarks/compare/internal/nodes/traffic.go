package nodes

import (
	"context"
	"errors"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/message"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/worker"
	"github.com/shoal-go/shoal/internal/load"
	"github.com/shoal-go/shoal/manager"
)

// Probe publishes a message that is not counted as soon as that is possible.
func (n *Node) Probe(worker.None, *worker.None) error {
	return retryUnavailable(func() error {
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

// publisher returns a function that publishes the next message of a publisher, which was to be sent at some time. It is called
// from one goroutine and waits for the message, so that the order of a publisher's messages to an upload is certain. Publishers
// keep their numbers from one load to the next, and each begins with another upload.
func (n *Node) publisher(i int, q results.Timed) func(planned time.Time) error {
	if len(n.counts[i]) < q.Channels {
		n.counts[i] = append(n.counts[i], make([]uint64, q.Channels-len(n.counts[i]))...)
	}
	counts, next := n.counts[i], i*q.Channels/q.Publishers
	return func(planned time.Time) error {
		upload := next
		next = (next + 1) % q.Channels
		counts[upload]++
		return Publish(context.Background(), n.from, message.Message{
			Channel: message.Channel(upload), Sent: planned.UnixNano(),
			Number: counts[upload]*MaxPublishers + uint64(i), Size: q.Bytes, //nolint:gosec // not negative
		})
	}
}

// Publish publishes messages while q.For lasts: each publisher one after the other, or at planned times, which the publishers
// take in turn, so that one that takes long does not delay the next.
func (n *Node) Publish(q results.Timed, a *Published) error {
	began := time.Now()
	next := func() (planned time.Time, ok bool) {
		now := time.Now()
		return now, now.Sub(began) < q.For
	}
	var running errgroup.Group
	if q.Rate > 0 {
		plan := make(chan time.Time, max(int(q.Rate*q.For.Seconds()), 1))
		next = func() (planned time.Time, ok bool) {
			planned, ok = <-plan
			return planned, ok
		}
		running.Go(func() (err error) {
			defer close(plan)
			began, err = worker.Pace(q.Rate, cap(plan), func(_ int, planned time.Time) error {
				a.Late = max(a.Late, int64(time.Since(planned)))
				plan <- planned
				return nil
			})
			return err
		})
	}
	var published atomic.Uint64
	for i := range q.Publishers {
		publish := n.publisher(i, q)
		running.Go(func() error {
			for planned, ok := next(); ok; planned, ok = next() {
				if err := publish(planned); err != nil {
					return err
				}
				published.Add(1)
			}
			return nil
		})
	}
	err := running.Wait()
	a.Began, a.Messages = began.UnixNano(), published.Load()
	return err
}

// Follow blocks until as many users as there are uploads follow one each, as soon as the broker can be reached.
func (n *Node) Follow(uploads int, _ *worker.None) error {
	for i := len(n.sinks); i < uploads; i++ {
		s := &sink{times: n.times, newest: make([]uint64, MaxPublishers)}
		user := "user-" + strconv.Itoa(i)
		if err := n.to.Connect(user, s); err != nil {
			return err
		}
		err := retryUnavailable(func() error {
			return n.to.SubscribeConn(context.Background(), user, s, message.Channel(i), manager.SubscribeOptions{})
		})
		if err != nil {
			return err
		}
		n.sinks = append(n.sinks, s)
	}
	return nil
}

// retryUnavailable tries again while the broker is out of reach.
func retryUnavailable(try func() error) (err error) {
	_ = worker.Poll(context.Background(), func() bool { // it has no end of its own
		err = try()
		return !errors.Is(err, manager.ErrUnavailable)
	})
	return err
}

// Wait blocks until messages have been received, at most for a time, and returns the state.
func (n *Node) Wait(q Wait, state *State) error {
	ctx, cancel := context.WithTimeout(context.Background(), q.For)
	defer cancel()
	_ = worker.Poll(ctx, func() bool { // the state tells
		*state = State{Recovered: n.to.Stats().Broker.Recoveries}
		for _, s := range n.sinks {
			state.Received += s.got.Load()
			state.Disorder += s.disorder.Load()
			state.Last = max(state.Last, s.last.Load())
		}
		return state.Received >= q.Total
	})
	state.Latency = n.times.Percentiles()
	return nil
}

// Reset removes the measured times.
func (n *Node) Reset(worker.None, *worker.None) error {
	n.times.Reset()
	return nil
}

// sink is a connection that counts and times its messages. Send is called with its upload's lock held, so by one
// goroutine at a time.
type sink struct {
	times         *load.Times
	newest        []uint64 // by publisher
	got, disorder atomic.Uint64
	last          atomic.Int64
}

func (s *sink) Send(f *manager.Frame) manager.Outcome {
	now := time.Now().UnixNano()
	sent, number, ok := message.Read(f.Body())
	if !ok || number < MaxPublishers {
		return manager.Queued // a greeting, which does not count
	}
	who, n := number%MaxPublishers, number/MaxPublishers
	if n != s.newest[who]+1 {
		s.disorder.Add(1)
	}
	s.newest[who] = n
	s.times.Add(now - sent)
	s.last.Store(now)
	s.got.Add(1)
	return manager.Queued
}

func (s *sink) Close(manager.CloseReason) {}
