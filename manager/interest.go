package manager

import (
	"context"
	"fmt"
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
	// attempt ends when the node is subscribed and the upload's log matches the broker's, or when the broker refuses.
	attempt *attempt
	live    bool // attempt has succeeded
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
	// partial is set while the broker may store messages before the ones that the log holds, and older is the read of
	// them that is in progress.
	partial bool
	older   *olderRead
	// arrived is the offset of the last message with one that has arrived, in the log's epoch.
	arrived uint64
	// epochReceipt is the number of the last message that was received before the log's epoch was known. A message up to
	// it that does not name its epoch may belong to the previous one.
	epochReceipt uint64
	// confirmed is the value of cluster.outages at the beginning of the last call that has shown the log's epoch to be the
	// broker's.
	confirmed uint64
}

// attempt is a subscription of the node that the upload's subscribers wait for.
type attempt struct {
	done chan struct{}
	err  error // set before done is closed: why the broker refuses
}

func newAttempt() *attempt { return &attempt{done: make(chan struct{})} }

// refused hands a permanent error of the broker to the callers that are about to subscribe. The node goes on trying for
// as long as there are any. The upload's lock is held.
func (f *follow) refused(err error) {
	if !f.live {
		f.attempt.err = fmt.Errorf("%w: %w", ErrRefused, err)
		close(f.attempt.done)
		f.attempt = newAttempt()
	}
}

// arrival is a validated message from the broker.
type arrival struct {
	broker.Message
	encoded Encoded // the zero value if the message must not be delivered
}

// follow makes this node follow uploads until release is called, and for as long as they have local subscribers. It
// blocks until messages published from now on, on any node, are guaranteed to arrive, or the broker has refused: then
// refused has the reasons by upload, which wrap ErrRefused. The error is ErrClosed, ctx's error, or wraps ErrUnavailable.
func (m *Manager) follow(ctx context.Context, uploadIDs ...string) (release func(), refused map[string]error, err error) {
	if m.cluster == nil {
		return func() {}, nil, nil
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	release = func() {
		for _, id := range uploadIDs {
			m.registry.WithKnown(id, func(u *upload) { u.State.follow.pins-- })
		}
	}
	attempts := make([]*attempt, len(uploadIDs))
	for i, id := range uploadIDs {
		attempts[i] = m.cluster.pin(id)
	}
	for i, a := range attempts {
		if a == nil {
			continue
		}
		if err := m.await(ctx, a.done); err != nil {
			release()
			return nil, nil, err
		}
		if a.err != nil {
			if refused == nil {
				refused = make(map[string]error)
			}
			refused[uploadIDs[i]] = a.err
		}
	}
	return release, refused, nil
}

// followOne is follow for one upload, with its refusal as the error.
func (m *Manager) followOne(ctx context.Context, uploadID string) (release func(), err error) {
	release, refused, err := m.follow(ctx, uploadID)
	if err != nil {
		return nil, err
	}
	if err := refused[uploadID]; err != nil {
		release()
		return nil, err
	}
	return release, nil
}

// await blocks until done is closed, ctx ends, or the manager is closed.
func (m *Manager) await(ctx context.Context, done <-chan struct{}) error {
	select {
	case <-done:
		return nil
	case <-m.stop:
		return ErrClosed
	case <-ctx.Done():
		return unavailable(ctx.Err())
	}
}

// pin keeps an upload followed and returns the attempt to wait for, or nil if the upload is up to date.
func (c *cluster) pin(id string) (a *attempt) {
	c.manager.registry.With(id, func(u *upload) {
		f := u.State.follow
		if f == nil {
			f = &follow{cluster: c, id: u.ID(), attempt: newAttempt(), behind: true}
			u.State.follow = f
			c.interest.Add(f.id)
		}
		f.pins++
		f.left = time.Time{}
		if !f.live {
			a = f.attempt
		}
	})
	return a
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
		switch wait := leaveDelay - time.Since(f.left); {
		case f.left.IsZero():
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
