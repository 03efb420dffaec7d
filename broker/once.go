package broker

import (
	"container/list"
	"context"
	"errors"
	"sync"
	"time"
)

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
// published.
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
	kept := e.Value.(*keptKey) //nolint:forcetypeassert // Add adds no others
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
		if now.Sub(e.Value.(*keptKey).stored) < k.ttl { //nolint:forcetypeassert // Add adds no others
			return
		}
		k.dropLocked(e)
	}
}

func (k *Keys) dropLocked(e *list.Element) {
	delete(k.byName, e.Value.(*keptKey).keyName) //nolint:forcetypeassert // Add adds no others
	k.order.Remove(e)
}
