package broker

import (
	"cmp"
	"container/list"
	"context"
	"math"
	"slices"
	"strconv"
	"sync"
	"time"
)

// MemoryOptions bound the messages that a Memory stores per channel. 0 is the documented default of each field, a
// negative value no bound.
type MemoryOptions struct {
	// Messages is the largest number of messages kept. 0: 64; negative: no bound.
	Messages int
	// TTL is how long a message is kept, and the key of one that is stored once. 0: 10 minutes; negative: no bound.
	TTL time.Duration
	// Keys is the largest number of keys; beyond it the oldest are forgotten. 0: 100,000; negative: no bound.
	Keys int
}

// Memory joins nodes within one process: for tests, and for several managers beside each other. All methods
// may be called from any number of goroutines. The zero value is ready for use, with the default of each option.
type Memory struct {
	prepare sync.Once // sets opt, keys and channels for the first node
	opt     MemoryOptions
	keys    *Keys

	mu       sync.Mutex // protects the fields below; handlers are called under it to preserve the order
	channels map[string]*memoryChannel
	epochs   uint64
}

// memoryChannel is one channel. It exists while it has subscribers, and for the TTL of messages after its last use.
type memoryChannel struct {
	nodes   []*MemoryNode
	kept    Snapshot
	touched time.Time
}

// NewMemory returns a Memory without nodes.
func NewMemory(opt MemoryOptions) *Memory { return &Memory{opt: opt} }

// bound replaces 0 by the default and a negative bound by the value that bounds nothing.
func bound[T cmp.Ordered](field *T, standard, none T) {
	var zero T
	switch {
	case *field == zero:
		*field = standard
	case *field < zero:
		*field = none
	}
}

// Node returns the broker of a new node.
func (b *Memory) Node() *MemoryNode {
	b.prepare.Do(func() {
		bound(&b.opt.Messages, 64, math.MaxInt)
		bound(&b.opt.TTL, 10*time.Minute, math.MaxInt64)
		bound(&b.opt.Keys, 100_000, math.MaxInt)
		b.keys, b.channels = NewKeys(b.opt.TTL, b.opt.Keys), make(map[string]*memoryChannel)
	})
	return &MemoryNode{hub: b}
}

// MemoryNode is one node's part of a Memory, and an IdempotentBroker. All methods may be called from any number of
// goroutines. Only Run blocks, until its context ends.
type MemoryNode struct {
	hub *Memory
	// handler is nil unless Run is running; it is the hub's lock that protects it.
	handler Handler
}

var _ IdempotentBroker = (*MemoryNode)(nil)

// Run delivers messages to h until ctx ends. It returns nil.
func (n *MemoryNode) Run(ctx context.Context, h Handler) error {
	n.set(h)
	h.Health(nil)
	<-ctx.Done()
	n.set(nil)
	n.hub.mu.Lock()
	defer n.hub.mu.Unlock()
	for name := range n.hub.channels {
		n.hub.leave(name, n)
	}
	return nil
}

func (n *MemoryNode) set(h Handler) {
	n.hub.mu.Lock()
	defer n.hub.mu.Unlock()
	n.handler = h
}

// Subscribe subscribes to channels. The error is ctx's error, or wraps ErrUnavailable if Run is not running.
func (n *MemoryNode) Subscribe(ctx context.Context, channels ...string) error {
	return n.do(ctx, func(b *Memory) {
		for _, name := range channels {
			if c := b.channel(name); !slices.Contains(c.nodes, n) {
				c.nodes = append(c.nodes, n)
			}
		}
	})
}

// Unsubscribe reverts Subscribe. It fails like Subscribe.
func (n *MemoryNode) Unsubscribe(ctx context.Context, channels ...string) error {
	return n.do(ctx, func(b *Memory) {
		b.sweep()
		for _, name := range channels {
			b.leave(name, n)
		}
	})
}

// Publish sends a message to all subscribed nodes. It fails like Subscribe.
func (n *MemoryNode) Publish(ctx context.Context, channel string, payload []byte) error {
	return n.do(ctx, func(b *Memory) {
		if c, ok := b.channels[channel]; ok {
			c.send(Message{Channel: channel, Payload: payload, Trace: TraceOf(ctx)})
		}
	})
}

// Store publishes a message and keeps it. The errors are those of Subscribe.
func (n *MemoryNode) Store(ctx context.Context, channel string, payload []byte) (pos Position, err error) {
	err = n.do(ctx, func(b *Memory) { pos = b.store(ctx, channel, payload) })
	return pos, err
}

// StoreOnce is Store, unless a message with the key was stored within MemoryOptions.TTL. The errors are those of
// Subscribe, and ErrKeyReused.
func (n *MemoryNode) StoreOnce(
	ctx context.Context, channel string, payload []byte, once Once,
) (at Position, replayed bool, err error) {
	var reused error
	err = n.do(ctx, func(b *Memory) {
		if at, replayed, reused = b.keys.Find(channel, once); replayed || reused != nil {
			return
		}
		at = b.store(ctx, channel, payload)
		b.keys.Add(channel, once, at)
	})
	return at, replayed, cmp.Or(err, reused)
}

// CheckOnce returns ErrKeyReused if the key was used with another digest. The other errors are those of Subscribe.
func (n *MemoryNode) CheckOnce(ctx context.Context, channel string, once Once) error {
	var reused error
	err := n.do(ctx, func(b *Memory) { _, _, reused = b.keys.Find(channel, once) })
	return cmp.Or(err, reused)
}

// History returns the stored messages of a channel after a position. The errors are those of Subscribe.
func (n *MemoryNode) History(ctx context.Context, channel string, since Position) (k Snapshot, err error) {
	err = n.do(ctx, func(b *Memory) {
		k = b.snapshot(channel).Since(since)
		k.Messages = slices.Clone(k.Messages)
	})
	return k, err
}

// Newest returns the position and the newest stored message of a channel. The errors are those of Subscribe.
func (n *MemoryNode) Newest(ctx context.Context, channel string) (k Snapshot, err error) {
	err = n.do(ctx, func(b *Memory) { k = b.snapshot(channel).Newest() })
	return k, err
}

// Positions returns the positions of channels. The errors are those of Subscribe.
func (n *MemoryNode) Positions(ctx context.Context, channels ...string) (all []Position, err error) {
	err = n.do(ctx, func(b *Memory) {
		for _, name := range channels {
			all = append(all, b.snapshot(name).Position)
		}
	})
	return all, err
}

// Forget deletes the stored messages of a channel and begins a new epoch. It fails like Subscribe.
func (n *MemoryNode) Forget(ctx context.Context, channel string) error {
	return n.do(ctx, func(b *Memory) {
		c := b.current(channel)
		c.kept = Snapshot{Position: Position{Epoch: b.epoch()}}
		c.send(Message{Channel: channel, Position: c.kept.Position})
	})
}

// do calls fn with the hub's lock held, if the node is connected.
func (n *MemoryNode) do(ctx context.Context, fn func(*Memory)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	n.hub.mu.Lock()
	defer n.hub.mu.Unlock()
	if n.handler == nil {
		return ErrUnavailable
	}
	fn(n.hub)
	return nil
}

// store publishes a message and keeps it.
func (b *Memory) store(ctx context.Context, channel string, payload []byte) Position {
	b.sweep()
	c := b.current(channel)
	previous := c.kept.Offset
	c.kept.Offset++
	at := c.kept.Position
	payload = slices.Clone(payload)
	c.kept.Messages = append(c.kept.Messages, Stored{Offset: at.Offset, Payload: payload, At: time.Now()})
	c.trim(b.opt)
	c.send(Message{Channel: channel, Payload: payload, Position: at, Prev: previous, Trace: TraceOf(ctx)})
	return at
}

// channel returns a channel and creates it if necessary.
func (b *Memory) channel(name string) *memoryChannel {
	c, ok := b.channels[name]
	if !ok {
		c = new(memoryChannel)
		b.channels[name] = c
	}
	return c
}

// current returns a channel with an epoch, after dropping its expired messages.
func (b *Memory) current(name string) *memoryChannel {
	c := b.channel(name)
	if c.kept.Epoch == "" {
		c.kept.Epoch = b.epoch()
	}
	c.trim(b.opt)
	c.touched = time.Now()
	return c
}

// snapshot returns the stored messages of a channel, and the zero value for one that no node is subscribed to and that
// stores nothing: a read leaves nothing behind.
func (b *Memory) snapshot(name string) Snapshot {
	c, ok := b.channels[name]
	switch {
	case !ok:
		return Snapshot{}
	case len(c.nodes) > 0:
		c = b.current(name)
	default:
		c.trim(b.opt)
	}
	return c.kept
}

// sweep checks a few channels and removes unused ones. It is called for each stored message, so that channels are
// removed faster than they are added.
func (b *Memory) sweep() {
	const some = 2
	looked := 0
	for name, c := range b.channels {
		if len(c.nodes) == 0 && time.Since(c.touched) >= b.opt.TTL {
			delete(b.channels, name)
		}
		if looked++; looked == some {
			return
		}
	}
}

func (b *Memory) epoch() string {
	b.epochs++
	return strconv.FormatUint(b.epochs, 36)
}

// leave ends a node's subscription.
func (b *Memory) leave(name string, n *MemoryNode) {
	c, ok := b.channels[name]
	if !ok {
		return
	}
	c.nodes = slices.DeleteFunc(c.nodes, func(other *MemoryNode) bool { return other == n })
	c.touched = time.Now()
}

// trim drops the messages that are too many or too old.
func (c *memoryChannel) trim(opt MemoryOptions) {
	held, drop := c.kept.Messages, max(0, len(c.kept.Messages)-opt.Messages)
	for drop < len(held) && time.Since(held[drop].At) >= opt.TTL {
		drop++
	}
	if drop > 0 {
		c.kept.Floor = held[drop-1].Offset
		c.kept.Messages = slices.Delete(held, 0, drop)
	}
}

// send hands a message to every subscribed node, with a payload of its own.
func (c *memoryChannel) send(m Message) {
	payload := m.Payload
	for _, n := range c.nodes {
		if n.handler != nil {
			m.Payload = slices.Clone(payload)
			n.handler.Receive(m)
		}
	}
}

// Keys remembers the positions of messages by key, in memory, for a limited time and up to a limited number; when there
// are more, the oldest are forgotten first. Its methods may be called from any number of goroutines.
type Keys struct {
	ttl  time.Duration
	most int

	mu     sync.Mutex // protects the fields below; nothing is called under it
	byName map[keyName]*list.Element
	order  list.List // of keptKey, oldest first
}

type keyName struct{ channel, key string }

type keptKey struct {
	keyName
	digest string
	at     Position
	stored time.Time
}

// NewKeys returns Keys that holds up to most keys, each for ttl.
func NewKeys(ttl time.Duration, most int) *Keys {
	return &Keys{ttl: ttl, most: most, byName: make(map[keyName]*list.Element)}
}

// Find returns the position of the message that was added with a key. The error is ErrKeyReused if it had another
// digest.
func (k *Keys) Find(channel string, once Once) (at Position, found bool, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.expireLocked(time.Now())
	e, found := k.byName[keyName{channel, once.Key}]
	if !found {
		return Position{}, false, nil
	}
	kept := e.Value.(*keptKey) // Add adds no others
	if kept.digest != once.Digest {
		return Position{}, false, ErrKeyReused
	}
	return kept.at, true, nil
}

// Add remembers the position of a message whose key Find has not found. The caller prevents that another one adds
// the same key between the two calls.
func (k *Keys) Add(channel string, once Once, at Position) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	k.expireLocked(now)
	if k.order.Len() >= k.most {
		k.dropLocked(k.order.Front())
	}
	name := keyName{channel, once.Key}
	k.byName[name] = k.order.PushBack(&keptKey{name, once.Digest, at, now})
}

// Expire drops the keys whose time is over. Find and Add do so as well.
func (k *Keys) Expire() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.expireLocked(time.Now())
}

// Len returns the number of keys.
func (k *Keys) Len() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.order.Len()
}

func (k *Keys) expireLocked(now time.Time) {
	for e := k.order.Front(); e != nil; e = k.order.Front() {
		if now.Sub(e.Value.(*keptKey).stored) < k.ttl { // Add adds no others
			return
		}
		k.dropLocked(e)
	}
}

func (k *Keys) dropLocked(e *list.Element) {
	delete(k.byName, e.Value.(*keptKey).keyName) // Add adds no others
	k.order.Remove(e)
}
