package nodes

import (
	"context"
	"errors"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/shoal-go/shoal/internal/load"
	"github.com/shoal-go/shoal/manager"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/message"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/worker"
)

// Follow blocks until as many users as there are uploads follow one each, as soon as the broker can be reached.
func (n *Node) Follow(uploads int, _ *worker.None) error {
	for i := len(n.sinks); i < uploads; i++ {
		s := &sink{times: n.times, newest: make([]uint64, MaxPublishers)}
		user := "user-" + strconv.Itoa(i)
		if err := n.to.Connect(user, s); err != nil {
			return err
		}
		err := retryUnavailable(context.Background(), func() error {
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
func retryUnavailable(ctx context.Context, try func() error) (err error) {
	ended := worker.Poll(ctx, func() bool {
		err = try()
		return !errors.Is(err, manager.ErrUnavailable)
	})
	return errors.Join(ended, err)
}

// Wait blocks until messages have been received, at most for a time, and returns the state.
func (n *Node) Wait(q Wait, state *State) error {
	ctx, cancel := context.WithTimeout(context.Background(), q.For)
	defer cancel()
	_ = worker.Poll(ctx, func() bool { // the state tells
		*state = n.state()
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

func (n *Node) state() State {
	state := State{Recovered: n.to.Stats().Broker.Recoveries}
	for _, s := range n.sinks {
		state.Received += s.got.Load()
		state.Disorder += s.disorder.Load()
		state.Last = max(state.Last, s.last.Load())
	}
	return state
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
