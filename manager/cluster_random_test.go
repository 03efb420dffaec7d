package manager

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/shoal/broker"
)

// TestInvariant2AcrossNodes moves clients of shoal.v1 between nodes whose links lose messages and break down, and
// verifies every message: each client received it in order, or was notified of a new start.
func TestInvariant2AcrossNodes(t *testing.T) {
	for seed := range uint64(40) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			inCluster(t, 3, Options{}, func(t *testing.T, _ *broker.Memory, nodes []member) {
				w := &wanderers{t: t, nodes: nodes, random: rand.New(rand.NewPCG(seed, 1))}
				for i := range 6 {
					w.clients = append(w.clients, &wanderer{user: fmt.Sprint("user-", i)})
				}
				for i, n := range nodes {
					n.follower(t, fmt.Sprint("other-", i), "owl")
				}
				for range 150 {
					w.step()
				}
				w.finish()
			})
		})
	}
}

// wanderers are a cluster with clients that move about in it.
type wanderers struct {
	t       *testing.T
	nodes   []member
	random  *rand.Rand
	clients []*wanderer
	// newest is the position of the newest message that the broker accepted, by upload.
	newest map[string]Position
	// down is the node whose link is cut, if cut.
	down int
	cut  bool
	// revoked are the orders to close a user's connections, by reason.
	revoked map[CloseReason]*revocation
	// former are connections that were replaced.
	former []*wandererConn
}

// revocation is an order to close the connections that a user had at a moment.
type revocation struct {
	user string
	at   time.Time
}

// wandererConn is a connection of a client while it is registered.
type wandererConn struct {
	*fakeConn
	user       string
	from       time.Time
	registered bool // until the client disconnects it
}

// wanderer is one client and all it knows. It follows every upload.
type wanderer struct {
	user string
	node *member
	conn *wandererConn
	read int // number of frames read so far
	at   map[string]Position
}

var wanderedUploads = []string{"cat", "dog"}

func (w *wanderers) step() {
	node := &w.nodes[w.random.IntN(len(w.nodes))]
	upload := wanderedUploads[w.random.IntN(len(wanderedUploads))]
	switch p := w.random.IntN(100); {
	case p < 60:
		w.publish(node, upload, 1+w.random.IntN(3))
	case p < 62:
		w.publish(node, upload, 80) // more than the broker stores
	case p < 80:
		w.move(w.clients[w.random.IntN(len(w.clients))], node, w.random.IntN(10) == 0)
	case p < 82:
		w.revoke(node, w.clients[w.random.IntN(len(w.clients))].user)
	case p < 84:
		if err := node.Forget(w.t.Context(), upload); err == nil {
			delete(w.newest, upload)
		}
	case p < 88:
		w.breakDown()
	case p < 93:
		rare, own := w.random.IntN(20), rand.New(rand.NewPCG(w.random.Uint64(), 2)) // the link's goroutines'
		node.link.losing(func(broker.Message) bool { return rare > 0 && own.IntN(rare+1) == 0 })
	case p < 94:
		node.link.damage([]string{"upload:owl", ""}[w.random.IntN(2)])
	case p < 97:
		<-time.After(time.Duration(w.random.IntN(6000)) * time.Millisecond)
	default:
		synctest.Wait()
		w.look()
	}
}

func (w *wanderers) publish(node *member, upload string, n int) {
	for i := range n {
		pos, err := node.Publish(w.t.Context(), upload, note(w.t, i))
		if err != nil {
			return // its link is cut
		}
		if w.newest == nil {
			w.newest = make(map[string]Position)
		}
		w.newest[upload] = pos
	}
}

// revoke closes the connections of a user through a node, which may be cut off.
func (w *wanderers) revoke(node *member, user string) {
	<-time.After(10 * time.Millisecond) // no connection is of the same moment
	r := &revocation{user, time.Now()}
	reason := CloseReason{4000, fmt.Sprint("order ", len(w.revoked))}
	if w.revoked == nil {
		w.revoked = make(map[CloseReason]*revocation)
	}
	w.revoked[reason] = r
	_, _ = node.DisconnectUser(w.t.Context(), r.user, reason)
	<-time.After(10 * time.Millisecond)
}

// checkRevocations verifies that each order closed the connections that its user had, and no newer ones.
func (w *wanderers) checkRevocations() {
	for _, c := range w.former {
		closed := c.closed()
		for _, reason := range closed {
			r, ok := w.revoked[reason]
			if ok && (r.user != c.user || c.from.After(r.at.Add(time.Second/4))) { // clocks of nodes may drift
				w.t.Errorf("%s: %q closed a connection that was made %v after it", c.user, reason.Text, c.from.Sub(r.at))
			}
		}
		for reason, r := range w.revoked {
			if r.user == c.user && c.from.Before(r.at) && c.registered && len(closed) == 0 {
				w.t.Errorf("%s: %q did not close a connection of %v before it", c.user, reason.Text, r.at.Sub(c.from))
			}
		}
	}
}

// breakDown cuts the link of one node, or mends it.
func (w *wanderers) breakDown() {
	if w.cut = !w.cut; w.cut {
		w.down = w.random.IntN(len(w.nodes))
		w.nodes[w.down].link.cut()
		return
	}
	w.nodes[w.down].link.mend()
}

// move connects a client to a node, where it resumes from its positions. If that fails it stays disconnected. If
// revoked is set, an order is issued through any node between the moment when its token was checked and its registration.
func (w *wanderers) move(c *wanderer, node *member, revoked bool) {
	synctest.Wait()
	c.look(w.t)
	if c.node != nil {
		c.leave()
	}
	conn := &wandererConn{fakeConn: &fakeConn{}, user: c.user, from: time.Now(), registered: true}
	checked := node.Moment()
	if revoked {
		w.revoke(&w.nodes[w.random.IntN(len(w.nodes))], c.user)
	}
	must(w.t, node.ConnectSince(c.user, conn.fakeConn, checked))
	w.former = append(w.former, conn)
	since := make(map[string]Position)
	for _, upload := range wanderedUploads {
		since[upload] = c.at[upload]
	}
	if _, err := node.Resume(w.t.Context(), c.user, conn.fakeConn, since); err != nil {
		conn.registered = false
		node.Disconnect(c.user, conn.fakeConn)
		return
	}
	c.node, c.conn, c.read = node, conn, 0
}

// leave disconnects the client.
func (c *wanderer) leave() {
	c.conn.registered = false
	c.node.Disconnect(c.user, c.conn.fakeConn)
	c.node = nil
}

func (w *wanderers) look() {
	for _, c := range w.clients {
		c.look(w.t)
	}
}

// look reads the client's new frames, and fails on a gap, a repetition, or an unexpected position.
func (c *wanderer) look(t *testing.T) {
	t.Helper()
	if c.node == nil {
		return
	}
	all := c.conn.received(t)
	for ; c.read < len(all); c.read++ {
		c.take(t, all[c.read])
	}
	if len(c.conn.closed()) > 0 { // it has to recover elsewhere
		c.leave()
	}
}

func (c *wanderer) take(t *testing.T, r received) {
	t.Helper()
	switch r.Action {
	case "resumed":
		if c.at == nil {
			c.at = make(map[string]Position)
		}
		for upload, state := range r.Uploads {
			if !state.Recovered {
				c.begin(upload, state.Position)
			}
		}
	case "subscribed":
		c.begin(r.UploadID, r.Position)
	case "note":
		at := c.at[r.UploadID]
		if r.Offset != at.Offset+1 {
			t.Fatalf("%s: of %s came offset %d after %d", c.user, r.UploadID, r.Offset, at.Offset)
		}
		c.at[r.UploadID] = Position{Epoch: at.Epoch, Offset: r.Offset}
	}
}

// begin notes a new beginning, after which the newest message follows, if there is one.
func (c *wanderer) begin(upload string, pos Position) {
	c.at[upload] = Position{Epoch: pos.Epoch, Offset: max(pos.Offset, 1) - 1}
}

// finish repairs all links and verifies that every client has received everything: at first after an interruption alone,
// although the broker refuses to read another upload, then with one more message.
func (w *wanderers) finish() {
	for _, n := range w.nodes {
		n.link.losing(nil)
		n.link.damage("upload:owl")
	}
	if w.cut {
		w.breakDown()
	}
	for _, n := range w.nodes {
		n.link.handler.Interrupted()
	}
	<-time.After(time.Minute)
	w.look()
	w.checkPositions()
	for _, n := range w.nodes {
		must(w.t, n.Ready())
	}
	for _, upload := range wanderedUploads {
		w.publish(&w.nodes[0], upload, 1)
	}
	<-time.After(time.Minute)
	w.checkRevocations()
	w.look()
	for _, c := range w.clients {
		if c.node == nil {
			w.move(c, &w.nodes[0], false)
			synctest.Wait()
			c.look(w.t)
		}
		if c.node == nil {
			w.t.Errorf("%s is not connected", c.user)
		}
	}
	w.checkPositions()
}

// checkPositions verifies that every connected client knows the newest message of each upload.
func (w *wanderers) checkPositions() {
	for _, c := range w.clients {
		for upload, newest := range w.newest {
			if c.node != nil && c.at[upload] != newest {
				w.t.Errorf("%s knows of %s up to %+v, want %+v", c.user, upload, c.at[upload], newest)
			}
		}
	}
}
