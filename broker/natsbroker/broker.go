package natsbroker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/nats-io/nats.go"

	"github.com/shoal-go/shoal/broker"
)

// Broker is a broker.IdempotentBroker over a NATS server. Its methods are safe for concurrent use. They block until the
// server has responded, at most until their context ends, or without a deadline for Options.CallTimeout. Their errors
// are those of the context or wrap broker.ErrUnavailable, except where a retry would fail alike: an invalid channel, a
// message larger than the server accepts (nats.ErrMaxPayload) and a missing permission (nats.ErrPermissionViolation).
type Broker struct {
	opt Options
	// session is nil unless Run is running and has connected.
	session atomic.Pointer[session]
}

var _ broker.IdempotentBroker = (*Broker)(nil)

// New returns a Broker that is not connected yet. The error lists all invalid options.
func New(opt Options) (*Broker, error) {
	opt = opt.withDefaults()
	if err := opt.validate(); err != nil {
		return nil, err
	}
	return &Broker{opt: opt}, nil
}

// call calls fn with the session and a context that has a deadline.
func (b *Broker) call(
	ctx context.Context, operation string, channels []string, fn func(context.Context, *session) error,
) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, b.opt.CallTimeout)
		defer cancel()
	}
	for _, channel := range channels {
		if err := checkChannel(channel); err != nil {
			return err
		}
	}
	return b.once(ctx, operation, func(s *session) error { return fn(ctx, s) })
}

// once calls fn with the session. The requests of fn are bounded by calls: a timer for each message that is stored or
// published would cost more than everything else.
func (b *Broker) once(ctx context.Context, operation string, fn func(*session) error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("natsbroker: %s: %w", operation, err)
	}
	s := b.session.Load()
	if s == nil || !s.conn.IsConnected() {
		return fmt.Errorf("natsbroker: %s: %w", operation, broker.ErrUnavailable)
	}
	if err := fn(s); err != nil {
		if errors.Is(err, errNoAnswer) || errors.As(err, new(*storeError)) {
			if isFull(err) {
				s.full.Store(&err)
			}
			s.suspectStream(operation, err)
		}
		return fmt.Errorf("natsbroker: %s: %w", operation, unavailable(s.explainSize(err)))
	}
	return nil
}

// unavailable makes an error wrap broker.ErrUnavailable, unless a retry would fail alike.
func unavailable(err error) error {
	for _, permanent := range []error{
		context.Canceled, nats.ErrMaxPayload, nats.ErrPermissionViolation, broker.ErrUnavailable,
		broker.ErrKeyReused, broker.ErrKeysUnsupported,
	} {
		if errors.Is(err, permanent) {
			return err
		}
	}
	return fmt.Errorf("%w: %w", broker.ErrUnavailable, err)
}

// Subscribe subscribes to channels. When it returns nil, the server has accepted the subscriptions and, in a cluster,
// the stream's leader knows them: messages stored from then on arrive; messages only published on other servers
// arrive as soon as these have been notified, one hop later. If the server refuses a subscription, the error
// says why.
func (b *Broker) Subscribe(ctx context.Context, channels ...string) error {
	return b.call(ctx, "subscribe", channels, func(ctx context.Context, s *session) error {
		mark := s.markRefusals()
		added, err := s.subscriptions.add(s.conn, s.arrivals, channels)
		if err != nil {
			return err
		}
		if err = s.awaitSubscriptions(ctx); err == nil {
			err = s.refusedAmong(ctx, added, mark)
		}
		if err != nil {
			s.subscriptions.rollBack(added)
			return err
		}
		if !s.subscriptions.confirm(channels) {
			return errUnsubscribed
		}
		return nil
	})
}

// errUnsubscribed is returned by Subscribe if another call unsubscribed, or failed to subscribe, in the meantime.
var errUnsubscribed = errors.New("a channel was unsubscribed concurrently")

// refusedAmong returns an error if the server refused one of the channels since mark. A refusal that names no subject,
// for too many subscriptions, may mean any of them.
func (s *session) refusedAmong(ctx context.Context, channels []string, mark refusalMark) error {
	refused := s.awaitRefusals(ctx, mark)
	if len(refused) == 0 {
		return nil
	}
	subjects := make(map[string]struct{}, len(channels))
	for _, channel := range channels {
		subjects[livePrefix+baseSubject(channel)] = struct{}{}
	}
	for _, err := range refused {
		_, named := subjects[refusedSubject(err)]
		if named || errors.Is(err, nats.ErrMaxSubscriptionsExceeded) && len(channels) > 0 {
			return err
		}
	}
	return nil
}

// Unsubscribe undoes Subscribe. It does not wait for the server.
func (b *Broker) Unsubscribe(ctx context.Context, channels ...string) error {
	if s := b.session.Load(); s != nil && ctx.Err() == nil {
		s.subscriptions.remove(channels)
	}
	return ctx.Err()
}

// Publish sends a message to all nodes subscribed to the channel, without storing it. It returns when the server has
// the message. A message larger than the server accepts (by default 1 MiB) fails with nats.ErrMaxPayload.
func (b *Broker) Publish(ctx context.Context, channel string, payload []byte) error {
	if err := checkChannel(channel); err != nil {
		return err
	}
	return b.once(ctx, "publish", func(s *session) error {
		subject, mark := livePrefix+baseSubject(channel), s.markRefusals()
		if err := s.conn.PublishMsg(withTrace(ctx, &nats.Msg{Subject: subject, Data: payload})); err != nil {
			return err
		}
		if err := s.calls.echo(ctx); err != nil {
			return err
		}
		return s.refusedPublication(ctx, subject, mark)
	})
}

// Store publishes and stores a message. It returns the message's position when the stream has it. The epoch is cached:
// the first Store of a channel reads it, later ones do not. For the size of a message see Publish.
func (b *Broker) Store(ctx context.Context, channel string, payload []byte) (pos broker.Position, err error) {
	if err := checkChannel(channel); err != nil {
		return pos, err
	}
	err = b.once(ctx, "store", func(s *session) error {
		pos, err = s.store(ctx, baseSubject(channel), payload)
		return err
	})
	return pos, err
}

// History returns the stored messages of a channel after a position, including all that any node stored before the
// call. If since continues the channel's epoch and its message is still stored, only newer messages are read;
// otherwise all of them are.
func (b *Broker) History(ctx context.Context, channel string, since broker.Position) (broker.Snapshot, error) {
	return b.read(ctx, "read history", channel, since,
		func(ctx context.Context, s *session, base string) (history, error) {
			h, err := s.history(ctx, base, since)
			h.bound(b.opt.HistoryBytes)
			h.Snapshot = h.Since(since)
			return h, err
		})
}

// Newest returns a channel's position and its newest message, if one is stored, at a cost that does not depend on how
// many there are.
func (b *Broker) Newest(ctx context.Context, channel string) (broker.Snapshot, error) {
	return b.read(ctx, "read the newest message", channel, broker.Position{},
		func(ctx context.Context, s *session, base string) (history, error) { return s.newest(ctx, base) })
}

func (b *Broker) read(
	ctx context.Context, operation, channel string, since broker.Position,
	fn func(context.Context, *session, string) (history, error),
) (snapshot broker.Snapshot, err error) {
	err = b.call(ctx, operation, []string{channel}, func(ctx context.Context, s *session) error {
		base, before := baseSubject(channel), s.epochs.current()
		h, err := s.keepPosition(ctx, base, func() (history, error) {
			return s.readPresent(ctx, base, since, func() (history, error) { return fn(ctx, s, base) })
		})
		if err != nil {
			return err
		}
		if s.epochs.current() == before { // else the history may be of a stream that was created again
			s.subscriptions.setEpoch(base, h.Epoch, h.begin, max(h.begin, h.recorded))
		}
		snapshot = h.Snapshot
		s.setLocalTimes(snapshot.Messages)
		return nil
	})
	return snapshot, err
}

// Positions returns the positions of channels, in the order of the arguments. It reads no messages.
func (b *Broker) Positions(ctx context.Context, channels ...string) (positions []broker.Position, err error) {
	err = b.call(ctx, "read positions", channels, func(ctx context.Context, s *session) error {
		positions, err = s.positions(ctx, channels)
		return err
	})
	return positions, err
}

// Forget drops the stored messages of a channel in the same step as it stores the marker that begins the new epoch.
// Subscribed nodes receive the marker in order with the messages.
func (b *Broker) Forget(ctx context.Context, channel string) error {
	return b.call(ctx, "forget", []string{channel}, func(ctx context.Context, s *session) error {
		base := baseSubject(channel)
		stream, err := s.loadEpoch(ctx)
		if err != nil {
			return err
		}
		marker := &nats.Msg{Subject: base, Header: nats.Header{
			epochHeader:  {stream.fork(newEpoch())},
			rollupHeader: {rollupSubject},
		}}
		if _, err := s.publish(ctx, marker); err != nil {
			return err
		}
		if _, err := s.history(ctx, base, broker.Position{}); err != nil { // writes the record
			return err
		}
		if err := s.announceEpoch(base, nil); err != nil {
			return err
		}
		return s.calls.echo(ctx)
	})
}

// errDuplicate means that the stream has stored a message with the same id before.
var errDuplicate = errors.New("a message with this id was stored before")

// publish publishes a message to the stream and returns its sequence. If it has an id, the error may be errDuplicate.
func (s *session) publish(ctx context.Context, m *nats.Msg) (uint64, error) {
	now := s.epochs.era.Load()
	response, err := s.calls.request(ctx, m)
	if err != nil {
		return 0, err
	}
	sequence, err := parseAck(response.Data)
	now.raise(sequence)
	if m.Subject == storeProbeSubject {
		raise(&now.probed, sequence)
	}
	if err == nil && header(m, idHeader) != "" && isDuplicate(response.Data) {
		err = errDuplicate
	}
	return sequence, err
}

// store stores a message and returns its position.
func (s *session) store(ctx context.Context, base string, payload []byte) (broker.Position, error) {
	at, _, err := s.storeMessage(ctx, base, withTrace(ctx, &nats.Msg{Subject: base, Data: payload}))
	return at, err
}

// storeMessage stores a message of a channel and returns its position. If it has the id of an earlier one, replayed is
// set and the position is the earlier one's, without its epoch.
//
// A sequence that does not exceed one that this node had seen belongs to a stream that was created again, whose epoch
// has to be read, or to one that has lost messages and needs another epoch.
func (s *session) storeMessage(
	ctx context.Context, base string, m *nats.Msg,
) (at broker.Position, replayed bool, err error) {
	before, refusals := s.epochs.sighting(), s.refusals.total()
	response, err := s.calls.request(ctx, m)
	if err == nil {
		at.Offset, err = parseAck(response.Data)
	} else if errors.Is(err, context.DeadlineExceeded) { // a refused publication gets no response
		err = cmp.Or(s.refusals.of(base, refusals), err)
	}
	if err != nil {
		return broker.Position{}, false, err
	}
	if m.Header != nil && isDuplicate(response.Data) {
		return at, true, nil
	}
	if at.Offset <= before.highest {
		_, err := s.loadEpoch(ctx)
		if err == nil {
			err = s.verifyStored(ctx, before, at.Offset-1)
		}
		if err != nil {
			return broker.Position{}, false, err
		}
	}
	before.raise(at.Offset)
	at.Epoch, err = s.channelEpoch(ctx, base)
	return at, false, err
}

// awaitSubscriptions returns when everything published afterwards arrives on all subscriptions.
func (s *session) awaitSubscriptions(ctx context.Context) error {
	if s.conn.ConnectedClusterName() == "" {
		return s.calls.echo(ctx)
	}
	// The leader is notified of a subscription on the same path as this request, and before it.
	m, err := s.calls.request(ctx, refusedPublish(fenceSubject))
	if err == nil {
		_, err = refusedSequence(m)
	}
	if errors.Is(err, errBusy) {
		return nil
	}
	return err
}
