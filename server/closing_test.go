package server_test

import (
	"strings"
	"sync/atomic"
	"testing"

	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"
)

// A connection that the server closes is no longer listed and takes no place of its user, though its client does not
// answer. The hooks are called once, when it is gone.
func TestClient_ClosingConnectionIsUnregistered(t *testing.T) {
	for name, end := range map[string]func(n *node, c *client){
		"refused renewal": func(_ *node, c *client) { c.send(`{"type":"auth","token":"bad"}`) },
		"other user":      func(_ *node, c *client) { c.send(`{"type":"auth","token":"bob"}`) },
		"expired":         func(_ *node, c *client) { c.send(`{"type":"auth","token":"ann/10ms"}`) },
		"application": func(n *node, _ *client) {
			for _, c := range n.manager.UserConnections("ann") {
				c.Close(manager.NormalClosure)
			}
		},
		"slow consumer": func(n *node, _ *client) {
			message := `{"action":"note","text":"` + strings.Repeat("x", 60_000) + `"}`
			for n.server.Stats().SlowConsumers == 0 { // the kernel takes some megabytes first
				n.publishJSON("a", message)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			var left, unsubscribed atomic.Int64
			n := start(t, func(m *manager.Options, o *server.Options) {
				m.MaxConnectionsPerUser, m.EvictSilentAfter = 1, -1
				o.CloseTimeout, o.QueueMessages = 2*patience, 16
				o.OnDisconnect = func(*server.Client, manager.CloseReason) { left.Add(1) }
				o.OnUnsubscribe = func(*server.Client, server.Subscription) { unsubscribed.Add(1) }
			})
			c := n.login("ann", "shoal.v1")
			c.send(`{"action":"subscribe_upload","upload_id":"a"}`)
			c.next()
			end(n, c)
			waitFor(t, func() bool { return len(n.manager.UserConnections("ann")) == 0 })
			waitFor(t, func() bool { return len(n.manager.UploadSubscriberIDs("a")) == 0 })
			if open := n.server.Stats().Open; open != 1 {
				t.Errorf("%d connections are open, want the one that its client has not closed", open)
			}
			n.login("ann") // in its place
			_ = c.conn.CloseNow()
			waitFor(t, func() bool { return left.Load() == 1 && unsubscribed.Load() == 1 })
		})
	}
}
