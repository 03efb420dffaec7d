package sim

import (
	"maps"
	"slices"
	"time"

	"github.com/shoal-go/shoal/broker"
)

// receive checks one message of a client.
func (w *World) receive(c *client, r received) {
	s := c.session
	switch r.Action {
	case "auth_success":
		w.succeeded(s)
	case "subscribed":
		if u, ok := r.upload(); ok {
			w.subscribed(c, u, answer{broker.Position{Epoch: r.Epoch, Offset: r.Offset}, r.Recovery, r.Expired})
		}
	case "resumed":
		w.resumed(c, r)
	case "unsubscribed":
		if u, ok := r.upload(); ok {
			w.unsubscribed(c, u)
		}
	case "error":
		w.refused(c, r)
	case "reconnect":
		s.toldToReconnect = true
	case "auth_error":
	case "note", "upload_progress", "upload_completed":
		w.deliver(c, r)
	default:
		w.fail("%s: unknown action %q", c, r.Action)
	}
}

// succeeded handles auth_success: the answer to the first token, then to each renewal.
func (w *World) succeeded(s *session) {
	if !s.entered {
		s.entered, s.admitted = true, time.Now()
		return
	}
	if len(s.renewals) > 0 {
		w.narrow(s, s.renewals[0])
		s.renewals = s.renewals[1:]
	}
}

// narrow applies the rights of a token that the server has confirmed.
func (w *World) narrow(s *session, g grant) {
	s.expires = g.expires
	for u := range Uploads {
		switch _, narrowed := s.narrowed[u]; {
		case g.allows(u):
			delete(s.narrowed, u)
		case !narrowed:
			s.narrowed[u] = w.account.last(u)
		}
	}
}

// answer is where an upload stands, as the server announces it.
type answer struct {
	at                 broker.Position
	recovered, expired bool
}

// subscribed handles the answer to a subscription, or a new start that nobody has asked for. Where both are possible,
// the first to come counts as the answer, and the other one has to have its consequences.
func (w *World) subscribed(c *client, upload int, a answer) {
	s := c.session
	r := s.asked.subscription(upload, a.at, a.recovered)
	v := s.views[upload]
	switch {
	case r != nil:
		s.asked.remove(r)
		w.position(c, r, a)
		if !a.recovered && r.view == v && v != nil && w.mayBeginAgain(s, upload) {
			v.unclear = append(v.unclear, r)
		}
	case v != nil && len(v.unclear) > 0 && (!a.recovered || v.unclear[0].continues(a.at)):
		r = v.unclear[0]
		v.unclear = v.unclear[1:]
		w.apply(c, v, r, a)
	case a.recovered:
		w.fail("%s: recovered upload %d up to %v, which it has not asked for", c, upload, a.at)
	case v != nil && v.confirmed:
		if !w.mayBeginAgain(s, upload) {
			w.fail("%s: upload %d begins again at %v after %v, though nothing was lost", c, upload, a.at, v.at)
		}
		w.begin(c, v, a)
	}
}

// mayBeginAgain reports whether messages can be missing, so that the client gets a new position unasked: after a fault
// of the broker, after the upload was forgotten, or because the history is shorter than the client's backlog.
func (w *World) mayBeginAgain(s *session, upload int) bool {
	return s.slow || w.cfg.Recovery > 0 || w.forgotten[upload] || s.node.link != nil && w.disturbed(s.node)
}

// resumed handles the answer to the oldest resume. It names all uploads that are not answered with errors.
func (w *World) resumed(c *client, r received) {
	s := c.session
	if len(s.asked.resumes) == 0 {
		w.fail("%s: resumed, but the client has not asked for it", c)
		return
	}
	asked := s.asked.resumes[0]
	s.asked.resumes = s.asked.resumes[1:]
	for _, id := range slices.Sorted(maps.Keys(r.Uploads)) {
		at := r.Uploads[id]
		u, _ := uploadNumber(id)
		a := answer{broker.Position{Epoch: at.Epoch, Offset: at.Offset}, at.Recovered, at.Expired}
		switch q := asked.requests[u]; {
		case q == nil || !q.allowed || !s.asked.remove(q):
			w.fail("%s: resumed %q, which the client has not asked for or must not follow", c, id)
		case a.recovered && !q.continues(a.at):
			w.fail("%s: recovered up to %v, but the client has asked for %v", c, a.at, *q.since)
		default:
			w.position(c, q, a)
		}
	}
}

// position handles the answer to a request. The messages follow the answer to the newest request for the upload. None
// need follow if the client has unsubscribed since then.
func (w *World) position(c *client, r *request, a answer) {
	v := c.session.views[r.upload]
	if v == nil || r.view != v {
		return
	}
	newest := v.request == r
	if newest {
		v.request = nil
	}
	if !newest && v.request == nil {
		return // its answer was overtaken by the one to a later request
	}
	w.apply(c, v, r, a)
}

// apply takes over the position of an answer.
func (w *World) apply(c *client, v *view, r *request, a answer) {
	if a.recovered {
		if a.expired {
			w.fail("%s: upload %d is recovered, but its newest message has expired", c, r.upload)
		}
		v.at, v.due, v.repeats, v.confirmed = *r.since, 0, 0, true
		c.at[v.upload] = v.at
		return
	}
	if r.continues(a.at) && w.holds(c.session.node, r, a.at) {
		w.fail("%s: upload %d does not continue %v, but is at %v, though all messages in between are held", c, r.upload,
			*r.since, a.at)
	}
	w.begin(c, v, a)
}

// holds reports whether a node certainly holds all messages between a request's position and another one.
func (w *World) holds(n *node, r *request, at broker.Position) bool {
	return w.cfg.positions() && !w.stepped() && !(n.link != nil && w.disturbed(n)) &&
		at.Offset-r.since.Offset <= uint64(w.cfg.History) && w.account.held(r.upload, *r.since, at) //nolint:gosec // small
}

// begin handles a position that does not continue what the client has received. Unless the client has had the newest
// message, or that has expired, the position is the one before it: the message must come.
func (w *World) begin(c *client, v *view, a answer) {
	had := v.confirmed && v.at.Epoch == a.at.Epoch && v.at.Offset >= a.at.Offset && v.due == 0
	v.at, v.due, v.confirmed = a.at, 0, true
	if v.repeats++; w.cfg.positions() {
		v.repeats = 1
	}
	if e := w.account.spot(v.upload, a.at.Epoch, a.at.Offset); a.expired && e != nil && !e.gone() && !w.stepped() &&
		!(c.session.node.link != nil && w.disturbed(c.session.node)) {
		w.fail("%s: message %d, the newest of upload %d, is held, but the answer says that it has expired", c, e.body,
			v.upload)
	}
	if !a.expired && a.at.Offset > 0 && !had && !c.session.unsure[v.upload] {
		v.due = v.at.Offset
		v.at.Offset--
	}
	c.at[v.upload] = v.at
}

// unsubscribed handles the answer to an unsubscribe, or the end of a subscription that a new token does not allow.
func (w *World) unsubscribed(c *client, upload int) {
	s := c.session
	r, before := s.asked.end(upload)
	if r == nil {
		w.fail("%s: unsubscribed from upload %d, which the client has not asked for", c, upload)
		return
	}
	if before > 0 {
		w.fail("%s: unsubscribed from upload %d, but %d earlier requests are not answered", c, upload, before)
	}
	s.asked.remove(r)
}

// refused handles the error that answers one subscription, or a whole resume.
func (w *World) refused(c *client, r received) {
	s := c.session
	if r.Code != "forbidden" && (r.Code != "internal" || !w.mayRefuse(s.node)) {
		w.fail("%s: error %q, which nothing explains", c, r.Code)
		return
	}
	upload, one := r.upload()
	if one {
		q := s.asked.refused(upload, r.Code == "forbidden")
		if q == nil && w.mayBeginAgain(s, upload) {
			return // a new position, which came unasked, was taken for the answer
		}
		if q == nil {
			w.fail("%s: error %q for upload %d, which the client has not asked for", c, r.Code, upload)
			return
		}
		w.refuse(s, q)
		return
	}
	if len(s.asked.resumes) == 0 {
		w.fail("%s: error %q without an upload, but the client has not resumed", c, r.Code)
		return
	}
	for _, q := range s.asked.resumes[0].requests {
		w.refuse(s, q)
	}
	s.asked.resumes = s.asked.resumes[1:]
}

// mayRefuse reports whether a node may be unable to subscribe to an upload.
func (w *World) mayRefuse(n *node) bool {
	return n.leaving.Load() || n.doubted.Load() || n.link != nil && w.disturbed(n)
}

// refuse handles the refusal of a request. Subscriptions that exist already remain.
func (w *World) refuse(s *session, q *request) {
	v := s.views[q.upload]
	if !s.asked.remove(q) || !q.allowed {
		return
	}
	if slices.ContainsFunc(s.asked.uploads[q.upload], func(r *request) bool { return r.view == q.view }) {
		// Answers to several requests may overtake each other, so that another one may have been refused.
		s.unsure[q.upload] = true
	}
	if v == nil || q.view != v {
		s.asked.withdraw(q.upload)
		return
	}
	if v.request == q {
		v.request = nil
	}
	if !v.confirmed {
		delete(s.views, q.upload)
		s.asked.withdraw(q.upload)
	}
}
