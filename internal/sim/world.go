package sim

import (
	"context"
	"crypto/tls"
	"fmt"
	"maps"
	"slices"
	"testing/synctest"
	"time"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/manager"
)

// World is a history while it is executed, within one bubble. It belongs to one goroutine.
type World struct {
	cfg     Config
	cert    *tls.Certificate
	account *account
	hub     *hub // nil: no broker
	nodes   []*node
	ended   []*node // former nodes
	clients []*client
	bodies  int
	dials   uint64
	// orders are the commands to close the connections of a user; late answers delay them. replaced is when a node has
	// ended last.
	orders   []order
	replaced time.Time
	// forgotten are the uploads that were forgotten, or lost with the memory of a node.
	forgotten map[int]bool
	// repaired is when the last fault ends.
	repaired time.Time
	fragile  []*fragile
	// left are the places where a connection of a user has ended.
	left map[place]bool
	// violation is the first broken promise, or "".
	violation string
	// observe is called with each message of a client, in the order of the checks; nil: no call.
	observe func(w *World, c *client, r received)
}

// client is a user agent, which keeps its positions from one connection to the next.
type client struct {
	index   int
	user    string
	v1      bool
	session *session
	at      map[int]broker.Position
	wants   map[int]bool
}

// String names the client.
func (c *client) String() string {
	protocol := "base"
	if c.v1 {
		protocol = "shoal.v1"
	}
	return fmt.Sprintf("client %d (%s, %s)", c.index, c.user, protocol)
}

// wanted returns the uploads that the client wants to follow.
func (c *client) wanted() []int { return slices.Sorted(maps.Keys(c.wants)) }

// Run executes a history and returns the broken promise and the index of the operation after which it showed, or "". It
// must be called within a bubble of testing/synctest. cert is for histories with TLS.
func Run(h History, cert *tls.Certificate) (violation string, after int) { return run(h, cert, nil) }

// run is Run with an observer of all messages.
func run(h History, cert *tls.Certificate, observe func(*World, *client, received)) (violation string, after int) {
	w := &World{
		cfg: h.Config, cert: cert, account: newAccount(h.Config.TTL), forgotten: map[int]bool{}, left: map[place]bool{},
		observe: observe,
	}
	if h.Config.Broker {
		w.hub = newHub(w.account, h.Config.Stored, h.Config.Bare, h.Config.History)
	}
	for i := range h.Config.Nodes {
		w.nodes = append(w.nodes, w.start(uint64(i)))
	}
	for i := range clients {
		w.clients = append(w.clients, &client{
			index: i, user: fmt.Sprintf("user%d", i%users), v1: i%2 == 0, at: map[int]broker.Position{}, wants: map[int]bool{},
		})
	}
	<-time.After(3 * time.Second) // the nodes have found each other
	after = len(h.Ops)
	for i, op := range h.Ops {
		w.do(op)
		if w.violation != "" {
			after = i
			break
		}
	}
	w.finish()
	return w.violation, after
}

func (w *World) fail(format string, args ...any) {
	if w.violation == "" {
		w.violation = fmt.Sprintf(format, args...)
	}
}

func (w *World) start(seed uint64) *node {
	n, err := startNode(w.cfg, w.hub, w.cert, seed)
	if err != nil {
		panic("sim: " + err.Error())
	}
	return n
}

// disturbed reports whether a fault may have reached a node through the broker. It holds for the rest of the history,
// since its consequences may show at any later time.
func (w *World) disturbed(n *node) (yes bool) {
	n.link.change(func() { yes = n.link.disturbed })
	return yes
}

// readRefused reports whether the broker has refused to read an upload for a node.
func (w *World) readRefused(n *node) (yes bool) {
	n.link.change(func() { yes = n.link.refused })
	return yes
}

// delayed reports whether a node's publications may wait for the broker.
func (w *World) delayed(n *node) (yes bool) {
	if n.link == nil {
		return false
	}
	n.link.change(func() { yes = n.link.late > 0 || n.link.down > 0 })
	return yes || w.disturbed(n)
}

// do executes one operation.
func (w *World) do(op Op) {
	if ends := time.Now().Add(op.lasts()); ends.After(w.repaired) {
		w.repaired = ends
	}
	n, c := w.nodes[op.Node], w.clients[op.Client]
	switch op.Kind {
	case publish:
		w.publish(n, op)
	case once:
		w.publishOnce(op)
	case embed:
		w.embed(n, op)
	case arrive, resume:
		w.connect(c, n, op)
	case leave, reset:
		w.disconnect(c, op)
	case again:
		if c.session != nil && c.session.open() {
			w.follow(c)
		}
	case subscribe:
		w.subscribe(c, op.Upload)
	case since:
		w.subscribeSince(c, op.Upload)
	case unsubscribe:
		w.unsubscribe(c, op.Upload)
	case renew:
		w.renew(c, op)
	case kick:
		w.kick(n, c)
	case forget:
		w.forget(n, op.Upload)
	case panics:
		w.panicHook(c)
	case doubt:
		n.doubt()
		time.AfterFunc(op.For, n.trust)
	case stall, dawdle:
		w.slow(c, op)
	case wait:
		<-time.After(op.For)
	case settle:
		w.settle()
	case crash, drain:
		w.replace(op)
	default:
		w.faultOfBroker(n, op)
	}
	if !op.AtOnce {
		w.idle()
	}
}

// idle waits until nothing moves without the passing of time, and checks.
func (w *World) idle() {
	synctest.Wait()
	w.check()
}

func (w *World) publish(n *node, op Op) {
	first := w.bodies + 1
	w.bodies += op.N
	for body := first; body <= w.bodies; body++ {
		w.account.announce(body, op.Class)
	}
	last := w.bodies
	send := func() {
		defer n.publishing.Add(-1)
		ctx, cancel := context.WithTimeout(context.Background(), time.Duration(op.N)*10*time.Second)
		defer cancel()
		for body := first; body <= last; body++ {
			pos, err := n.manager.Publish(ctx, uploadID(op.Upload), message(op.Upload, body, op.Class))
			if err != nil {
				return // the broker is out of reach, or the node has ended
			}
			if n.link == nil {
				w.account.accept(op.Upload, body, pos)
			}
		}
	}
	n.publishing.Add(1)
	if n.link == nil {
		send() // in the order of the account
	} else {
		go send()
	}
}

// publishToEach publishes a message to each upload from a first one on, one after the other: their order is not left to
// the scheduler.
func (w *World) publishToEach(first int) {
	for u := first; u < Uploads; u++ {
		w.publish(w.nodes[0], Op{Kind: publish, Upload: u, Class: event, N: 1})
		synctest.Wait()
	}
}

func (w *World) forget(n *node, upload int) {
	w.forgotten[upload] = true
	drop := func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = n.manager.Forget(ctx, uploadID(upload)) // may fail: the broker is out of reach
	}
	if n.link != nil {
		go drop()
		return
	}
	w.account.lose(upload, nil)
	drop() // in the order of the account
}

func (w *World) kick(n *node, c *client) {
	w.orders = append(w.orders, order{c.user, time.Now(), n})
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_, _ = n.manager.DisconnectUser(ctx, c.user, manager.NormalClosure) // may miss nodes that are out of reach
	}()
}

// disconnect ends a client's connection: with a close frame, by closing the socket, or with a reset.
func (w *World) disconnect(c *client, op Op) {
	s := c.session
	if s == nil {
		return
	}
	w.idle() // checks the messages that have come
	w.left[place{c.user, s.node}] = true
	s.excused = true
	switch {
	case op.Kind == reset || op.seed%3 == 0:
		s.raw.resetAll()
	case op.seed%3 == 1:
		_ = s.raw.CloseWrite()
	default:
		s.queue(clientFrame(0x88, []byte{0x03, 0xe8}))
	}
	synctest.Wait()
	s.raw.resetAll()
	c.session = nil
}

// slow lets a client read nothing, or little, for a time.
func (w *World) slow(c *client, op Op) {
	s := c.session
	if s == nil {
		return
	}
	s.slow = true
	if op.Kind == stall {
		s.raw.hold()
		time.AfterFunc(op.For, s.raw.release)
		return
	}
	s.setPace(op.For / 100)
	time.AfterFunc(op.For, func() { s.setPace(0) })
}

func (s *session) setPace(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pace = d
}

// replace ends a node, and starts a new one in its place at once.
func (w *World) replace(op Op) {
	n := w.nodes[op.Node]
	w.replaced = time.Now()
	var spread time.Duration
	if op.Kind == drain {
		spread = min(op.For, closeWithin/2)
	}
	if op.Kind == crash {
		n.crash()
		for _, c := range w.clients {
			if c.session != nil && c.session.node == n {
				c.session.raw.resetAll() // before the node says goodbye
			}
		}
	}
	n.end(spread)
	if n.link == nil {
		for u := range Uploads {
			w.account.lose(u, nil) // with the memory of the node
		}
	}
	w.ended = append(w.ended, n)
	w.nodes[op.Node] = w.start(op.seed)
}

func (w *World) faultOfBroker(n *node, op Op) {
	l := n.link
	l.change(func() { l.disturbed = true })
	repair := func(undo func()) { time.AfterFunc(op.For, func() { l.change(undo) }) }
	switch op.Kind {
	case partition:
		l.cut()
		time.AfterFunc(op.For, l.mend)
	case lose:
		l.change(func() { l.loses = 1 + op.N })
		repair(func() { l.loses = 0 })
	case late:
		l.change(func() { l.late = op.For / 8 })
		repair(func() { l.late = 0 })
	case mute:
		l.change(func() { l.mute = true })
		repair(func() { l.mute = false })
	case refuse:
		l.refuse(op.Upload, 1)
		time.AfterFunc(op.For, func() { l.refuse(op.Upload, -1) })
	case restart:
		w.restart(op)
	case step:
		w.hub.step(op.stepped())
	}
}

// restart restarts the broker. If no other fault is in the way, its channels may lose their newest messages and keep
// their epochs, so that offsets are used again. Nodes notice that by comparing positions, before new messages come.
func (w *World) restart(op Op) {
	keeps := op.keepsEpoch() && w.hub.healthy()
	w.hub.restart(op.dropped(), op.renumbered() && !keeps, keeps, op.For)
	if !keeps {
		return
	}
	<-time.After(op.For + 2*time.Second)
	w.idle()
	for _, c := range w.clients { // nobody can tell a client's position that is used again from one that is not
		for u, at := range c.at {
			if w.hub.reuses(u, at) {
				delete(c.at, u)
			}
		}
	}
}
