package sim

import "time"

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
		if _, problem := s.observed.status(); problem != "" {
			w.fail("%s: %s", c, problem)
		}
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
			case newest == nil:
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
