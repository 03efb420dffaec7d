package sim

import (
	"time"

	"github.com/shoal-go/shoal/broker"
)

// connect opens a connection of a client, in the place of one that it has.
func (w *World) connect(c *client, n *node, op Op) {
	if op.Kind == resume && c.session != nil {
		n = c.session.node
	}
	if c.session != nil {
		w.disconnect(c, op)
		w.idle()
	}
	g := w.grant(op)
	w.dials += 2
	s := dial(n, op.seed+w.dials, w.cfg.TLS, c.v1, newObserved(w.account))
	c.session = s
	s.show(c.user, g)
	w.narrow(s, s.shown)
	w.follow(c)
}

// grant returns the content of an operation's token.
func (w *World) grant(op Op) grant {
	g := grant{rights: 1<<Uploads - 1}
	if !w.cfg.Claims {
		return g
	}
	if life := op.lifetime(); life > 0 {
		g.expires = time.Now().Add(life)
	}
	g.rights = op.rights()
	return g
}

// show sends a token.
func (s *session) show(user string, g grant) {
	s.shown = s.node.granted(g)
	s.send(map[string]any{"type": "auth", "token": token(user, s.id, g)})
}

// follow subscribes a connection to everything that its client wants.
func (w *World) follow(c *client) {
	if !c.v1 {
		for _, u := range c.wanted() {
			w.subscribe(c, u)
		}
		return
	}
	asked := &resumption{requests: map[int]*request{}}
	uploads := map[string]broker.Position{}
	for _, u := range c.wanted() {
		at := c.at[u]
		uploads[uploadID(u)] = at
		asked.requests[u] = c.session.ask(&request{upload: u, resume: asked, since: &at})
	}
	if len(uploads) > 0 {
		c.session.asked.resumes = append(c.session.asked.resumes, asked)
		c.session.send(map[string]any{"action": "resume", "uploads": uploads})
	}
}

func (w *World) subscribe(c *client, upload int) {
	c.wants[upload] = true
	if s := c.session; s != nil && s.open() {
		s.ask(&request{upload: upload})
		s.send(map[string]any{"action": "subscribe_upload", "upload_id": uploadID(upload)})
	}
}

// subscribeSince subscribes from the newest position that the client has had, also if it has unsubscribed since then.
func (w *World) subscribeSince(c *client, upload int) {
	at, known := c.at[upload]
	if s := c.session; !known || s == nil || !s.open() {
		w.subscribe(c, upload)
		return
	}
	c.wants[upload] = true
	c.session.ask(&request{upload: upload, since: &at})
	c.session.send(map[string]any{"action": "subscribe_upload", "upload_id": uploadID(upload), "since": at})
}

// ask notes that the client asks for a subscription. The newest token that it has sent decides whether it is allowed,
// also if that token is not confirmed yet: the server handles the messages of a connection one after the other.
func (s *session) ask(r *request) *request {
	if r.allowed = s.shown.allows(r.upload); r.allowed {
		v := s.views[r.upload]
		if v == nil {
			s.claims[r.upload]++
			v = &view{upload: r.upload, claim: s.claims[r.upload], repeats: 1 + s.repeats[r.upload]}
			s.views[r.upload] = v
		}
		r.view, v.request = v, r
	}
	if s.v1 {
		s.asked.add(r)
	}
	return r
}

func (w *World) unsubscribe(c *client, upload int) {
	delete(c.wants, upload)
	if s := c.session; s != nil && s.open() {
		s.leave(&request{upload: upload, ends: true, allowed: s.shown.allows(upload)})
		s.send(map[string]any{"action": "unsubscribe_upload", "upload_id": uploadID(upload)})
	}
}

// leave notes that the connection's subscription to an upload ends. On base, where nothing tells that, the newest
// message may still come as the answer to it: the user may follow the upload on another connection.
func (s *session) leave(r *request) {
	v := s.views[r.upload]
	delete(s.views, r.upload)
	switch {
	case s.v1:
		s.asked.add(r)
	case v != nil:
		s.repeats[r.upload] = v.repeats
	}
}

// renew shows a new token, which ends the subscriptions that it does not allow.
func (w *World) renew(c *client, op Op) {
	s := c.session
	if s == nil || !s.open() {
		return
	}
	s.show(c.user, w.grant(op))
	s.renewals = append(s.renewals, s.shown)
	for u := range s.views {
		if !s.shown.allows(u) {
			s.leave(&request{upload: u, ends: true, revokes: true})
		}
	}
}

// panicHook sends a message for which the application panics.
func (w *World) panicHook(c *client) {
	if s := c.session; s != nil && s.open() {
		s.panics = true
		s.send(map[string]any{"action": "panic"})
	}
}
