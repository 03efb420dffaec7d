package sim

import "time"

// checkEnd checks how a connection has ended.
func (w *World) checkEnd(c *client) {
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
	w.left[place{c.user, n}] = true
	if (code == 1012 || code == 1013) && s.v1 && !s.toldToReconnect {
		w.fail("%s: ended with code %d, but was not told when to come back", c, code)
	}
	explained, expired := false, false
	for _, g := range append(s.renewals, grant{expires: s.expires}) {
		expired = expired || !g.expires.IsZero() && !time.Now().Before(g.expires)
	}
	switch code {
	case 0:
		explained = s.excused || s.slow || n.crashed.Load() || refused == 503 && n.leaving.Load() ||
			n.leaving.Load() && !s.entered
	case 1000:
		explained = w.mayBeKicked(c) || s.excused
	case 1001, 1008:
		explained = code == 1001 && s.slow
	case 1011:
		explained = s.panics || n.link != nil && w.readRefused(n)
	case 1012:
		explained = n.leaving.Load()
	case 1013: // a token that expires while a message is handled ends the connection so
		explained = expired || s.slow || n.leaving.Load() || n.doubted.Load() || n.link != nil && (w.disturbed(n) ||
			!s.v1 && len(w.forgotten) > 0) // a node may take what follows for the rest of what it has not read
	case 4003:
		explained = expired
	case 4001:
		explained = s.slow
	}
	if !explained {
		w.fail("%s: ended with code %d %q (refused: %d), which nothing explains", c, code, text, refused)
	}
}

// order is a command to close the connections of a user.
type order struct {
	user string
	at   time.Time
	by   *node
}

// mayBeKicked reports whether an order explains the end of a client's connection: it was issued after the connection
// had begun, or a moment before, since ages are measured without a common clock.
func (w *World) mayBeKicked(c *client) bool {
	for _, o := range w.orders {
		age := time.Since(o.at)
		tolerance := age/5000 + time.Millisecond
		if o.by.link != nil && (w.disturbed(o.by) || w.disturbed(c.session.node)) {
			tolerance += age // answers and orders were late
		}
		if o.user == c.user && c.session.begun.Before(o.at.Add(tolerance)) {
			return true
		}
	}
	return false
}

// checkOrders checks that the connections that are older than an order have ended. It holds some time after all faults
// were repaired, unless a node has ended since the order, which may have been the only one that knew it.
func (w *World) checkOrders() {
	for _, o := range w.orders {
		if o.at.Before(w.replaced) || !time.Now().After(o.at.Add(time.Second)) {
			continue
		}
		for _, c := range w.clients {
			if s := c.session; s != nil && c.user == o.user && s.open() && !s.slow && s.entered && s.admitted.Before(o.at) {
				w.fail("%s: is open although its user was disconnected", c)
			}
		}
	}
}

// checkHooks checks the calls of hooks for a connection, and that one whose hook has panicked is closed.
func (w *World) checkHooks(c *client) {
	s := c.session
	panicked, problem := s.observed.status()
	if problem != "" {
		w.fail("%s: %s", c, problem)
	}
	if panicked && s.open() && !s.slow {
		w.fail("%s: is open although a hook has panicked", c)
	}
}
