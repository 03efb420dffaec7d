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
}

// wanderer is one client and all it knows. It follows every upload.
type wanderer struct {
	user string
	node *member
	conn *fakeConn
	read int // number of frames read so far
	at   map[string]Position
}

var wanderedUploads = []string{"cat", "dog"} //nolint:gochecknoglobals // constant

func (w *wanderers) step() {
	node := &w.nodes[w.random.IntN(len(w.nodes))]
	upload := wanderedUploads[w.random.IntN(len(wanderedUploads))]
	switch p := w.random.IntN(100); {
	case p < 60:
		w.publish(node, upload, 1+w.random.IntN(3))
	case p < 62:
		w.publish(node, upload, 80) // more than the broker stores
	case p < 80:
		w.move(w.clients[w.random.IntN(len(w.clients))], node)
	case p < 83:
		if err := node.Forget(w.t.Context(), upload); err == nil {
			delete(w.newest, upload)
		}
	case p < 88:
		w.breakDown()
	case p < 93:
		rare, own := w.random.IntN(20), rand.New(rand.NewPCG(w.random.Uint64(), 2)) // the link's goroutines'
		node.link.losing(func(broker.Message) bool { return rare > 0 && own.IntN(rare+1) == 0 })
	case p < 97:
		<-time.After(time.Duration(w.random.IntN(1500)) * time.Millisecond)
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

// breakDown cuts the link of one node, or mends it.
func (w *wanderers) breakDown() {
	if w.cut = !w.cut; w.cut {
		w.down = w.random.IntN(len(w.nodes))
		w.nodes[w.down].link.cut()
		return
	}
	w.nodes[w.down].link.mend()
}

// move connects a client to a node, where it resumes from its positions. If that fails it stays disconnected.
func (w *wanderers) move(c *wanderer, node *member) {
	synctest.Wait()
	c.look(w.t)
	if c.node != nil {
		c.node.Disconnect(c.user, c.conn)
		c.node = nil
	}
	conn := connect(w.t, node.Manager, c.user)
	since := make(map[string]Position)
	for _, upload := range wanderedUploads {
		since[upload] = c.at[upload]
	}
	if _, err := node.Resume(w.t.Context(), c.user, conn, since); err != nil {
		node.Disconnect(c.user, conn)
		return
	}
	c.node, c.conn, c.read = node, conn, 0
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
		c.node.Disconnect(c.user, c.conn)
		c.node = nil
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
		c.at[r.UploadID] = Position{at.Epoch, r.Offset}
	}
}

// begin notes a new beginning, after which the newest message follows, if there is one.
func (c *wanderer) begin(upload string, pos Position) {
	c.at[upload] = Position{pos.Epoch, max(pos.Offset, 1) - 1}
}

// finish repairs all links and verifies that every client has received everything.
func (w *wanderers) finish() {
	for _, n := range w.nodes {
		n.link.losing(nil)
	}
	if w.cut {
		w.breakDown()
	}
	for _, upload := range wanderedUploads {
		w.publish(&w.nodes[0], upload, 1)
	}
	<-time.After(time.Minute)
	w.look()
	for _, c := range w.clients {
		if c.node == nil {
			w.move(c, &w.nodes[0])
			synctest.Wait()
			c.look(w.t)
		}
		for upload, newest := range w.newest {
			if c.at[upload] != newest {
				w.t.Errorf("%s knows of %s up to %+v, want %+v", c.user, upload, c.at[upload], newest)
			}
		}
	}
}
