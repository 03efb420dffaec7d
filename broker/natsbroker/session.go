package natsbroker

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/shoal-go/shoal/broker"
)

// session is what there is from the first connection to the end of Run; reconnections happen within it. Its
// methods may be called from any number of goroutines, but for those that say whose they are.
type session struct {
	opt     Options
	handler broker.Handler
	conn    *nats.Conn
	calls   *calls
	follows *follows
	// arrivals is where all subscriptions put their messages. It is bounded.
	arrivals chan *nats.Msg
	// replicated says that other servers than the stream's leader may answer for it.
	replicated bool

	// turned holds a token when something has happened that the keeper should look at.
	turned chan struct{}
	// cut holds a token when the connection was lost, and with it all answers that were on their way.
	cut chan struct{}
	// cuts counts how often the connection was lost, lost how often arrivals was full.
	cuts, lost atomic.Uint64
	// missing says that nobody answered for the stream, latest what went wrong with the connection.
	missing atomic.Bool
	latest  atomic.Pointer[error]
	// probe is the subject of the loop-back probe, heard the number of the newest that came back.
	probe string
	heard atomic.Uint64

	running sync.WaitGroup
	stop    chan struct{}
	closed  chan struct{}
}

// refreshes is how many times within the TTL a record is written again while somebody needs it.
const refreshes = 4

func (s *session) refreshAfter() time.Duration { return s.opt.TTL / refreshes }

func (s *session) nextRefresh() time.Time { return time.Now().Add(s.refreshAfter()) }

// open starts what a connection needs.
func (s *session) open() (err error) {
	if s.calls, err = newCalls(s.conn, s.opt.InFlight, s.opt.CallTimeout); err != nil {
		return err
	}
	if _, err = s.conn.ChanSubscribe(s.probe, s.arrivals); err != nil {
		return err
	}
	s.running.Go(func() { s.calls.run(s.cut, s.stop) })
	s.running.Go(s.receive)
	s.running.Go(s.refresh)
	return nil
}

// close ends the connection, and returns when no goroutine is left.
func (s *session) close() {
	close(s.stop)
	s.conn.Close()
	<-s.closed
	s.running.Wait()
}

// turn makes the keeper look.
func (s *session) turn() {
	select {
	case s.turned <- struct{}{}:
	default:
	}
}

// receive hands what arrives to the handler, until stop is closed.
func (s *session) receive() {
	tick := time.NewTicker(s.opt.ProbeInterval)
	defer tick.Stop()
	var told uint64
	for {
		select {
		case m := <-s.arrivals:
			s.hand(m)
			if lost := s.lost.Load(); lost != told && len(s.arrivals) == 0 {
				told = lost
				s.tellLosses()
			}
		case <-tick.C:
			s.tellLosses()
		case <-s.stop:
			return
		}
	}
}

func (s *session) tellLosses() {
	if channels := s.follows.losses(); len(channels) > 0 {
		s.opt.Logger.Warn("messages came faster than they were taken", "channels", len(channels))
		s.handler.Interrupted(channels...)
	}
}

// hand gives one message to the handler. It belongs to receive.
func (s *session) hand(m *nats.Msg) {
	if m.Subject == s.probe {
		if n, err := strconv.ParseUint(string(m.Data), 10, 64); err == nil {
			s.heard.Store(n)
		}
		return
	}
	channel, begin, ok := s.follows.find(m.Subject)
	if !ok {
		return
	}
	out := broker.Message{Channel: channel, Payload: m.Data}
	if out.Payload == nil {
		out.Payload = []byte{}
	}
	if m.Header != nil && header(m, streamHeader) == s.opt.Stream {
		out.Offset = number(m, sequenceHeader)
		if previous := number(m, previousHeader); previous > begin {
			out.Prev = previous
		}
		if epoch := header(m, epochHeader); validEpoch(epoch) {
			s.follows.learn(m.Subject, out.Offset)
			out = broker.Message{Channel: channel, Position: broker.Position{Epoch: epoch}}
		}
	}
	s.handler.Receive(out)
}

// refresh writes records again before they are too old, until stop is closed.
func (s *session) refresh() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	s.running.Go(func() {
		<-s.stop
		cancel()
	})
	tick := time.NewTicker(min(s.refreshAfter()/refreshes, time.Second))
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.refreshDue(ctx)
		case <-s.stop:
			return
		}
	}
}

// refreshDue writes those that are due, one after the other, so that this never takes the server's time from others.
func (s *session) refreshDue(ctx context.Context) {
	for s.conn.IsConnected() {
		base, record, ok := s.follows.next(time.Now(), s.nextRefresh())
		if !ok {
			return
		}
		if err := s.refreshOne(ctx, base, record); err != nil && !errors.Is(err, context.Canceled) {
			s.opt.Logger.Warn("an epoch could not be kept", "error", err)
			return
		}
	}
}

func (s *session) refreshOne(ctx context.Context, base string, record uint64) error {
	ctx, cancel := context.WithTimeout(ctx, s.opt.CallTimeout)
	defer cancel()
	_, err := s.history(ctx, base, record)
	return err
}
