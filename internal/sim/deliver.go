package sim

import (
	"fmt"
	"slices"

	"github.com/shoal-go/shoal/broker"
)

// view is a connection's subscription to one upload, from the moment in which the client asks for it.
type view struct {
	upload int
	// claim is its number among the connection's subscriptions to the upload, from 1.
	claim int
	// confirmed (shoal.v1): the server has answered, so that epoch and offset are known. request is the newest
	// request for the upload, nil once it is answered.
	confirmed bool
	request   *request
	at        broker.Position // shoal.v1: the newest message that came, or the announced position
	seq       int             // base: the number of the newest message that came, 0: none yet
	// due (shoal.v1) is the offset of the newest message if it has to follow the last answer, 0 if it has come.
	due uint64
	// repeats is how often the newest message may come although the connection has had it: once after each answer.
	repeats int
	// unclear (shoal.v1) are the requests that the server may or may not have answered, or announced a
	// new start, which looks alike.
	unclear []*request
}

// deliver checks a message of an upload.
func (w *World) deliver(c *client, r received) {
	s := c.session
	e := w.account.find(r.body())
	if e == nil {
		w.fail("%s: a message that was never accepted: %q", c, r.Action)
		return
	}
	if u, named := r.upload(); named && u != e.upload {
		w.fail("%s: message %d of upload %d came as one of upload %d", c, e.body, e.upload, u)
	}
	if from, ok := s.narrowed[e.upload]; ok && e.seq > from && !s.mayAllow(e.upload) {
		w.fail("%s: message %d of upload %d, which its token does not allow", c, e.body, e.upload)
	}
	s.reached[e.upload] = max(s.reached[e.upload], e.seq)
	v := s.views[e.upload]
	switch {
	case v == nil:
	case s.v1 && r.Offset > 0:
		w.deliverAt(c, v, e, r)
	default:
		w.deliverInOrder(c, v, e)
	}
}

// mayAllow reports whether a token that is not confirmed yet allows an upload.
func (s *session) mayAllow(upload int) bool {
	return slices.ContainsFunc(s.renewals, func(g grant) bool { return g.allows(upload) })
}

// deliverAt checks a message with an offset.
func (w *World) deliverAt(c *client, v *view, e *entry, r received) {
	switch {
	case !v.confirmed:
		return
	case e.offset(v.at.Epoch) != r.Offset:
		w.fail("%s: offset %d of epoch %s came with message %d, whose positions are %v", c, r.Offset, v.at.Epoch, e.body,
			e.at)
	case r.Offset <= v.at.Offset:
		if v.repeats == 0 || w.newerThan(e, v.at) {
			w.fail("%s: offset %d of upload %d came after %d", c, r.Offset, e.upload, v.at.Offset)
		}
		v.repeats = 0
	default:
		states, problem := w.missing(e.upload, v.at, r.Offset)
		if problem != "" {
			w.fail("%s: offset %d of upload %d came after %d: %s", c, r.Offset, e.upload, v.at.Offset, problem)
		}
		if states > r.Skipped {
			w.fail("%s: offset %d of upload %d came after %d with skipped %d, but %d states are missing", c, r.Offset,
				e.upload, v.at.Offset, r.Skipped, states)
		}
		v.at.Offset, v.due, v.repeats = r.Offset, 0, 0
		c.at[e.upload] = v.at
	}
}

// newerThan reports whether a message newer than e, up to a position, is not lost.
func (w *World) newerThan(e *entry, at broker.Position) bool {
	for offset := e.offset(at.Epoch) + 1; offset <= at.Offset; offset++ {
		if other := w.account.spot(e.upload, at.Epoch, offset); other != nil && !other.lost {
			return true
		}
	}
	return false
}

// missing counts the states between two offsets, and describes the first message that must not be missing.
func (w *World) missing(upload int, at broker.Position, end uint64) (states int, problem string) {
	for offset := at.Offset + 1; offset < end; offset++ {
		switch e := w.account.spot(upload, at.Epoch, offset); {
		case e == nil:
		case e.class == state:
			states++
		default:
			return states, fmt.Sprintf("%s %d at offset %d is missing", e.class, e.body, offset)
		}
	}
	return states, ""
}

// deliverInOrder checks a message without an offset. Messages that were accepted before the subscription was made, but
// the newest, may be missing.
func (w *World) deliverInOrder(c *client, v *view, e *entry) {
	s := c.session
	switch {
	case v.seq == 0:
	case e.seq <= v.seq:
		states, problem := w.account.between(e.upload, e.seq, v.seq+1)
		if (v.repeats == 0 || e.seq < v.seq && (states > 0 || problem != "")) && !w.setBack() {
			w.fail("%s: message %d of upload %d came after message %d", c, e.seq, e.upload, v.seq)
		}
		v.repeats = max(0, v.repeats-1)
		return
	default:
		floor, claimed := s.observed.floor(e.upload, v.claim)
		if !claimed {
			break
		}
		states, problem := w.account.between(e.upload, max(v.seq, floor), e.seq)
		if states > 0 && !s.slow && w.cfg.Queue == 0 {
			problem = fmt.Sprintf("%d states are missing though the client has read all the time", states)
		}
		if problem != "" && s.gap == "" && !w.unstored(s.node) {
			s.gap = fmt.Sprintf("message %d of upload %d came after message %d: %s", e.seq, e.upload, v.seq, problem)
		}
	}
	v.seq = e.seq
}

// setBack reports whether the broker's clock was set back. A client without positions may then get messages again after
// a restart of the broker, since the times at which they were stored do not tell them from new ones with the same text.
func (w *World) setBack() bool {
	if w.hub == nil {
		return false
	}
	w.hub.mu.Lock()
	defer w.hub.mu.Unlock()
	return w.hub.setBack
}

// stepped reports whether the broker's clock was set, so that messages may look older than they are.
func (w *World) stepped() bool {
	if w.hub == nil {
		return false
	}
	w.hub.mu.Lock()
	defer w.hub.mu.Unlock()
	return w.hub.setBack || w.hub.ahead > 0
}

// unstored reports whether messages could be lost before they reached a node, since the broker stores none.
func (w *World) unstored(n *node) bool { return n.link != nil && !w.cfg.Stored && w.disturbed(n) }
