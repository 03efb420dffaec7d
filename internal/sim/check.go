package sim

import (
	"maps"
	"slices"
	"time"
)

// check compares everything that the clients have received with the account. The bubble is idle.
func (w *World) check() {
	for _, c := range w.clients {
		s := c.session
		if s == nil || w.violation != "" {
			continue
		}
		for _, r := range s.take() {
			if w.observe != nil {
				w.observe(w, c, r)
			}
			w.receive(c, r)
		}
		w.checkEnd(c)
		w.checkToken(c)
		w.endRepeats(s)
		w.checkHooks(c)
		if s.gap != "" && s.open() && !s.slow { // a close frame comes with the messages behind a gap, if it comes
			w.fail("%s: %s, and the connection stays open", c, s.gap)
		}
	}
	for _, n := range w.nodes {
		w.checkNode(n)
	}
	w.checkFragile()
	if body := w.account.repeated(); body > 0 {
		w.fail("message %d was published twice", body)
	}
}

// endRepeats notes that a client without positions has got the newest message of each upload that it has asked for,
// which may have been a repetition.
func (w *World) endRepeats(s *session) {
	if s.slow || w.delayed(s.node) {
		return
	}
	for _, v := range s.views {
		if !s.v1 {
			v.repeats = 0
		}
	}
	clear(s.repeats)
}

func (w *World) checkNode(n *node) {
	if problem := n.problem.Load(); problem != nil {
		w.fail("%s", *problem)
	}
	if n.publishing.Load() > 0 && !n.leaving.Load() && !w.delayed(n) {
		w.fail("publishing waits for a client")
	}
}

// checkToken checks that a connection ends with its token.
func (w *World) checkToken(c *client) {
	s := c.session
	const tolerance = closeTimeout + 2*time.Second
	if s.entered && s.open() && !s.slow && !s.expires.IsZero() && time.Since(s.expires) > tolerance {
		w.fail("%s: open %v after the end of its token", c, time.Since(s.expires))
	}
}

// caughtUp checks that every connection has the newest message of each upload that it follows. It holds some time after
// all faults were repaired, for all uploads but those that cannot be read. Connections that exempt names are left out.
func (w *World) caughtUp(exempt func(*session) bool, unread ...int) {
	w.checkOrders()
	for _, c := range w.clients {
		s := c.session
		if s == nil || !s.open() || !s.entered || exempt(s) {
			continue
		}
		if len(s.asked.uploads)+len(s.asked.resumes) > 0 {
			w.fail("%s: requests for %d uploads and %d resumes were never answered", c, len(s.asked.uploads),
				len(s.asked.resumes))
		}
		if s.gap != "" {
			w.fail("%s: %s, and the connection stays open", c, s.gap)
		}
		for _, upload := range slices.Sorted(maps.Keys(s.views)) {
			v := s.views[upload]
			newest := w.account.newest(upload)
			switch {
			case slices.Contains(unread, upload):
			case v.due > 0:
				w.fail("%s: offset %d of upload %d, the newest at the time of the answer, has not come", c, v.due, upload)
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

// probe publishes to each upload, and checks that exactly the connections of the users that follow it get the message:
// those of a user with a claim on the same node, whichever of the user's connections has made it. The bubble is idle,
// and no fault is in the way.
func (w *World) probe() {
	w.publishToEach(0)
	w.idle()
	for _, c := range w.clients {
		s := c.session
		if s == nil || !s.open() || !s.entered || s.slow || s.node.leaving.Load() {
			continue
		}
		for u := range Uploads {
			_, narrowed := s.narrowed[u]
			reached := s.reached[u] == w.account.last(u)
			switch follows, certain := w.follows(c.user, s.node, u); {
			case narrowed || len(s.renewals) > 0 || !certain || reached == follows:
			case follows:
				w.fail("%s: has not got the newest message of upload %d, which its user follows", c, u)
			default:
				w.fail("%s: has got a message of upload %d, which its user does not follow", c, u)
			}
		}
	}
}

// follows reports whether a user follows an upload on a node. It is not certain if a connection of the user has ended
// there, whose claims may have passed to the user.
func (w *World) follows(user string, n *node, upload int) (follows, certain bool) {
	for _, c := range w.clients {
		if s := c.session; s != nil && c.user == user && s.node == n {
			follows = follows || s.observed.claimed(upload)
		}
	}
	return follows, follows || !w.left[place{user, n}]
}

// place is a user on a node.
type place struct {
	user string
	node *node
}
