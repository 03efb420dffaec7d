package broker

import (
	"context"
	"errors"
	"time"
)

// ErrUnavailable is what errors of a Broker wrap while the engine is out of reach or does not answer in time.
// Whether what was asked for has happened is then unknown; asking again later makes sense.
var ErrUnavailable = errors.New("broker: out of reach")

// Broker carries messages between nodes. Its methods may be called from any number of goroutines, also before
// Run and while the engine is out of reach; they block on the engine, at most until ctx ends.
type Broker interface {
	// Run connects, and hands to h what arrives on the channels subscribed to, until ctx ends; then it
	// returns nil, with no goroutine left. It is called once. An engine that cannot be reached is tried
	// again for ever, more and more seldom, and each reconnection restores the subscriptions. The error is
	// one that no waiting would mend: wrong credentials, or a version or setting of the engine that will
	// not do; it says which, and holds no secret.
	Run(ctx context.Context, h Handler) error
	// Subscribe makes the messages of channels arrive. When it returns nil, what is published afterwards
	// on any node is sure to. Subscribing again changes nothing. After an error none of them is subscribed.
	Subscribe(ctx context.Context, channels ...string) error
	// Unsubscribe takes Subscribe back. A message may still arrive shortly afterwards. Unsubscribing from
	// what is not subscribed has no effect.
	Unsubscribe(ctx context.Context, channels ...string) error
	// Publish brings a message to all nodes that are subscribed to the channel, this one too, and keeps
	// nothing of it. It returns when the engine has it.
	Publish(ctx context.Context, channel string, payload []byte) error
}

// Keeper is what a Broker is too whose engine keeps the newest messages of a channel, for nodes that come
// later. How many, and for how long, is a matter of its options.
type HistoryBroker interface {
	Broker
	// Store publishes a message and keeps it, in one step: no node gets it that could not find it kept,
	// and the other way round. It returns the message's position, whose epoch is empty where the engine
	// does not tell it with that.
	Store(ctx context.Context, channel string, payload []byte) (Position, error)
	// Kept returns what is kept of a channel. A channel of which nothing was ever stored is at offset 0 of
	// an epoch that the first message will continue.
	History(ctx context.Context, channel string) (Snapshot, error)
	// Forget drops what is kept of a channel and begins a new epoch, of which all subscribed nodes learn by
	// a Message without payload, or as if messages had been lost.
	Forget(ctx context.Context, channel string) error
}

// Handler takes what a Broker has to say. Its methods must return without waiting for anything but a lock, and
// must not call the broker.
type Handler interface {
	// Receive takes a message. Those of one channel come one after the other, in the order in which the
	// engine took them.
	Receive(m Message)
	// Interrupted says that messages of these channels may have been lost, or of all if there are none,
	// and that what is received from now on is complete again.
	Interrupted(channels ...string)
	// Health says whether messages come through: nil if they do, else why not. It is called on every change,
	// and when Run has first connected.
	Health(err error)
}

// Position is a point in the stored messages of a channel.
type Position struct {
	// Epoch names the run of offsets. It is opaque; a new one means that the history before was lost.
	Epoch string
	// Offset is that of the newest message, 0 before the first. Offsets strictly increase within an epoch,
	// and need not be neighbours.
	Offset uint64
}

// Message is what arrives on a channel.
type Message struct {
	Channel string
	// Payload belongs to the receiver. It is nil if the message only tells a new epoch.
	Payload []byte
	// Position is the zero value for a message that was not stored. The epoch is empty where it is that of
	// the channel's last Kept.
	Position
	// Previous is the offset of the stored message before this one on its channel, 0 if there is none that
	// is still kept. Whoever has not got that one has missed something.
	Prev uint64
}

// Kept is what an engine keeps of a channel.
type Snapshot struct {
	Position
	// Floor is an offset such that every message stored after it is among Messages.
	Floor uint64
	// Messages are the kept messages, oldest first.
	Messages []Stored
}

// Stored is one kept message.
type Stored struct {
	Offset  uint64
	Payload []byte
	// At is when it was stored, by the engine's clock.
	At time.Time
}
