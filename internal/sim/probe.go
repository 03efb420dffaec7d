package sim

// probe publishes to each upload, and checks that exactly the connections of the users that follow it get the message:
// those of a user with a claim on the same node, whichever of the user's connections has made it. The bubble is idle,
// and no fault is in the way.
func (w *World) probe() {
	for u := range Uploads {
		w.publish(w.nodes[0], Op{Kind: publish, Upload: u, Class: event, N: 1})
	}
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
