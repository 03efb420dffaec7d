package manager

import (
	"context"
	"time"
)

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
			c.refuse(id, err)
		}
	}
	for _, id := range joined {
		subscribed[id] = true
		c.joined(id)
	}
	return failed
}

// refuse ends the attempt to follow an upload if a failed call of the broker would fail again.
func (c *cluster) refuse(id string, err error) {
	if err == nil || isPassing(err) {
		return
	}
	c.manager.registry.WithKnown(id, func(u *upload) {
		if f := u.State.follow; f != nil {
			f.refused(err)
		}
	})
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
		switch wait := leaveDelay - time.Since(f.idleSince); {
		case f.idleSince.IsZero():
		case wait > 0:
			c.interest.AddAfter(id, wait)
		default:
			before := logSizeOf(u)
			u.State.follow, u.State.log = nil, nil
			c.manager.account(u, before)
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
		if !f.live { // callers wait
			c.catching.AddFirst(f.id)
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
