package chaostest

import (
	"context"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"
)

// follower is a well-behaved client that counts the different published messages that it receives: a server may send
// the newest one again after a reconnect.
type follower struct {
	cancel context.CancelFunc
	done   chan struct{}

	mu       sync.Mutex          // protects received
	received map[uint64]struct{} // their hashes
}

// publishedLength is the length from which a text message counts as a published one.
const publishedLength = 1 << 10

// follow subscribes, and follows until stop. A stored message that the subscription brings does not count. With nothing
// to follow it does nothing.
func follow(ctx context.Context, target Target, endpoint *url.URL) *follower {
	ctx, cancel := context.WithCancel(ctx)
	f := &follower{cancel: cancel, done: make(chan struct{}), received: map[uint64]struct{}{}}
	subscribed := make(chan struct{})
	go func() {
		defer close(f.done)
		f.run(ctx, target, endpoint, subscribed)
	}()
	if target.Publish != nil {
		select {
		case <-subscribed:
			(&client{ctx: ctx}).pause(probeInterval)
			f.mu.Lock()
			clear(f.received)
			f.mu.Unlock()
		case <-time.After(probePatience):
		case <-ctx.Done():
		}
	}
	return f
}

// run follows, and connects again if the connection ends. It closes subscribed with the first answer to a subscription.
func (f *follower) run(ctx context.Context, target Target, endpoint *url.URL, subscribed chan struct{}) {
	for first := true; target.Publish != nil && ctx.Err() == nil; {
		c := &client{
			target: target, endpoint: endpoint, ctx: ctx,
			sent: new(atomic.Int64), received: new(atomic.Int64), rounds: new(atomic.Int64),
		}
		if c.follow() == nil {
			stop := context.AfterFunc(ctx, func() { _ = c.socket.Close() }) // ends a read
			for answers := 0; ; answers++ {
				opcode, payload, err := c.next()
				if err != nil || opcode == 0x8 || opcode == ping&0x0f && c.write(frame(pong, payload)) != nil {
					break
				}
				if opcode == text&0x0f && len(payload) >= publishedLength {
					f.mu.Lock()
					f.received[xxhash.Sum64(payload)] = struct{}{}
					f.mu.Unlock()
				}
				if first && (answers > 0 || target.First == nil) {
					first = false
					close(subscribed)
				}
			}
			stop()
		}
		c.close()
		c.pause(probeInterval)
	}
}

// stop ends the follower once it has received as many messages as were published, or nothing more for a while, and
// returns the number of received ones.
func (f *follower) stop(of int) int {
	const patience = 2 * time.Second
	for last, since := f.count(), time.Now(); last < of && time.Since(since) < patience; {
		time.Sleep(probeInterval / 4)
		if now := f.count(); now != last {
			last, since = now, time.Now()
		}
	}
	f.cancel()
	<-f.done
	return f.count()
}

func (f *follower) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.received)
}
