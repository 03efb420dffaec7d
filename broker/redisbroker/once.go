package redisbroker

import (
	"context"
	"errors"
	"strings"

	"github.com/redis/rueidis"

	"github.com/shoal-go/shoal/broker"
)

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
