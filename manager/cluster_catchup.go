package manager

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/internal/frame"
	"github.com/shoal-go/shoal/internal/history"
)

// maxAttempts is the number of reads of the broker's history that may leave a gap before the gap is final.
const maxAttempts = 3

// catchUp brings uploads up to date with the broker's history.
func (c *cluster) catchUp(ctx context.Context, _ int, ids []string) (again []string) {
	for _, id := range ids {
		if !c.catchUpOne(ctx, id) {
			again = append(again, id)
		}
	}
	return again
}

// catchUpOne brings one upload up to date and reports whether it is finished.
func (c *cluster) catchUpOne(ctx context.Context, id string) (done bool) {
	f, since, first := c.toCatchUp(id)
	if f == nil {
		return true
	}
	outages := c.outages.Load()
	kept, messages, err := c.readStored(ctx, id, since, first)
	if err != nil {
		c.readFailed(fmt.Errorf("upload %q: %w", id, err))
		c.refuse(id, err)
		return false
	}
	if kept.Epoch == "" { // the broker does not know yet that this node follows the upload
		return false
	}
	done = true
	var lost []Conn
	c.manager.registry.WithKnown(id, func(u *upload) {
		if u.State.follow == f { // an interest that began after the reading may have missed messages since
			if log := u.State.log; log == nil || log.Epoch() != kept.Epoch || outages != c.outages.Load() {
				f.dropUnidentified()
				f.epochReceipt = c.receipts.Load()
			}
			f.confirmed = outages
			lost = c.merge(u, kept, messages, since)
			f.partial = f.partial || first && kept.Floor > 0
			var gap []Conn
			done, gap = c.applyHeld(u, f)
			lost = append(lost, gap...)
		}
	})
	for _, conn := range lost {
		c.manager.guard.close(conn, TryAgainLater)
	}
	c.manager.enforceBounds()
	return done
}

// toCatchUp returns the follow state of an upload that must catch up, or nil. Until the node is subscribed the catch-up
// must wait: messages published after the read would be missed. first is true if the node has not read the upload yet.
func (c *cluster) toCatchUp(id string) (f *follow, since Position, first bool) {
	c.manager.registry.WithKnown(id, func(u *upload) {
		if is := u.State.follow; is != nil && is.joined && is.behind {
			is.again = false
			f = is
			if first = u.State.log == nil; !first && !is.reused {
				since = position(u.State.log)
			}
		}
	})
	return f, since, first
}

// merge brings the upload's log up to date: it appends the missed messages, or replaces the log if it cannot be
// continued. Then it sends the new position to shoal.v1 clients and every stored message that they have not received to
// base connections. It returns the base connections that missed messages which are no longer stored: the caller must
// close them. The upload's lock is held.
func (c *cluster) merge(u *upload, kept broker.Snapshot, messages []Encoded, since Position) (lost []Conn) {
	f, log, now := u.State.follow, u.State.log, time.Now()
	renumbered := log == nil || log.Epoch() != kept.Epoch || lostTail(kept, since) ||
		f.reused && differ(u, kept, messages)
	f.reused = false
	if !renumbered && kept.Floor <= log.Offset() {
		for i, s := range kept.Messages {
			if s.Offset > log.Offset() {
				c.appendStored(u, messages[i], s.Offset, storedAt(s, now), "")
			}
		}
		log.Advance(kept.Offset)
		return nil
	}
	before := logSizeOf(u)
	u.State.log = c.begin(u.ID(), kept, messages, now)
	f.partial = false
	if renumbered {
		f.arrived = 0
	}
	c.manager.account(u, before)
	if log == nil {
		return nil
	}
	c.counters.resets.Add(1)
	if complete := c.announceReset(u, log, renumbered); !complete || c.history == nil { // no history shows a gap
		lost = c.baseConns(u)
	}
	return lost
}

// lostTail reports whether the broker has lost its newest messages without a new epoch: it was asked after this node
// had reached a position, and is not there. Its next messages will have offsets that were used before.
func lostTail(kept broker.Snapshot, since Position) bool {
	return kept.Epoch == since.Epoch && kept.Offset < since.Offset
}

// differ reports whether the broker has stored another message at an offset that the log holds. The upload's lock is
// held.
func differ(u *upload, kept broker.Snapshot, messages []Encoded) bool {
	for i, s := range kept.Messages {
		stored := arrival{Message: broker.Message{Position: Position{Offset: s.Offset}}, encoded: messages[i]}
		if held, same := storedLike(u, stored); held && !same {
			return true
		}
	}
	return false
}

// baseConns returns the connections of an upload whose clients cannot recover, since they have no positions. The
// upload's lock is held.
func (c *cluster) baseConns(u *upload) (conns []Conn) {
	for _, r := range u.Receivers() {
		if p, ok := r.Conn.(PositionTracker); ok && !c.manager.guard.tracksPositions(p) {
			conns = append(conns, r.Conn)
		}
	}
	return conns
}

// announceReset notifies shoal.v1 clients that the upload's messages do not continue the ones that they have received,
// and sends them the newest message as a new start. Base connections, which have no positions, receive every message of
// the new log that the previous one does not show as delivered; complete reports that no message between the two is
// missing from the new log. renumbered tells that offsets of the two logs cannot be compared. A previous log that does
// not hold everything that was delivered may not show where a new one with older messages continues it: then base
// connections receive nothing, and it is not complete. The upload's lock is held.
func (c *cluster) announceReset(u *upload, before *history.Log[*frame.Frame], renumbered bool) (complete bool) {
	log := u.State.log
	newest, after := c.manager.newest(u)
	c.manager.bursts.send(u, subscribedFrame(u.ID(), position(log), false, after, newest == nil), nil)
	entries := log.All()
	first, found := firstNew(before, renumbered, entries)
	lost := before.Floor() > 0 && !found && renumbered && len(entries) > 0 &&
		!entries[0].At().After(before.Touched().Add(clockTolerance))
	if lost {
		first = len(entries)
	}
	for i, e := range entries {
		newest := i == len(entries)-1
		switch {
		case newest && i < first:
			c.manager.bursts.send(u, e.Message.V1Only(), nil)
		case newest:
			c.manager.bursts.send(u, e.Message, nil)
		case i >= first:
			c.manager.bursts.send(u, e.Message.BaseOnly(), nil)
		}
	}
	if !renumbered {
		return log.Floor() <= before.Offset()
	}
	return found || log.Floor() == 0 && !lost
}

// clockTolerance is the difference that the clocks of a node and of the broker may have for a message to be recognised.
const clockTolerance = 500 * time.Millisecond

// firstNew returns the index of the first of the entries that the log before them does not show as delivered. found
// reports that they continue a message of that log.
//
// Usually the offset tells. A broker that returned with its data, mostly under a new epoch, may have renumbered the
// messages, and may have lost the last of them. Then the newest message that is in both decides: all before it were
// delivered too. A message with the same text that was stored later than the other one arrived is not the same.
func firstNew(
	before *history.Log[*frame.Frame], renumbered bool, entries []history.Entry[*frame.Frame],
) (first int, found bool) {
	if !renumbered {
		for first < len(entries) && entries[first].Offset <= before.Offset() {
			first++
		}
		return first, first > 0
	}
	alike := make(map[string][]int, len(entries)) // indexes of entries by text
	for i, e := range entries {
		alike[string(e.Message.Body())] = append(alike[string(e.Message.Body())], i)
	}
	for _, old := range slices.Backward(before.All()) {
		for _, i := range slices.Backward(alike[string(old.Message.Body())]) {
			if !entries[i].At().After(old.At().Add(clockTolerance)) {
				return i + 1, true
			}
		}
	}
	return 0, false
}

// applyHeld delivers the messages held during the catch-up and reports whether the upload is up to date now. It returns
// the base connections that missed messages, for the caller to close. The upload's lock is held.
func (c *cluster) applyHeld(u *upload, f *follow) (done bool, lost []Conn) {
	if f.again {
		return false, nil
	}
	for i, a := range f.waiting {
		switch {
		case c.deliver(u, a):
		case f.attempts < maxAttempts:
			f.attempts++
			f.waiting = slices.Clone(f.waiting[i:])
			return false, lost
		default:
			lost = append(lost, c.skipGap(u, f, a)...)
		}
		f.waitingBytes -= len(a.Payload)
	}
	f.waiting, f.waitingBytes, f.behind, f.attempts = nil, 0, false, 0
	c.counters.recoveries.Add(1)
	if !f.live {
		f.live = true
		close(f.attempt.done)
	}
	return true, lost
}

// skipGap delivers a message despite the gap before it. It notifies shoal.v1 clients of the gap and returns the base
// connections, which the caller must close. A message of an outdated epoch is skipped. The upload's lock is held.
func (c *cluster) skipGap(u *upload, f *follow, a arrival) (lost []Conn) {
	epoch := u.State.log.Epoch()
	if a.Payload == nil || a.Epoch != "" && a.Epoch != epoch {
		return nil
	}
	before, size := u.State.log, logSizeOf(u)
	u.State.log = history.Begin[*frame.Frame](epoch, a.Prev, time.Now())
	c.manager.account(u, size)
	c.counters.resets.Add(1)
	if complete := c.announceReset(u, before, false); !complete {
		lost = c.baseConns(u)
	}
	c.deliver(u, a)
	return lost
}
