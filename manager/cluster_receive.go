package manager

import (
	"bytes"
	"strings"
	"time"
)

// arrived handles a message from the broker. It runs on the goroutines of the dispatch queue.
func (c *cluster) arrived(b queued) {
	id, ok := strings.CutPrefix(b.Channel, uploadChannel)
	if !ok {
		return
	}
	c.counters.received.Add(1)
	a := arrival{Message: b.Message}
	if b.Payload != nil {
		var err error
		if a.encoded, err = c.parseRemote(id, b.Payload); err != nil && b.Offset == 0 {
			return
		}
		// An invalid stored message still occupies its offset.
		if err == nil {
			c.manager.counters.byBroker.add(a.encoded.class)
		}
	}
	c.manager.registry.WithKnown(id, func(u *upload) {
		f := u.State.follow
		if f == nil {
			return
		}
		unconfirmed := u.State.log != nil && f.confirmed != c.outages.Load()
		if a.Epoch == "" && a.Offset > 0 && (b.receipt <= f.epochReceipt || unconfirmed) {
			// It was queued while the epoch changed, or after an outage that may have changed it, and may belong to
			// either epoch. The broker has stored it if it is new.
			if _, same := storedLike(u, a); !same {
				c.fallBehind(u)
			}
			return
		}
		switch inOrder := f.advance(u, a); {
		case f.behind && !f.continues(u, a):
			f.hold(a)
		case !isKnown(u, a, inOrder):
			// After the engine has lost its data it may be another message with a number that was used before, so the
			// epoch is read again.
			held, same := storedLike(u, a)
			f.reused = f.reused || held && !same
			f.hold(a)
			c.fallBehind(u)
		case !c.deliver(u, a):
			f.hold(a)
			c.fallBehind(u)
		}
	})
	c.manager.enforceBounds()
}

// parseRemote validates a message that arrived for an upload. An invalid message is counted, and logged without its
// payload. The id needs no check: only uploads that callers have named, with an id that was validated then, receive
// messages.
func (c *cluster) parseRemote(id string, payload []byte) (Encoded, error) {
	e, err := c.manager.vocabulary.parseRemote(id, payload, c.manager.opt.MaxMessageBytes)
	if err != nil {
		c.refused(uploadChannel+id, err)
	}
	return e, err
}

// isKnown reports whether a message at an offset that the log has passed is the one that a catch-up has delivered
// already: it arrives in order, and the log holds the same message at its offset, or none. It is true for all messages
// beyond the log.
func isKnown(u *upload, a arrival, inOrder bool) bool {
	log := u.State.log
	if log == nil || a.Offset == 0 || a.Payload == nil || a.Offset > log.Offset() ||
		a.Epoch != "" && a.Epoch != log.Epoch() {
		return true
	}
	held, same := storedLike(u, a)
	return inOrder && (same || !held)
}

// storedLike reports whether the log holds a message at the offset of one that arrived, and whether it is the same.
func storedLike(u *upload, a arrival) (held, same bool) {
	log := u.State.log
	entries, ok := log.Since(log.Epoch(), a.Offset-1)
	if !ok || len(entries) == 0 || entries[0].Offset != a.Offset {
		return false, false
	}
	return true, bytes.Equal(entries[0].Message.Body(), a.encoded.payload)
}

// deliver sends a message to this node's subscribers and reports whether that was possible. It was not if earlier
// messages are missing, or if the message belongs to another epoch. The upload's lock is held.
func (c *cluster) deliver(u *upload, a arrival) (ok bool) {
	log := u.State.log
	switch {
	case a.Epoch != "" && a.Epoch != log.Epoch(), a.Prev > log.Offset():
		return false
	case a.Payload == nil: // the epoch is known already
	case a.Offset == 0:
		c.deliverUnnumbered(u, a)
	case a.Offset > log.Offset(): // else this node has had it
		c.appendStored(u, a.encoded, a.Offset, time.Now(), a.Trace)
	}
	return true
}

// appendStored adds a stored message to the upload's log and delivers it to the subscribers. The upload's lock is held.
func (c *cluster) appendStored(u *upload, e Encoded, offset uint64, at time.Time, trace string) {
	if e.payload == nil {
		u.State.log.Advance(offset)
		return
	}
	c.manager.bursts.send(u, c.manager.keep(u, e, offset, at, trace), nil)
}

// deliverUnnumbered sends a message without an offset to the subscribers and makes it the newest one for late
// subscribers. The upload's lock is held.
func (c *cluster) deliverUnnumbered(u *upload, a arrival) {
	f := c.manager.tracing.follow(a.encoded.frame(u.ID(), Position{}), a.Trace)
	before := logSizeOf(u)
	u.State.log.SetLatest(f, f.Size(), time.Now())
	c.manager.account(u, before)
	c.manager.bursts.send(u, f, nil)
}

// fallBehind has an upload brought up to date. Its lock is held.
func (c *cluster) fallBehind(u *upload) {
	switch f := u.State.follow; {
	case f == nil:
	case f.behind:
		f.again = true
	default:
		f.behind = true
		c.catching.Add(f.id)
	}
}
