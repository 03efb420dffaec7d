package sim

import (
	"testing/synctest"
	"time"
)

// settle lets some time pass. Without faults every client has everything afterwards.
func (w *World) settle() {
	<-time.After(2 * time.Second)
	w.idle()
	for _, n := range w.nodes {
		if n.link != nil && w.disturbed(n) {
			return
		}
	}
	w.caughtUp(func(s *session) bool { return s.slow || s.node.leaving.Load() })
	w.probe()
}

const (
	// repairTime is longer than every timeout of a call and every pause before a retry, after the last fault has ended.
	repairTime = 16 * time.Second
	// absence is longer than it takes a node to notice that everybody has gone.
	absence = 5 * time.Second
)

// finish waits for the end of all faults, checks that every client gets everything then, and that nothing is left when
// everybody has gone. After a violation it only ends everything.
func (w *World) finish() {
	defer w.end()
	if w.violation != "" {
		return
	}
	<-time.After(max(0, time.Until(w.repaired)) + repairTime)
	w.idle()
	w.refuseOne()
	w.publishToEach(0) // a node finds out by the next message that it has lost the previous one
	<-time.After(5 * time.Second)
	w.idle()
	for i, c := range w.clients {
		if c.session == nil || !c.session.open() || !c.session.entered {
			c.session = nil
			w.connect(c, w.nodes[i%len(w.nodes)], Op{Kind: arrive, seed: 1 << 16}) // a token without an end
		}
		for _, u := range c.wanted() {
			w.subscribe(c, u) // again, if it was refused while the broker was out of reach
		}
		synctest.Wait()
	}
	<-time.After(5 * time.Second)
	w.idle()
	w.caughtUp(func(*session) bool { return false })
	for i, n := range w.nodes {
		if err := n.manager.Ready(); err != nil {
			w.fail("node %d is not ready after all faults were repaired: %v", i, err)
		}
	}
	for _, c := range w.clients {
		w.disconnect(c, Op{Kind: reset})
	}
	w.endFragile()
	<-time.After(absence)
	synctest.Wait()
	for i, n := range w.nodes {
		if s := n.server.Stats(); s.Open != 0 || s.Connections != 0 || s.Users != 0 || s.Subscriptions != 0 {
			w.fail("node %d still has %d sockets, %d connections, %d users and %d subscriptions after all clients have gone",
				i, s.Open, s.Connections, s.Users, s.Subscriptions)
		}
	}
}

// refuseOne interrupts all nodes while the broker refuses to read one upload, and checks that the others catch up.
func (w *World) refuseOne() {
	if !w.cfg.Refuses || w.violation != "" {
		return
	}
	const unread = 0
	for _, n := range w.nodes {
		n.link.refuse(unread, 1)
		n.link.cut()
	}
	<-time.After(time.Second)
	for _, n := range w.nodes {
		n.link.mend()
	}
	<-time.After(10 * time.Second)
	w.publishToEach(unread + 1)
	<-time.After(time.Second)
	w.idle()
	w.caughtUp(func(*session) bool { return false }, unread)
	for _, n := range w.nodes {
		n.link.refuse(unread, -1)
	}
	<-time.After(repairTime)
	w.idle()
}

// end closes everything.
func (w *World) end() {
	for _, c := range w.clients {
		if c.session != nil {
			c.session.excused = true
			c.session.raw.resetAll()
		}
	}
	w.endFragile()
	for _, n := range w.nodes {
		n.end(0)
	}
	for _, n := range append(w.ended, w.nodes...) {
		n.closing.Wait()
		if problem := n.problem.Load(); problem != nil {
			w.fail("%s", *problem)
		}
	}
}
