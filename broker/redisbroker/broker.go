// Package redisbroker shares messages through Redis or Valkey, from version 7.0 on: a single server, one that
// sentinels watch, or a cluster.
//
// A channel is a pub/sub channel of the same name, and a payload goes out on it as it is, so that publishers and
// subscribers in other languages do not depend on this package. The history of a channel is a stream under
// shoal.kept:<channel>. A script stores a message, tells its position on shoal.at:<channel> and publishes
// it, in one step; messages of other programs have no position. The trace context of a traced message follows its
// position. In a cluster, nodes use sharded pub/sub, and receive
// plain PUBLISH of others as well.
//
// However many channels are followed, there are two connections to each server: one for commands, one for
// subscriptions.
//
// A position's epoch ends with the term of the server that gave it: Redis may lose the last writes
// when it starts again or another server takes over. Messages it still has are then kept on in a new epoch.
package redisbroker

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/shoal-go/shoal/broker"
)

// Broker is a broker.IdempotentBroker over Redis or Valkey. All methods may be called from any number of
// goroutines. They block until the server has responded, at most until their context ends, or without a deadline for
// Options.Timeout.
type Broker struct {
	opt    Options
	target target
	naming naming
	id     string // of this node, among all that use the same Redis

	started    atomic.Bool
	topology   atomic.Pointer[topology] // nil unless Run is running
	dropped    atomic.Uint64
	lastLogged atomic.Int64 // when an oversized message was last logged, in Unix nanoseconds
}

var _ broker.IdempotentBroker = (*Broker)(nil)

// New returns a Broker that Run connects. The error is every complaint about the options at once.
func New(opt Options) (*Broker, error) {
	opt = opt.withDefaults()
	to, err := opt.validate()
	if err != nil {
		return nil, err
	}
	return &Broker{opt: opt, target: to, naming: newNaming(to.mode), id: rand.Text()}, nil
}

// Run connects, and passes received messages to h, until ctx ends; then it returns nil. Servers that cannot be
// reached are retried until ctx ends. The error is one of the first connection that a retry does not fix: a wrong
// password, a missing permission, a version that is too old, or a server that is not of the kind that the URL says.
func (b *Broker) Run(ctx context.Context, h broker.Handler) error {
	if b.started.Swap(true) {
		return errors.New("redisbroker: Run is called for the second time: it can be called once")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	t := newTopology(b, h)
	b.topology.Store(t)
	defer b.topology.Store(nil)
	return t.run(ctx)
}

// Subscribe makes the messages of channels arrive. When it returns nil, the server has confirmed that. It waits at
// most until ctx ends; the error then, or while Redis is out of reach, wraps broker.ErrUnavailable.
func (b *Broker) Subscribe(ctx context.Context, channels ...string) error {
	ctx, cancel := b.withTimeout(ctx)
	defer cancel()
	t, err := b.running(ctx)
	if err != nil {
		return err
	}
	return t.subscribe(ctx, channels)
}

// Unsubscribe ends subscriptions. The errors are those of Subscribe, except that it returns nil at once while Redis is
// unreachable.
func (b *Broker) Unsubscribe(ctx context.Context, channels ...string) error {
	ctx, cancel := b.withTimeout(ctx)
	defer cancel()
	t, err := b.running(ctx)
	if err != nil {
		return err
	}
	return t.unsubscribe(ctx, channels)
}

// Publish brings a message to all nodes that are subscribed to the channel. It returns when the server has it. The
// errors are those of Subscribe; a payload larger than Options.MaxPayload is refused.
func (b *Broker) Publish(ctx context.Context, channel string, payload []byte) error {
	if err := b.checkSize(payload); err != nil {
		return err
	}
	_, err := b.do(ctx, channel, func(l *commandConn) rueidis.Completed {
		return l.send(publishScript, channel, payload)
	})
	return err
}

// Store publishes a message and keeps it, in one step. It returns the message's position. The errors are those
// of Publish.
func (b *Broker) Store(ctx context.Context, channel string, payload []byte) (broker.Position, error) {
	if err := b.checkSize(payload); err != nil {
		return broker.Position{}, err
	}
	trace := broker.TraceOf(ctx)
	result, err := b.do(ctx, channel, func(l *commandConn) rueidis.Completed {
		return l.store(b.naming.key(channel), payload, trace)
	})
	if err != nil {
		return broker.Position{}, err
	}
	id, err := result.ToString()
	at, ok := parsePosition(id)
	if err != nil || !ok {
		return broker.Position{}, errNoPosition
	}
	return at, nil
}

// Oversized returns how many messages were dropped because they were larger than Options.MaxPayload.
func (b *Broker) Oversized() uint64 { return b.dropped.Load() }

// oversized counts a message that is dropped, and logs one a second.
func (b *Broker) oversized(channel string, size int) {
	count := b.dropped.Add(1)
	now, last := time.Now().UnixNano(), b.lastLogged.Load()
	if now-last >= int64(time.Second) && b.lastLogged.CompareAndSwap(last, now) {
		b.opt.Logger.Warn("redisbroker: dropped a message that is too large",
			"channel", channel, "bytes", size, "limit", b.opt.MaxPayload, "dropped", count)
	}
}

func (b *Broker) checkSize(payload []byte) error {
	if len(payload) > b.opt.MaxPayload {
		return fmt.Errorf("redisbroker: the payload has %d bytes, must have at most %d", len(payload), b.opt.MaxPayload)
	}
	return nil
}

// withTimeout returns a context that ends at the latest after Options.Timeout if ctx has no deadline.
func (b *Broker) withTimeout(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, b.opt.Timeout)
}

func (b *Broker) running(ctx context.Context) (*topology, error) {
	if ctx.Err() != nil {
		return nil, contextError(ctx, "nothing was asked of Redis")
	}
	t := b.topology.Load()
	if t == nil {
		return nil, unavailable("the broker does not run")
	}
	return t, nil
}

// maxRetryDelay is the longest pause before a rejected command is sent again.
const maxRetryDelay = 100 * time.Millisecond

// do sends a command to the server that a channel belongs to. One that the server has refused to carry out because it
// has restarted, or because the channel belongs to another, is sent again to the right server.
func (b *Broker) do(
	ctx context.Context, channel string, command func(*commandConn) rueidis.Completed,
) (rueidis.RedisResult, error) {
	ctx, cancel := b.withTimeout(ctx)
	defer cancel()
	for pause := time.Millisecond; ; pause = min(2*pause, maxRetryDelay) {
		t, err := b.running(ctx)
		if err != nil {
			return rueidis.RedisResult{}, err
		}
		s, err := t.of(channel)
		if err != nil {
			return rueidis.RedisResult{}, err
		}
		l := s.conn.Load()
		if l == nil {
			return rueidis.RedisResult{}, s.unavailableError()
		}
		result := l.client.Do(ctx, command(l))
		switch err := result.Error(); {
		case err == nil:
			return result, nil
		case errorCode(err) == noScript:
			if err := s.renew(ctx, l); err != nil {
				return result, callError(ctx, s.addr, b.connectError(s.addr, err))
			}
		case hasMoved(errorCode(err)):
			t.rediscover()
		case isForeign(err):
			return result, fmt.Errorf("%w: delete the keys %s and %s, which another program has written",
				callError(ctx, s.addr, err), b.naming.key(channel), b.naming.once(channel, "*"))
		default:
			err := callError(ctx, s.addr, err)
			if errorCode(result.Error()) == outOfMemory {
				s.refuseStore(err)
			}
			return result, err
		}
		select {
		case <-ctx.Done():
			return result, contextError(ctx, s.addr)
		case <-time.After(pause):
		}
	}
}
