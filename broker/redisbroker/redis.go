package redisbroker

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/shoal-go/shoal/broker"
)

// Broker is a node's way to Redis, and a broker.IdempotentBroker. All methods may be called from any number of
// goroutines. Calls whose context has no deadline end after Options.Timeout.
type Broker struct {
	opt    Options
	target target
	naming naming
	id     string // of this node, among all that use the same Redis

	started atomic.Bool
	fleet   atomic.Pointer[fleet] // nil unless Run is running
	dropped atomic.Uint64
	noted   atomic.Int64 // when an oversized message was last logged, in Unix nanoseconds
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
// reached are tried without end. The error is one of the first connection that no waiting would mend: a wrong password, a
// missing permission, a version that is too old, or a server that is not of the kind that the URL says.
func (b *Broker) Run(ctx context.Context, h broker.Handler) error {
	if b.started.Swap(true) {
		return errors.New("redisbroker: Run is called for the second time: it can be called once")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	f := newFleet(b, h)
	b.fleet.Store(f)
	defer b.fleet.Store(nil)
	return f.run(ctx)
}

// Subscribe makes the messages of channels arrive. When it returns nil, the server has confirmed that. It waits at
// most until ctx ends; the error then, or while Redis is out of reach, wraps broker.ErrUnavailable.
func (b *Broker) Subscribe(ctx context.Context, channels ...string) error {
	ctx, cancel := b.bounded(ctx)
	defer cancel()
	f, err := b.running(ctx)
	if err != nil {
		return err
	}
	return f.subscribe(ctx, channels)
}

// Unsubscribe takes Subscribe back. The errors are those of Subscribe, but for a Redis out of reach: then there is
// nothing to wait for.
func (b *Broker) Unsubscribe(ctx context.Context, channels ...string) error {
	ctx, cancel := b.bounded(ctx)
	defer cancel()
	f, err := b.running(ctx)
	if err != nil {
		return err
	}
	return f.unsubscribe(ctx, channels)
}

// Publish brings a message to all nodes that are subscribed to the channel. It returns when the server has it. The
// errors are those of Subscribe; a payload larger than Options.MaxPayload is refused.
func (b *Broker) Publish(ctx context.Context, channel string, payload []byte) error {
	if err := b.checkSize(payload); err != nil {
		return err
	}
	_, err := b.do(ctx, channel, func(l *line) rueidis.Completed {
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
	result, err := b.do(ctx, channel, func(l *line) rueidis.Completed {
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

// History returns the stored messages of a channel after a position. The errors are those of Subscribe.
func (b *Broker) History(ctx context.Context, channel string, since broker.Position) (broker.Snapshot, error) {
	all, err := b.read(ctx, channel, since, math.MaxInt32)
	return all.Since(since), err
}

// Newest returns the position and the newest stored message of a channel. The errors are those of Subscribe.
func (b *Broker) Newest(ctx context.Context, channel string) (broker.Snapshot, error) {
	return b.read(ctx, channel, broker.Position{}, 1)
}

// Positions returns the positions of channels. The errors are those of Subscribe.
func (b *Broker) Positions(ctx context.Context, channels ...string) ([]broker.Position, error) {
	return positions(ctx, channels, b.Newest)
}

// positions reads the positions of channels, several at a time.
func positions(
	ctx context.Context, channels []string, newest func(context.Context, string) (broker.Snapshot, error),
) ([]broker.Position, error) {
	const parallel = 256
	var (
		all     = make([]broker.Position, len(channels))
		errs    = make([]error, len(channels))
		slots   = make(chan struct{}, parallel)
		reading sync.WaitGroup
	)
	for i, channel := range channels {
		slots <- struct{}{}
		reading.Go(func() {
			defer func() { <-slots }()
			s, err := newest(ctx, channel)
			all[i], errs[i] = s.Position, err
		})
	}
	reading.Wait()
	if i := slices.IndexFunc(errs, func(err error) bool { return err != nil }); i >= 0 {
		return nil, errs[i]
	}
	return all, nil
}

// read returns at most count stored messages of a channel, the newest ones, after a position.
func (b *Broker) read(
	ctx context.Context, channel string, since broker.Position, count int,
) (broker.Snapshot, error) {
	result, err := b.do(ctx, channel, func(l *line) rueidis.Completed {
		return l.read(b.naming.key(channel), since, count, b.follows(channel))
	})
	if err != nil {
		return broker.Snapshot{}, err
	}
	kept, err := readKept(result, b.opt.TTL)
	if err != nil {
		return broker.Snapshot{}, fmt.Errorf("redisbroker: what is kept of %q cannot be read: %w", channel, err)
	}
	return kept, nil
}

// follows reports whether this node is subscribed to a channel.
func (b *Broker) follows(channel string) bool {
	f := b.fleet.Load()
	if f == nil {
		return false
	}
	s, err := f.of(channel)
	return err == nil && s.follows(channel)
}

// Forget deletes the history of a channel, and sends all subscribed nodes the new epoch. The errors are those of
// Subscribe.
func (b *Broker) Forget(ctx context.Context, channel string) error {
	_, err := b.do(ctx, channel, func(l *line) rueidis.Completed {
		return l.command(forgetScript, b.naming.key(channel))
	})
	return err
}

// Oversized returns how many messages were dropped because they were larger than Options.MaxPayload.
func (b *Broker) Oversized() uint64 { return b.dropped.Load() }

// oversized counts a message that is dropped, and logs one a second.
func (b *Broker) oversized(channel string, size int) {
	count := b.dropped.Add(1)
	now, last := time.Now().UnixNano(), b.noted.Load()
	if now-last >= int64(time.Second) && b.noted.CompareAndSwap(last, now) {
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

// bounded returns a context that ends at the latest after Options.Timeout if ctx has no deadline.
func (b *Broker) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, b.opt.Timeout)
}

func (b *Broker) running(ctx context.Context) (*fleet, error) {
	if ctx.Err() != nil {
		return nil, ended(ctx, "nothing was asked of Redis")
	}
	f := b.fleet.Load()
	if f == nil {
		return nil, unavailable("the broker does not run")
	}
	return f, nil
}

// maxPutOff is the longest pause before a command is sent again that was not carried out.
const maxPutOff = 100 * time.Millisecond

// do sends a command to the server that a channel belongs to. One that the server has refused to carry out because it
// has restarted, or because the channel belongs to another, is sent again to the right server.
func (b *Broker) do(
	ctx context.Context, channel string, command func(*line) rueidis.Completed,
) (rueidis.RedisResult, error) {
	ctx, cancel := b.bounded(ctx)
	defer cancel()
	for pause := time.Millisecond; ; pause = min(2*pause, maxPutOff) {
		f, err := b.running(ctx)
		if err != nil {
			return rueidis.RedisResult{}, err
		}
		s, err := f.of(channel)
		if err != nil {
			return rueidis.RedisResult{}, err
		}
		l := s.line.Load()
		if l == nil {
			return rueidis.RedisResult{}, s.away()
		}
		result := l.client.Do(ctx, command(l))
		switch err := result.Error(); {
		case err == nil:
			return result, nil
		case kind(err) == "NOSCRIPT":
			if err := s.renew(ctx, l); err != nil {
				return result, explain(ctx, s.addr, whileConnecting(s.addr, err))
			}
		case hasMoved(kind(err)):
			f.look()
		default:
			return result, explain(ctx, s.addr, err)
		}
		select {
		case <-ctx.Done():
			return result, ended(ctx, s.addr)
		case <-time.After(pause):
		}
	}
}
