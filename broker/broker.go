// Package broker defines the interface through which nodes share messages: it transports bytes on channels and is small
// enough for existing engines to implement. It is independent of users, uploads and connections.
//
// A channel name has the form kind:id. Kind consists of lower-case letters; id is valid UTF-8 of 1 to 255 bytes without
// control characters and may contain any other character, including colons. Engines with stricter naming rules encode
// the id.
//
// Memory connects nodes of one process. The directories beside it contain NATS and Redis, and brokertest, the
// conformance suite for all implementations.
package broker

import (
	"context"
	"errors"
	"slices"
	"time"
)

// ErrUnavailable is wrapped by errors of a Broker while the engine is unreachable or does not answer in time. Whether
// the operation took effect is then unknown; it may be retried. An error that wraps neither this one nor the error of
// the call's context is a refusal, such as for want of a permission: the call had no effect, and would fail again.
var ErrUnavailable = errors.New("broker: out of reach")

// Broker carries messages between nodes. Its methods may be called from any number of goroutines, also before
// Run and while the engine is out of reach; they block on the engine, at most until ctx ends. Their errors are ctx's,
// wrap ErrUnavailable, or are refusals, as ErrUnavailable describes.
type Broker interface {
	// Run connects and delivers messages of the subscribed channels to h until ctx ends; then it returns nil, with no
	// goroutine left. It is called once. It retries an unreachable engine indefinitely, with increasing pauses, and
	// each reconnection restores the subscriptions. The error is a permanent one that retrying cannot fix: wrong
	// credentials, or an unsupported version or setting of the engine. It names the cause and contains no secret.
	Run(ctx context.Context, h Handler) error
	// Subscribe subscribes to channels. Messages that any node publishes after it returned nil are delivered.
	// Subscribing again has no effect. After an error none of the channels is subscribed.
	Subscribe(ctx context.Context, channels ...string) error
	// Unsubscribe reverts Subscribe. A message may still arrive shortly afterwards. Unsubscribing from a channel that
	// is not subscribed has no effect.
	Unsubscribe(ctx context.Context, channels ...string) error
	// Publish sends a message to all nodes that are subscribed to the channel, including this one, without storing it.
	// It returns when the engine has accepted the message.
	Publish(ctx context.Context, channel string, payload []byte) error
}

// HistoryBroker is a Broker whose engine stores the newest messages of a channel, for nodes that subscribe later. Its
// options set how many it stores, and for how long. Its methods block and fail as those of a Broker do.
//
// The cost of a read depends on its result only: History on the messages after the position, Newest on one message,
// Positions on the number of channels, regardless of how much else is stored.
type HistoryBroker interface {
	Broker
	// Store publishes a message and stores it, in one step: a node that receives it finds it stored, and the other way
	// round. It returns the message's position; the epoch is empty where the engine does not know it without a read.
	Store(ctx context.Context, channel string, payload []byte) (Position, error)
	// History returns the stored messages of a channel after a position, if the epoch is unchanged and all of them are
	// stored; otherwise every stored message. The zero Position requests every message. A channel that no node has
	// published to is at offset 0. While a node is subscribed to it, that is of an epoch that stays and that its first
	// message continues. Without subscribers the epoch may be empty or change: a read leaves nothing at the engine.
	History(ctx context.Context, channel string, since Position) (Snapshot, error)
	// Newest returns the position of a channel and its newest message, if it is still stored.
	Newest(ctx context.Context, channel string) (Snapshot, error)
	// Positions returns the position of each channel, in order. It is meant for thousands of channels at once.
	Positions(ctx context.Context, channels ...string) ([]Position, error)
	// Forget drops the stored messages of a channel and begins a new epoch. All subscribed nodes are notified by a
	// Message without payload, or by Handler.Interrupted.
	Forget(ctx context.Context, channel string) error
}

// Errors of an IdempotentBroker.
var (
	// ErrKeyReused means that a key was used before with another digest.
	ErrKeyReused = errors.New("broker: the key was used for something else")
	// ErrKeysUnsupported is wrapped if the engine cannot keep keys as it is configured. Retrying does not help.
	ErrKeysUnsupported = errors.New("broker: keys are not supported")
)

// Once identifies a message, so that storing it again has no effect. Both fields are 1 to 64 letters, digits, "-" or
// "_".
type Once struct {
	// Key is the message's name among all messages of its channel.
	Key string
	// Digest identifies the content that the key stands for.
	Digest string
}

// IdempotentBroker is a HistoryBroker that stores a message once, however often and on however many nodes it is
// published. Its methods block and fail as those of a Broker do.
type IdempotentBroker interface {
	HistoryBroker
	// StoreOnce is like Store, unless a message with the key was stored on the channel within the time for which
	// messages are stored. Then it stores and publishes nothing, and returns the position of that message, with
	// replayed set, or ErrKeyReused if the digest differs. Of concurrent calls one stores. The epoch of the position is
	// never empty. Keys outlive their messages: neither newer messages nor Forget drop them.
	StoreOnce(ctx context.Context, channel string, payload []byte, once Once) (at Position, replayed bool, err error)
	// CheckOnce returns ErrKeyReused if StoreOnce would, and stores nothing.
	CheckOnce(ctx context.Context, channel string, once Once) error
}

// Since returns the part of a snapshot of everything that History returns for a position.
func (s Snapshot) Since(since Position) Snapshot {
	if since.Epoch != s.Epoch || since.Offset < s.Floor || since.Offset > s.Offset {
		return s
	}
	first := slices.IndexFunc(s.Messages, func(m Stored) bool { return m.Offset > since.Offset })
	if first < 0 {
		first = len(s.Messages)
	}
	return Snapshot{Position: s.Position, Floor: since.Offset, Messages: s.Messages[first:]}
}

// Newest returns the part of a snapshot of everything that HistoryBroker.Newest returns.
func (s Snapshot) Newest() Snapshot {
	if n := len(s.Messages); n > 0 {
		newest := s.Messages[n-1]
		return Snapshot{Position: s.Position, Floor: newest.Offset - 1, Messages: []Stored{newest}}
	}
	return Snapshot{Position: s.Position, Floor: s.Offset}
}

// Handler receives the events of a Broker. Its methods must return without blocking on anything but a lock, and must
// not call the broker.
type Handler interface {
	// Receive handles a message. The messages of one channel are delivered sequentially, in the order in which the
	// engine accepted them.
	Receive(m Message)
	// Interrupted reports that messages of these channels, or of all channels if the list is empty, may have been lost,
	// and that delivery is complete again from now on.
	Interrupted(channels ...string)
	// Health reports whether the broker is healthy: nil if messages are delivered, otherwise the reason. It is called
	// on every change, and when Run has first connected.
	Health(err error)
}

// Position is a point in the stored messages of a channel.
type Position struct {
	// Epoch names the run of offsets. It is opaque; a new one means that the history before was lost.
	Epoch string `json:"epoch"`
	// Offset is the offset of the newest message, 0 before the first. Offsets strictly increase within an epoch, but
	// need not be consecutive.
	Offset uint64 `json:"offset"`
}

// Message is a message that a channel delivers.
type Message struct {
	Channel string
	// Payload belongs to the receiver. It is nil if the message only tells a new epoch.
	Payload []byte
	// Position is the zero value for a message that was not stored. An empty epoch means the epoch of the channel's
	// last Snapshot.
	Position
	// Prev is the offset of the previous stored message on the channel, 0 if none is stored any more. A receiver that
	// has not got that message has a gap.
	Prev uint64
	// Trace is the trace context that the publisher gave to WithTrace, "" without one. Another program may have made it
	// up: it has the length of a trace context, but may be malformed.
	Trace string
}

// Snapshot holds stored messages of a channel.
type Snapshot struct {
	Position
	// Floor is an offset after which no stored message is missing from Messages: with Floor 7 and the messages 9 and
	// 12, a reader that has had 7 or a later one has missed nothing else.
	Floor uint64
	// Messages are stored messages, oldest first.
	Messages []Stored
}

// Stored is one stored message.
type Stored struct {
	Offset  uint64
	Payload []byte
	// At is when it was stored, by this node's clock: its age is measured by the engine's, which may differ.
	At time.Time
}

// maxTrace is the length of a trace context of version 00.
const maxTrace = 55

// traceKey is the key of a trace context in a context.
type traceKey struct{}

// WithTrace returns a context with which Store and StoreOnce carry a trace context, the value of a W3C traceparent
// header, to the nodes that receive the message: see Message.Trace. It travels beside the payload, which stays the
// same. Publish carries it too unless the engine has nothing but the payload, like Redis.
func WithTrace(ctx context.Context, trace string) context.Context {
	return context.WithValue(ctx, traceKey{}, trace)
}

// TraceOf returns the trace context that WithTrace has added, or "".
func TraceOf(ctx context.Context) string {
	trace, _ := ctx.Value(traceKey{}).(string)
	return BoundTrace(trace)
}

// BoundTrace returns a trace context, or "" if it has not the length of one. Whether it is one is for its reader to
// decide, as it may come from another program.
func BoundTrace(trace string) string {
	if len(trace) != maxTrace {
		return ""
	}
	return trace
}
