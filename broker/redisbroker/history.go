package redisbroker

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/shoal-go/shoal/broker"
)

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

// positions reads the positions of channels, several at a time. A server that is out of reach precedes a refusal, which
// the caller would ask about channel by channel.
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
	var failed error
	for _, err := range errs {
		if err != nil && (failed == nil || errors.Is(err, broker.ErrUnavailable)) {
			failed = err
		}
	}
	if failed != nil {
		return nil, failed
	}
	return all, nil
}

// read returns at most count stored messages of a channel, the newest ones, after a position.
func (b *Broker) read(
	ctx context.Context, channel string, since broker.Position, count int,
) (broker.Snapshot, error) {
	result, err := b.do(ctx, channel, func(l *commandConn) rueidis.Completed {
		return l.read(b.naming.key(channel), since, count, b.follows(channel))
	})
	if err != nil {
		return broker.Snapshot{}, err
	}
	kept, err := parseSnapshot(result, b.opt.TTL)
	if err != nil {
		return broker.Snapshot{}, fmt.Errorf("redisbroker: what is kept of %q cannot be read: %w", channel, err)
	}
	return kept, nil
}

// follows reports whether this node is subscribed to a channel.
func (b *Broker) follows(channel string) bool {
	t := b.topology.Load()
	if t == nil {
		return false
	}
	s, err := t.of(channel)
	return err == nil && s.follows(channel)
}

// Forget deletes the history of a channel, and sends all subscribed nodes the new epoch. The errors are those of
// Subscribe.
func (b *Broker) Forget(ctx context.Context, channel string) error {
	_, err := b.do(ctx, channel, func(l *commandConn) rueidis.Completed {
		return l.command(forgetScript, b.naming.key(channel))
	})
	return err
}

// parseSnapshot decodes the script's answer and leaves out expired messages.
func parseSnapshot(result rueidis.RedisResult, ttl time.Duration) (broker.Snapshot, error) {
	malformed := errors.New("it is not what this package has written")
	parts, err := result.ToArray()
	switch {
	case err == nil && len(parts) == 0: // nothing is stored, and this node is not subscribed
		return broker.Snapshot{}, nil
	case err != nil || len(parts) != 3:
		return broker.Snapshot{}, malformed
	}
	received := time.Now()
	id, _ := parts[0].ToString()
	at, ok := parsePosition(id)
	text, _ := parts[1].ToString()
	now, notNumber := strconv.ParseInt(text, 10, 64)
	entries, notArray := parts[2].AsXRangeSlices()
	if !ok || notNumber != nil || notArray != nil {
		return broker.Snapshot{}, malformed
	}
	kept := broker.Snapshot{Position: at, Floor: at.Offset, Messages: make([]broker.Stored, 0, len(entries))}
	for _, entry := range entries { // the newest first
		at, ok := parsePosition(entry.ID)
		if !ok || len(entry.FieldValues) != 1 || len(entry.FieldValues[0].Field) < tokenLength {
			return broker.Snapshot{}, malformed
		}
		stamp := entry.FieldValues[0].Field[tokenLength:]
		stored, err := strconv.ParseInt(stamp, 10, 64)
		if stamp == "" || now-stored >= ttl.Milliseconds() {
			break // those before it are older still
		}
		if err != nil {
			return broker.Snapshot{}, malformed
		}
		kept.Floor = at.Offset - 1
		kept.Messages = append(kept.Messages, broker.Stored{
			Offset: at.Offset, Payload: []byte(entry.FieldValues[0].Value),
			At: received.Add(-time.Duration(max(now-stored, 0)) * time.Millisecond),
		})
	}
	slices.Reverse(kept.Messages)
	return kept, nil
}

// touchPart is the part of the TTL that passes between two touches.
const touchPart = 3

// touch keeps the streams of held channels from expiring, so that a followed channel keeps its epoch while no message
// is stored. It ends with ctx.
func (s *server) touch(ctx context.Context) {
	again := time.NewTicker(s.broker.opt.TTL / touchPart)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-again.C:
			s.touchAll(ctx, s.channels())
		}
	}
}

// touchAll touches channels, some at a time. Failures are left to the next round: the server is out of reach then,
// or has begun a new term.
func (s *server) touchAll(ctx context.Context, channels []string) {
	const atOnce = 64
	for len(channels) > 0 {
		some := channels[:min(len(channels), atOnce)]
		channels = channels[len(some):]
		l := s.conn.Load()
		if l == nil {
			return
		}
		commands := make([]rueidis.Completed, len(some))
		for i, channel := range some {
			commands[i] = l.command(touchScript, s.broker.naming.key(channel))
		}
		limited, cancel := context.WithTimeout(ctx, s.broker.opt.Timeout)
		results := l.client.DoMulti(limited, commands...)
		cancel()
		for _, result := range results {
			if err := result.Error(); err != nil && errorCode(err) == "" {
				return
			}
		}
	}
}

// StoreOnce is Store, unless a message with the key was stored on the channel within Options.TTL. All is one step on
// the server. The errors are those of Publish, and broker.ErrKeyReused.
func (b *Broker) StoreOnce(
	ctx context.Context, channel string, payload []byte, once broker.Once,
) (at broker.Position, replayed bool, err error) {
	if err := b.checkSize(payload); err != nil {
		return at, false, err
	}
	trace := broker.TraceOf(ctx)
	result, err := b.do(ctx, channel, func(l *commandConn) rueidis.Completed {
		return l.storeOnce(b.naming.key(channel), b.naming.once(channel, once.Key), payload, once.Digest, trace)
	})
	if err != nil {
		return at, false, err
	}
	const parts = 2
	answer, err := result.ToArray()
	if err != nil || len(answer) != parts {
		return at, false, errNoPosition
	}
	known, notText := answer[0].ToString()
	repeated, notNumber := answer[1].AsInt64()
	if notText != nil || notNumber != nil {
		return at, false, errNoPosition
	}
	at, err = parseKnown(known, once.Digest)
	return at, repeated == 1 && err == nil, err
}

// CheckOnce returns broker.ErrKeyReused if the key was used with another digest. The other errors are those of
// Subscribe.
func (b *Broker) CheckOnce(ctx context.Context, channel string, once broker.Once) error {
	result, err := b.do(ctx, channel, func(l *commandConn) rueidis.Completed {
		return l.command(knownScript, b.naming.once(channel, once.Key))
	})
	if err != nil {
		return err
	}
	known, err := result.ToString()
	if known == "" || err != nil {
		return err
	}
	_, err = parseKnown(known, once.Digest)
	return err
}

var errNoPosition = errors.New("redisbroker: the server did not answer with a position")

// parseKnown returns the position in the value of a key, which must have the digest.
func parseKnown(known, digest string) (broker.Position, error) {
	of, id, _ := strings.Cut(known, " ")
	at, ok := parsePosition(id)
	switch {
	case !ok:
		return at, errNoPosition
	case of != digest:
		return broker.Position{}, broker.ErrKeyReused
	}
	return at, nil
}
