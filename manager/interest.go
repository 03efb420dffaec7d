package manager

import (
	"context"
	"time"

	"github.com/shoal-go/shoal/broker"
)

// follow is this node's interest in an upload at the broker. It belongs to the upload's lock. An upload with
// subscribers has one, and it stays for a while after the last of them.
type follow struct {
	cluster *cluster
	id      string
	// pins counts the callers that are about to subscribe.
	pins int
	// left is when the last follower left the upload; zero while there is one. Every follower holds a pin.
	left time.Time
	// ready is closed when the node is subscribed and the upload's log matches the broker's.
	ready chan struct{}
	live  bool // ready is closed
	// joined is set while the node is subscribed; a read of the stored messages is only reliable then.
	joined bool
	// behind is set while messages may be missing; arriving messages are held until the gap is closed.
	behind  bool
	waiting []arrival
	// waitingBytes are their payloads'.
	waitingBytes int
	// again requests another read of the stored messages, because messages were lost after the previous read began.
	again bool
	// attempts counts the reads that did not close the gap.
	attempts int
}

// arrival is a validated message from the broker.
type arrival struct {
	broker.Message
	encoded Encoded // the zero value if the message must not be delivered
}

// follow makes this node follow uploads until release is called, and for as long as they have local subscribers. It
// blocks until messages published from now on, on any node, are guaranteed to arrive. The error is ErrClosed, ctx's
// error, or wraps ErrUnavailable.
func (m *Manager) follow(ctx context.Context, uploadIDs ...string) (release func(), err error) {
	if m.cluster == nil {
		return func() {}, nil
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	release = func() {
		for _, id := range uploadIDs {
			m.registry.WithKnown(id, func(u *upload) { u.State.follow.pins-- })
		}
	}
	var joining []chan struct{}
	for _, id := range uploadIDs {
		if ready := m.cluster.pin(id); ready != nil {
			joining = append(joining, ready)
		}
	}
	for _, ready := range joining {
		if err := m.await(ctx, ready); err != nil {
			release()
			return nil, err
		}
	}
	return release, nil
}

// await blocks until ready is closed, ctx ends, or the manager is closed.
func (m *Manager) await(ctx context.Context, ready <-chan struct{}) error {
	select {
	case <-ready:
		return nil
	case <-m.stop:
		return ErrClosed
	case <-ctx.Done():
		return unavailable(ctx.Err())
	}
}

// pin keeps an upload followed and returns a channel that is closed when it is ready, or nil if it is.
func (c *cluster) pin(id string) (ready chan struct{}) {
	c.manager.registry.With(id, func(u *upload) {
		f := u.State.follow
		if f == nil {
			f = &follow{cluster: c, id: u.ID(), ready: make(chan struct{}), behind: true}
			u.State.follow = f
			c.interest.Add(f.id)
		}
		f.pins++
		f.left = time.Time{}
		if !f.live {
			ready = f.ready
		}
	})
	return ready
}

// deserted records that the upload has no subscriber. The registry calls it when it is done with such an upload, with
// the upload's lock held.
func (f *follow) deserted() {
	if f.pins == 0 && f.left.IsZero() {
		f.left = time.Now()
		f.cluster.interest.AddAfter(f.id, leaveDelay)
	}
}

// reconcile subscribes to and unsubscribes from uploads at the broker, as they are wanted by now.
func (c *cluster) reconcile(ctx context.Context, worker int, ids []string) (again []string) {
	subscribed := c.subscribed[worker]
	var join, leave []string
	for _, id := range ids {
		wanted := c.wanted(id)
		sure, maybe := subscribed[id]
		switch {
		case wanted && sure:
			c.joined(id)
		case wanted:
			join = append(join, id)
		case maybe:
			leave = append(leave, id)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, brokerPatience)
	defer cancel()
	// Only uploads to be joined have waiting callers.
	again = c.join(ctx, subscribed, join)
	return append(again, c.leave(ctx, subscribed, leave)...)
}

// join subscribes to uploads, and returns those for which that has failed.
func (c *cluster) join(ctx context.Context, subscribed map[string]bool, ids []string) (failed []string) {
	if len(ids) == 0 {
		return nil
	}
	// A channel that the engine refuses must not fail the others of its batch, so each is then retried by itself.
	joined := ids
	if err := c.broker.Subscribe(ctx, channelsOf(ids)...); err != nil {
		joined = nil
		for _, id := range ids {
			if len(ids) > 1 {
				err = c.broker.Subscribe(ctx, channelsOf([]string{id})...)
			}
			if err == nil {
				joined = append(joined, id)
				continue
			}
			failed = append(failed, id)
			c.subscribeFailed(err)
		}
	}
	for _, id := range joined {
		subscribed[id] = true
		c.joined(id)
	}
	return failed
}

// leave unsubscribes from uploads, and returns those for which that has failed.
func (c *cluster) leave(ctx context.Context, subscribed map[string]bool, ids []string) (failed []string) {
	if len(ids) == 0 {
		return nil
	}
	if c.broker.Unsubscribe(ctx, channelsOf(ids)...) != nil {
		for _, id := range ids {
			subscribed[id] = false
		}
		return ids
	}
	for _, id := range ids {
		delete(subscribed, id)
	}
	return nil
}

// wanted reports whether this node should be subscribed to an upload, and forgets the interest in one that
// has been without subscribers for long enough.
func (c *cluster) wanted(id string) (wanted bool) {
	c.manager.registry.WithKnown(id, func(u *upload) {
		f := u.State.follow
		if f == nil {
			return
		}
		wanted = true
		switch wait := leaveDelay - time.Since(f.left); {
		case f.left.IsZero():
		case wait > 0:
			c.interest.AddAfter(id, wait)
		default:
			u.State.follow, u.State.log = nil, nil
			c.manager.account(u)
			wanted = false
		}
	})
	return wanted
}

// joined has an upload that this node is now subscribed to brought up to date, unless it is.
func (c *cluster) joined(id string) {
	c.manager.registry.WithKnown(id, func(u *upload) {
		f := u.State.follow
		if f == nil {
			return
		}
		f.joined = true
		if !f.live {
			c.catching.Add(f.id)
		}
	})
}

func channelsOf(ids []string) []string {
	channels := make([]string, len(ids))
	for i, id := range ids {
		channels[i] = uploadChannel + id
	}
	return channels
}
