package manager

import (
	"context"
	"slices"
	"time"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/internal/frame"
	"github.com/shoal-go/shoal/internal/history"
)

// maxAttempts is how often what the broker keeps may leave a gap before the gap is taken as final.
const maxAttempts = 3

// catchUp brings an upload up to date with what the broker keeps of it, or has all of them brought so.
func (c *cluster) catchUp(ctx context.Context, _ int, ids []string) (again []string) {
	for _, id := range ids {
		if id == allUploads {
			c.manager.registry.EachUpload(c.fallBehind)
			continue
		}
		if !c.catch(ctx, id) {
			again = append(again, id)
		}
	}
	return again
}

// catch does that for one upload, and reports whether nothing is left to do.
func (c *cluster) catch(ctx context.Context, id string) (done bool) {
	f := c.toCatchUp(id)
	if f == nil {
		return true
	}
	kept, err := c.kept(ctx, id)
	if err != nil {
		return false
	}
	messages := c.lookAtKept(id, kept)
	done = true
	c.manager.registry.WithKnown(id, func(u *upload) {
		if u.State.follow == f { // not one that has begun meanwhile, which may have missed what came since
			c.merge(u, kept, messages)
			done = c.settle(u, f)
		}
	})
	return done
}

// toCatchUp returns the interest in an upload that must be brought up to date, or nil. As long as the node is
// not subscribed it must wait: what comes after the reading would be missed.
func (c *cluster) toCatchUp(id string) (f *follow) {
	c.manager.registry.WithKnown(id, func(u *upload) {
		if is := u.State.follow; is != nil && is.joined && is.behind {
			is.again = false
			f = is
		}
	})
	return f
}

// kept reads what the broker keeps of an upload. If it keeps nothing, this node begins an epoch of its own.
func (c *cluster) kept(ctx context.Context, id string) (broker.Snapshot, error) {
	if c.keeper == nil {
		return broker.Snapshot{Position: broker.Position{Epoch: c.manager.newEpoch()}}, nil
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	return c.keeper.History(ctx, uploadChannel+id)
}

// lookAtKept validates the messages, in their order.
func (c *cluster) lookAtKept(id string, kept broker.Snapshot) []Encoded {
	messages := make([]Encoded, len(kept.Messages))
	for i, s := range kept.Messages {
		messages[i], _ = c.look(id, s.Payload) // the zero value where it will not do
	}
	return messages
}

// merge brings the upload's log up to date: by what it has missed, or by a new beginning where the log cannot
// be continued, which subscribers are told. The upload's lock is held.
func (c *cluster) merge(u *upload, kept broker.Snapshot, messages []Encoded) {
	log, now := u.State.log, time.Now()
	if log != nil && log.Epoch() == kept.Epoch && kept.Floor <= log.Offset() {
		for i, s := range kept.Messages {
			if s.Offset > log.Offset() {
				c.append(u, messages[i], s.Offset, storedAt(s, now))
			}
		}
		log.Advance(kept.Offset)
		return
	}
	u.State.log = c.begin(u.ID(), kept, messages, now)
	if log != nil {
		c.counters.resets.Add(1)
		c.announce(u)
	}
}

// begin returns a log of what the broker keeps of an upload.
func (c *cluster) begin(
	id string, kept broker.Snapshot, messages []Encoded, now time.Time,
) *history.Log[*frame.Frame] {
	log := history.Begin[*frame.Frame](kept.Epoch, kept.Floor, now)
	for i, s := range kept.Messages {
		if messages[i].payload != nil && s.Offset > log.Offset() {
			f := frame.ForUpload(id, messages[i].class, s.Offset, messages[i].payload)
			log.Append(s.Offset, f, f.Size(), storedAt(s, now), c.manager.limits)
		}
	}
	log.Advance(kept.Offset)
	return log
}

// storedAt is when a message was stored, by a clock that may go ahead of ours.
func storedAt(s broker.Stored, now time.Time) time.Time {
	if s.At.IsZero() || s.At.After(now) {
		return now
	}
	return s.At
}

// announce tells the subscribers that what comes now does not continue what they had, and how the upload
// stands. The upload's lock is held.
func (c *cluster) announce(u *upload) {
	c.manager.relay.send(u, subscribedFrame(u.ID(), position(u.State.log), false))
	if e, ok := u.State.log.Newest(); ok {
		c.manager.relay.send(u, e.Message)
	}
}

// settle takes what has come meanwhile, and reports whether the upload is up to date now. The upload's lock is
// held.
func (c *cluster) settle(u *upload, f *follow) (done bool) {
	if f.again {
		return false
	}
	for i, a := range f.waiting {
		switch {
		case c.take(u, a):
		case f.attempts < maxAttempts:
			f.attempts++
			f.waiting = slices.Clone(f.waiting[i:])
			return false
		default:
			c.giveUp(u, a)
		}
		f.waitingBytes -= len(a.Payload)
	}
	f.waiting, f.waitingBytes, f.behind, f.attempts = nil, 0, false, 0
	c.counters.recoveries.Add(1)
	if !f.live {
		f.live = true
		close(f.ready)
	}
	return true
}

// giveUp goes on with a message although what is kept does not lead up to it, and tells subscribers. One of
// an epoch that the broker knows no more is left out. The upload's lock is held.
func (c *cluster) giveUp(u *upload, a arrival) {
	epoch := u.State.log.Epoch()
	if a.Payload == nil || a.Epoch != "" && a.Epoch != epoch {
		return
	}
	u.State.log = history.Begin[*frame.Frame](epoch, a.Prev, time.Now())
	c.counters.resets.Add(1)
	c.announce(u)
	c.take(u, a)
}
