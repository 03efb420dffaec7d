package broker

import (
	"context"
	"errors"
	"strings"
)

// maxPrefix is the length of the longest prefix.
const maxPrefix = 32

// CheckPrefix returns an error unless prefix is 1 to 32 letters, digits, hyphens or underscores.
func CheckPrefix(prefix string) error {
	bad := strings.ContainsFunc(prefix, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
	})
	if prefix == "" || len(prefix) > maxPrefix || bad {
		return errors.New("want 1 to 32 letters, digits, hyphens or underscores")
	}
	return nil
}

// WithPrefix returns a broker that puts a prefix and a dot in front of the name of every channel of another one, so
// that deployments with different prefixes can share an engine: the channel upload:42 becomes staging.upload:42. The
// prefix must pass CheckPrefix. The result is a HistoryBroker and an IdempotentBroker if the other one is. The names
// and patterns that an engine makes of channels then hold the prefix too.
func WithPrefix(b Broker, prefix string) Broker {
	p := &prefixed{Broker: b, prefix: prefix + "."}
	history, ok := b.(HistoryBroker)
	if !ok {
		return p
	}
	h := &prefixedHistory{p, history}
	if idempotent, ok := b.(IdempotentBroker); ok {
		return &prefixedIdempotent{h, idempotent}
	}
	return h
}

// prefixed is a Broker with a prefix. It is immutable.
type prefixed struct {
	Broker
	prefix string
}

func (p *prefixed) names(channels []string) []string {
	names := make([]string, len(channels))
	for i, channel := range channels {
		names[i] = p.prefix + channel
	}
	return names
}

// Oversized returns how many messages the broker dropped because of their size, if it counts them.
func (p *prefixed) Oversized() uint64 {
	if b, ok := p.Broker.(interface{ Oversized() uint64 }); ok {
		return b.Oversized()
	}
	return 0
}

func (p *prefixed) Run(ctx context.Context, h Handler) error {
	return p.Broker.Run(ctx, unprefixed{h, p.prefix})
}

func (p *prefixed) Subscribe(ctx context.Context, channels ...string) error {
	return p.Broker.Subscribe(ctx, p.names(channels)...)
}

func (p *prefixed) Unsubscribe(ctx context.Context, channels ...string) error {
	return p.Broker.Unsubscribe(ctx, p.names(channels)...)
}

func (p *prefixed) Publish(ctx context.Context, channel string, payload []byte) error {
	return p.Broker.Publish(ctx, p.prefix+channel, payload)
}

// prefixedHistory is a HistoryBroker with a prefix.
type prefixedHistory struct {
	*prefixed
	history HistoryBroker
}

func (p *prefixedHistory) Store(ctx context.Context, channel string, payload []byte) (Position, error) {
	return p.history.Store(ctx, p.prefix+channel, payload)
}

func (p *prefixedHistory) History(ctx context.Context, channel string, since Position) (Snapshot, error) {
	return p.history.History(ctx, p.prefix+channel, since)
}

func (p *prefixedHistory) Newest(ctx context.Context, channel string) (Snapshot, error) {
	return p.history.Newest(ctx, p.prefix+channel)
}

func (p *prefixedHistory) Positions(ctx context.Context, channels ...string) ([]Position, error) {
	return p.history.Positions(ctx, p.names(channels)...)
}

func (p *prefixedHistory) Forget(ctx context.Context, channel string) error {
	return p.history.Forget(ctx, p.prefix+channel)
}

// prefixedIdempotent is an IdempotentBroker with a prefix.
type prefixedIdempotent struct {
	*prefixedHistory
	idempotent IdempotentBroker
}

func (p *prefixedIdempotent) StoreOnce(
	ctx context.Context, channel string, payload []byte, once Once,
) (at Position, replayed bool, err error) {
	return p.idempotent.StoreOnce(ctx, p.prefix+channel, payload, once)
}

func (p *prefixedIdempotent) CheckOnce(ctx context.Context, channel string, once Once) error {
	return p.idempotent.CheckOnce(ctx, p.prefix+channel, once)
}

// unprefixed is the handler of a Broker with a prefix.
type unprefixed struct {
	Handler
	prefix string
}

// Receive passes a message on without the prefix. Nothing is subscribed to that has none.
func (u unprefixed) Receive(m Message) {
	var ok bool
	if m.Channel, ok = strings.CutPrefix(m.Channel, u.prefix); ok {
		u.Handler.Receive(m)
	}
}

// Interrupted passes on the channels that have the prefix; none of them is not the same as all channels.
func (u unprefixed) Interrupted(channels ...string) {
	if len(channels) == 0 {
		u.Handler.Interrupted()
		return
	}
	var ours []string
	for _, channel := range channels {
		if name, ok := strings.CutPrefix(channel, u.prefix); ok {
			ours = append(ours, name)
		}
	}
	if len(ours) > 0 {
		u.Handler.Interrupted(ours...)
	}
}
