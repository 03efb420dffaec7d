package sim

import (
	"fmt"
	"time"

	"github.com/shoal-go/shoal/broker"
)

// view is a connection's state of one upload.
type view struct {
	// claimed: the connection has a subscription of its own, and thus must not miss anything.
	claimed bool
	// confirmed (shoal.v1): the server has answered, so that epoch and offset are known.
	confirmed bool
	since     broker.Position // of the pending subscription
	at        broker.Position // shoal.v1: the newest message that came, or the announced position
	seq       int             // base: the number of the newest message that came, 0: none yet
	// repeat: the newest message may come although the connection has had it.
	repeat bool
}

// look compares everything that the clients have received with the account. The bubble is idle.
func (w *World) look() {
	for _, c := range w.clients {
		s := c.session
		if s == nil || w.violation != "" {
			continue
		}
		for _, r := range s.take() {
			w.receive(c, r)
		}
		w.lookAtEnd(c)
		w.lookAtToken(c)
		w.endRepeats(s)
		if s.gap != "" && s.open() && !s.slow { // a close frame comes with the messages behind a gap, if it comes
			w.fail("%s: %s, and the connection stays open", c, s.gap)
		}
	}
	for _, n := range w.nodes {
		w.lookAtNode(n)
	}
}

// endRepeats notes that a client without positions has got the newest message of each upload that it has asked for,
// which may have been a repetition.
func (w *World) endRepeats(s *session) {
	if s.slow || w.delayed(s.node) {
		return
	}
	for _, v := range s.views {
		v.repeat = v.repeat && s.v1
	}
}

func (w *World) lookAtNode(n *node) {
	if problem := n.problem.Load(); problem != nil {
		w.fail("%s", *problem)
	}
	if n.publishing.Load() > 0 && !n.leaving.Load() && !w.delayed(n) {
		w.fail("publishing waits for a client")
	}
	if panics := n.server.Stats().Panics; panics > 0 {
		w.fail("%d panics in a server", panics)
	}
}

// receive checks one message of a client.
func (w *World) receive(c *client, r received) {
	s := c.session
	switch r.Action {
	case "auth_success":
		s.entered = true
		if len(s.renewals) > 0 {
			w.narrow(s, s.renewals[0])
			s.renewals = s.renewals[1:]
		}
	case "subscribed":
		if u, ok := r.upload(); ok {
			w.position(c, u, broker.Position{Epoch: r.Epoch, Offset: r.Offset}, r.Recovery)
		}
	case "resumed":
		for id, at := range r.Uploads {
			if u, ok := uploadNumber(id); ok {
				w.position(c, u, broker.Position{Epoch: at.Epoch, Offset: at.Offset}, at.Recovered)
			}
		}
	case "error":
		w.refused(s, r)
		if r.Code == "bad_request" || r.Code == "unknown_action" {
			w.fail("%s: error %s", c, r.Code)
		}
	case "unsubscribed", "auth_error", "reconnect":
	case "note", "upload_progress", "upload_completed":
		w.deliver(c, r)
	default:
		w.fail("%s: unknown action %q", c, r.Action)
	}
}

// refused handles the error of one subscription, or of a whole resume.
func (w *World) refused(s *session, r received) {
	upload, one := r.upload()
	for u, v := range s.views {
		if one && u == upload || !one && !v.confirmed {
			delete(s.views, u)
		}
	}
}

// position handles an announced position: the answer to a subscription, or a new start.
func (w *World) position(c *client, upload int, at broker.Position, recovered bool) {
	v := c.session.views[upload]
	if v == nil || !v.claimed {
		return // of another connection of the user, or unsubscribed
	}
	if recovered {
		if at.Epoch != v.since.Epoch || at.Offset < v.since.Offset {
			w.fail("%s: recovered from %v, but the client has asked for %v", c, at, v.since)
		}
		v.at, v.repeat = v.since, false
	} else {
		v.at, v.repeat = at, true
	}
	v.confirmed = true
	c.at[upload] = v.at
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
	if from, ok := s.narrowed[e.upload]; ok && e.seq > from {
		w.fail("%s: message %d of upload %d, which its token does not allow", c, e.body, e.upload)
	}
	v := s.views[e.upload]
	switch {
	case v == nil || !v.claimed:
	case s.v1 && r.Offset > 0:
		w.deliverAt(c, v, e, r)
	default:
		w.deliverInOrder(c, v, e)
	}
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
		if !v.repeat || w.newerThan(e, v.at) {
			w.fail("%s: offset %d of upload %d came after %d", c, r.Offset, e.upload, v.at.Offset)
		}
		v.repeat = false
	default:
		states, problem := w.missing(e.upload, v.at, r.Offset)
		if problem != "" {
			w.fail("%s: offset %d of upload %d came after %d: %s", c, r.Offset, e.upload, v.at.Offset, problem)
		}
		if states > r.Skipped {
			w.fail("%s: offset %d of upload %d came after %d with skipped %d, but %d states are missing", c, r.Offset,
				e.upload, v.at.Offset, r.Skipped, states)
		}
		v.at.Offset, v.repeat = r.Offset, false
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

// deliverInOrder checks a message without an offset.
func (w *World) deliverInOrder(c *client, v *view, e *entry) {
	s := c.session
	switch {
	case v.seq == 0:
	case e.seq <= v.seq:
		states, problem := w.account.between(e.upload, e.seq, v.seq+1)
		if (!v.repeat || e.seq < v.seq && (states > 0 || problem != "")) && !w.setBack() {
			w.fail("%s: message %d of upload %d came after message %d", c, e.seq, e.upload, v.seq)
		}
		v.repeat = false
		return
	default:
		states, problem := w.account.between(e.upload, v.seq, e.seq)
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

// unstored reports whether messages could be lost before they reached a node, since the broker stores none.
func (w *World) unstored(n *node) bool { return n.link != nil && !w.cfg.Stored && w.disturbed(n) }

// narrow applies the rights of a renewed token that the server has confirmed.
func (w *World) narrow(s *session, g grant) {
	s.expires, s.rights = g.expires, g.rights
	if !w.cfg.Claims {
		return
	}
	for u := range Uploads {
		switch _, narrowed := s.narrowed[u]; {
		case g.rights&(1<<u) != 0:
			delete(s.narrowed, u)
		case !narrowed:
			s.narrowed[u] = w.account.last(u)
			delete(s.views, u)
		}
	}
}

// lookAtToken checks that a connection ends with its token.
func (w *World) lookAtToken(c *client) {
	s := c.session
	const tolerance = closeTimeout + 2*time.Second
	if s.entered && s.open() && !s.slow && !s.expires.IsZero() && time.Since(s.expires) > tolerance {
		w.fail("%s: open %v after the end of its token", c, time.Since(s.expires))
	}
}

// lookAtEnd checks how a connection has ended.
func (w *World) lookAtEnd(c *client) {
	s := c.session
	ended, code, refused, text, malformed := s.status()
	if malformed != "" {
		w.fail("%s: the server sent malformed bytes: %s", c, malformed)
	}
	if s.handled || !ended && code == 0 {
		return
	}
	s.handled = true
	n := s.node
	explained := false
	switch code {
	case 0:
		explained = s.excused || s.slow || n.crashed.Load() || refused == 503 && n.leaving.Load() ||
			n.leaving.Load() && !s.entered
	case 1000:
		explained = w.kicked[c.user] || s.excused
	case 1001, 1008:
		explained = code == 1001 && s.slow
	case 1011:
		explained = n.link != nil && w.readRefused(n)
	case 1012:
		explained = n.leaving.Load()
	case 1013:
		explained = s.slow || w.cfg.Queue > 0 || n.leaving.Load() || n.link != nil && w.disturbed(n)
	case 4003:
		for _, g := range append(s.renewals, grant{expires: s.expires}) {
			explained = explained || !g.expires.IsZero() && !time.Now().Before(g.expires)
		}
	case 4001:
		explained = s.slow
	}
	if !explained {
		w.fail("%s: ended with code %d %q (refused: %d), which nothing explains", c, code, text, refused)
	}
}

// caughtUp checks that every connection has the newest message of each upload that it follows. It holds some time after
// all faults were repaired. Connections that exempt names are left out.
func (w *World) caughtUp(exempt func(*session) bool) {
	for _, c := range w.clients {
		s := c.session
		if s == nil || !s.open() || !s.entered || exempt(s) {
			continue
		}
		if s.gap != "" {
			w.fail("%s: %s, and the connection stays open", c, s.gap)
		}
		for upload, v := range s.views {
			newest := w.account.newest(upload)
			switch {
			case !v.claimed || newest == nil:
			case s.v1 && w.cfg.positions():
				if !v.confirmed {
					w.fail("%s: the subscription to upload %d was never answered", c, upload)
				} else if want := newest.offset(v.at.Epoch); want == 0 || want > v.at.Offset {
					w.fail("%s: is at %v of upload %d, whose newest message is %d at %v", c, v.at, upload, newest.body, newest.at)
				}
			case v.seq < newest.seq && (w.cfg.positions() || v.seq > 0):
				w.fail("%s: has message %d of upload %d, whose newest is %d (%s)", c, v.seq, upload, newest.seq, newest.class)
			}
		}
	}
}
