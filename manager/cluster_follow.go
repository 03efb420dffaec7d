package manager

import (
	"context"
	"fmt"
	"slices"
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
	// idleSince is when the last follower left the upload; zero while there is one. Every follower holds a pin.
	idleSince time.Time
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
	// reused is set when a message has arrived with the offset of another one that the log holds: the broker may have
	// lost its newest messages and numbered new ones alike.
	reused bool
	// arrived is the offset of the last message with one that has arrived, in the log's epoch.
	arrived uint64
	// epochReceipt is the number of the last message that was received before the log's epoch was known. A message up
	// to it that does not name its epoch may belong to the previous one.
	epochReceipt uint64
	// confirmed is the value of cluster.outages at the beginning of the last call that has shown the log's epoch to be
	// the broker's.
	confirmed uint64
}

// attempt is a subscription of the node that the upload's subscribers wait for.
type attempt struct {
	done chan struct{}
	err  error // set before done is closed: why the broker refuses
}

func newAttempt() *attempt { return &attempt{done: make(chan struct{})} }

// arrival is a validated message from the broker.
type arrival struct {
	broker.Message
	encoded Encoded // the zero value if the message must not be delivered
}

// follow makes this node follow uploads until release is called, and for as long as they have local subscribers. It
// blocks until messages published from now on, on any node, are guaranteed to arrive, or the broker has refused: then
// refused has the reasons by upload, which wrap ErrRefused. The error is ErrClosed, ctx's error, or wraps
// ErrUnavailable.
func (m *Manager) follow(
	ctx context.Context, uploadIDs ...string,
) (release func(), refused map[string]error, err error) {
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
		return failure(ctx.Err())
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
		f.idleSince = time.Time{}
		if !f.live {
			a = f.attempt
		}
	})
	return a
}

// refused hands a permanent error of the broker to the callers that are about to subscribe. The node goes on trying for
// as long as there are any. The upload's lock is held.
func (f *follow) refused(err error) {
	if !f.live {
		f.attempt.err = fmt.Errorf("%w: %w", ErrRefused, err)
		close(f.attempt.done)
		f.attempt = newAttempt()
	}
}

// lastFollowerLeft records that the upload has no subscriber. It is called for each such upload whose lock is about to
// be released.
func (f *follow) lastFollowerLeft() {
	if f.pins == 0 && f.idleSince.IsZero() {
		f.idleSince = time.Now()
		f.cluster.interest.AddAfter(f.id, leaveDelay)
	}
}

// continues reports whether a message may be delivered although the upload is catching up: it directly follows the last
// message that this node delivered, so nothing before it is missing.
func (f *follow) continues(u *upload, a arrival) bool {
	log := u.State.log
	return f.live && log != nil && len(f.waiting) == 0 && a.Payload != nil && a.Offset > log.Offset() &&
		a.Prev == log.Offset() && a.Epoch == log.Epoch()
}

// advance notes the offset of a message that arrives, and reports whether it is higher than those before it, as the
// messages of an epoch are.
func (f *follow) advance(u *upload, a arrival) (inOrder bool) {
	if log := u.State.log; log == nil || a.Epoch != "" && a.Epoch != log.Epoch() {
		return true
	}
	inOrder = a.Offset > f.arrived
	f.arrived = max(f.arrived, a.Offset)
	return inOrder
}

// maxWaiting is how many messages of an upload may wait while it is brought up to date.
const maxWaiting = 4096

// hold queues a message until the upload has caught up. At the bounds the oldest ones give way: the broker's history,
// which is read until it meets the held messages, has them, unless it is too short for the upload's rate.
func (f *follow) hold(a arrival) {
	for len(f.waiting) >= maxWaiting ||
		len(f.waiting) > 0 && f.waitingBytes+len(a.Payload) > f.cluster.manager.opt.HistoryBytes {
		f.waitingBytes -= len(f.waiting[0].Payload)
		f.waiting[0] = arrival{}
		f.waiting = f.waiting[1:]
	}
	f.waiting = append(f.waiting, a)
	f.waitingBytes += len(a.Payload)
}

// dropUnidentified drops held messages that do not name their epoch, because the epoch changes and they may belong to
// either: another read brings those of the new one.
func (f *follow) dropUnidentified() {
	f.waiting = slices.DeleteFunc(f.waiting, func(a arrival) bool {
		drop := a.Epoch == "" && a.Offset > 0
		if drop {
			f.waitingBytes -= len(a.Payload)
			f.again = true
		}
		return drop
	})
}
