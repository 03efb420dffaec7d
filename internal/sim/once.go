package sim

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/manager"
)

// kept is the hub's record of a key.
type kept struct {
	digest string
	at     broker.Position
}

// idempotentBroker is the link with a hub that recognises keys.
type idempotentBroker struct{ *link }

var _ broker.IdempotentBroker = idempotentBroker{}

// StoreOnce is like Store, unless the key is known.
func (b idempotentBroker) StoreOnce(
	ctx context.Context, name string, payload []byte, once broker.Once,
) (at broker.Position, replayed bool, err error) {
	var reused bool
	err = b.call(ctx, func(h *hub) {
		k, known := h.keys[name+" "+once.Key]
		if known {
			at, replayed, reused = k.at, true, k.digest != once.Digest
			return
		}
		at = h.store(name, payload)
		h.keys[name+" "+once.Key] = kept{once.Digest, at}
	})
	if err == nil && reused {
		return broker.Position{}, false, broker.ErrKeyReused
	}
	return at, replayed, err
}

// CheckOnce returns ErrKeyReused if StoreOnce would.
func (b idempotentBroker) CheckOnce(ctx context.Context, name string, once broker.Once) error {
	var reused bool
	err := b.call(ctx, func(h *hub) {
		k, known := h.keys[name+" "+once.Key]
		reused = known && k.digest != once.Digest
	})
	if err == nil && reused {
		return broker.ErrKeyReused
	}
	return err
}

// publishOnce publishes a message with a key on two nodes at the same time, and each node repeats it until it succeeds.
// The account notices a message that is accepted twice.
func (w *World) publishOnce(op Op) {
	w.bodies++
	body := w.bodies
	w.account.announce(body, op.Class)
	m := message(op.Upload, body, op.Class)
	once := manager.Once{Key: fmt.Sprint("key-", body)}
	var mu sync.Mutex // protects first
	var first manager.Position
	send := func(n *node) {
		for range 3 {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			pos, replayed, err := n.manager.PublishOnce(ctx, uploadID(op.Upload), m, once)
			cancel()
			if err != nil {
				if errors.Is(err, manager.ErrUnavailable) {
					continue
				}
				return // the node has ended
			}
			if n.link == nil && !replayed {
				w.account.accept(op.Upload, body, pos)
			}
			mu.Lock()
			defer mu.Unlock()
			if first != (manager.Position{}) && first != pos {
				n.fail(fmt.Sprintf("message %d was published once at %v, and again at %v", body, first, pos))
			}
			first = pos
			return
		}
	}
	for i := range 2 {
		n := w.nodes[(op.Node+i)%len(w.nodes)]
		if n.link == nil {
			send(n) // in the order of the account
		} else {
			go send(n)
		}
	}
}
