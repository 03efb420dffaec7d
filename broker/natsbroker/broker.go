package natsbroker

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"

	"github.com/nats-io/nats.go"

	"github.com/shoal-go/shoal/broker"
)

// Broker is a node's way to the others through NATS, and a broker.Keeper. All methods may be called from any
// number of goroutines. Errors are those of the context, or wrap broker.ErrUnavailable, unless said otherwise.
type Broker struct {
	opt Options
	// session is nil unless Run is running and has connected.
	session atomic.Pointer[session]
}

var _ broker.HistoryBroker = (*Broker)(nil)

// New returns a Broker that is not connected yet. The error lists all options that will not do.
func New(opt Options) (*Broker, error) {
	opt = opt.withDefaults()
	if err := opt.validate(); err != nil {
		return nil, err
	}
	return &Broker{opt: opt}, nil
}

// call calls fn with the session, and with a context that has a deadline.
func (b *Broker) call(ctx context.Context, what string, fn func(context.Context, *session) error) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, b.opt.CallTimeout)
		defer cancel()
	}
	return b.once(ctx, what, func(s *session) error { return fn(ctx, s) })
}

// once calls fn with the session. What fn asks the server once, calls bounds: a timer for each message that is
// stored or published would cost more than all else that we do for it.
func (b *Broker) once(ctx context.Context, what string, fn func(*session) error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("natsbroker: %s: %w", what, err)
	}
	s := b.session.Load()
	if s == nil || !s.conn.IsConnected() {
		return fmt.Errorf("natsbroker: %s: %w", what, broker.ErrUnavailable)
	}
	if err := fn(s); err != nil {
		if errors.Is(err, errNoAnswer) {
			s.missing.Store(true)
			s.turn()
		}
		return fmt.Errorf("natsbroker: %s: %w", what, unavailable(err))
	}
	return nil
}

// unavailable makes an error wrap broker.ErrUnavailable, unless another attempt would end the same way.
func unavailable(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, nats.ErrMaxPayload) || errors.Is(err, broker.ErrUnavailable) {
		return err
	}
	return fmt.Errorf("%w: %w", broker.ErrUnavailable, err)
}

// Subscribe makes the messages of channels arrive. It returns when the server knows; where servers form a cluster,
// when the one that leads the stream knows too, so that what is stored from then on arrives, and what
// is published on other servers as soon as they have been told, which takes the way between two servers once.
func (b *Broker) Subscribe(ctx context.Context, channels ...string) error {
	return b.call(ctx, "subscribe", func(ctx context.Context, s *session) error {
		added, err := s.follows.add(s.conn, s.arrivals, channels, s.nextRefresh())
		if err != nil {
			return err
		}
		if err := s.settle(ctx); err != nil {
			s.follows.giveUp(added)
			return err
		}
		if !s.follows.confirm(channels) {
			return errTakenBack
		}
		return nil
	})
}

// errTakenBack is what Subscribe returns if another call unsubscribed, or failed, in the meantime.
var errTakenBack = errors.New("a channel was unsubscribed from meanwhile")

// Unsubscribe takes Subscribe back. It does not wait for the server.
func (b *Broker) Unsubscribe(ctx context.Context, channels ...string) error {
	if s := b.session.Load(); s != nil && ctx.Err() == nil {
		s.follows.remove(channels)
	}
	return ctx.Err()
}

// Publish brings a message to all nodes that are subscribed to the channel. A message larger than the server
// takes (by default 1 MiB) gets an error that wraps nats.ErrMaxPayload.
func (b *Broker) Publish(ctx context.Context, channel string, payload []byte) error {
	return b.once(ctx, "publish", func(s *session) error {
		if err := s.conn.Publish(livePrefix+baseSubject(channel), payload); err != nil {
			return err
		}
		return s.calls.echo(ctx)
	})
}

// Store publishes a message and keeps it. The position has no epoch. As to the size, see Publish.
func (b *Broker) Store(ctx context.Context, channel string, payload []byte) (pos broker.Position, err error) {
	err = b.once(ctx, "store", func(s *session) error {
		pos.Offset, err = s.store(ctx, &nats.Msg{Subject: baseSubject(channel), Data: payload})
		return err
	})
	return pos, err
}

// Kept returns what is kept of a channel, up to what has been stored by any node when it is called.
func (b *Broker) History(ctx context.Context, channel string) (k broker.Snapshot, err error) {
	err = b.call(ctx, "read what is kept", func(ctx context.Context, s *session) error {
		base := baseSubject(channel)
		h, err := s.history(ctx, base, 0)
		if err != nil {
			return err
		}
		s.follows.learn(livePrefix+base, h.begin)
		k = h.Snapshot
		return nil
	})
	return k, err
}

// Forget drops what is kept of a channel, in one step with the mark that begins the new epoch and that all
// subscribed nodes get as they get messages.
func (b *Broker) Forget(ctx context.Context, channel string) error {
	return b.call(ctx, "forget", func(ctx context.Context, s *session) error {
		base := baseSubject(channel)
		mark := &nats.Msg{Subject: base, Header: nats.Header{
			epochHeader:  {newEpoch()},
			rollupHeader: {rollupSubject},
		}}
		if _, err := s.store(ctx, mark); err != nil {
			return err
		}
		_, err := s.history(ctx, base, 0) // writes down the epoch, which would else end with the mark
		return err
	})
}

// store publishes a message to the stream and returns its sequence.
func (s *session) store(ctx context.Context, m *nats.Msg) (uint64, error) {
	answer, err := s.calls.one(ctx, m)
	if err != nil {
		return 0, err
	}
	return parseAck(answer.Data)
}

// settle returns when what is published afterwards is sure to arrive on all that is subscribed to.
func (s *session) settle(ctx context.Context) error {
	if s.conn.ConnectedClusterName() == "" {
		return s.calls.echo(ctx)
	}
	// The leader learns of a subscription on the way that this question comes on, and so before it.
	if _, err := s.lastSequence(ctx, fenceSubject); !errors.Is(err, errBusy) {
		return err
	}
	return nil
}

// lastSequence asks the stream's leader for the sequence of the newest message on a subject, by a message that
// it has to refuse. The error is errBusy while another one is on its way there.
func (s *session) lastSequence(ctx context.Context, subject string) (uint64, error) {
	answer, err := s.calls.one(ctx, impossible(subject))
	if err != nil {
		return 0, err
	}
	return refusedSequence(answer)
}

// impossible returns the message that the stream has to refuse.
func impossible(subject string) *nats.Msg {
	return &nats.Msg{Subject: subject, Header: nats.Header{expectedHeader: {strconv.FormatUint(neverReached, 10)}}}
}

func refusedSequence(answer *nats.Msg) (uint64, error) {
	_, err := parseAck(answer.Data)
	var refused *refusal
	switch {
	case !errors.As(err, &refused):
		return 0, errors.New("the stream did not refuse what it had to")
	case refused.code == wrongSequenceUnknown:
		return 0, errBusy
	case refused.code != wrongSequence:
		return 0, refused
	}
	return refused.sequence()
}
