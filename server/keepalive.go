package server

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoal-go/shoal/internal/frame"
	"github.com/shoal-go/shoal/manager"
)

// pingGroups is the number of groups that are pinged one after the other over the ping interval.
const pingGroups = 64

// keepalive pings every connection once per interval, spread over the interval, and closes connections that have been
// silent for too long. One goroutine serves all connections. It also holds the list of all connections.
type keepalive struct {
	server  *Server
	groups  [pingGroups]pingGroup
	next    uint32
	stop    chan struct{}
	running sync.WaitGroup
	mu      sync.Mutex // protects next, and stop against being closed twice

	// lastPass is when the goroutine last ran, and resumed when it last ran after a pause in which the process could not
	// listen: the machine was suspended, or the process stopped. Both are readings of Server.clock.
	lastPass, resumed atomic.Int64
}

// pingGroup holds the connections that are pinged together.
type pingGroup struct {
	mu      sync.Mutex // protects clients and their pingIndex; only clients and their outboxes are locked under it
	clients []*Client
}

// A client is pinged with a message, which the protocol's pages answer, and with a WebSocket ping, which a browser
// answers even while the page is frozen.
var (
	pingMessage = frame.New(frame.Text, frame.Control, []byte(`{"action":"ping"}`))
	pingFrame   = frame.New(frame.Ping, frame.Control, nil)
)

// clock returns the time since the server was made. It is monotonic: steps of the wall clock do not change it.
func (s *Server) clock() time.Duration { return time.Since(s.started) }

func newKeepalive(s *Server, interval time.Duration) *keepalive {
	k := &keepalive{server: s, stop: make(chan struct{})}
	k.lastPass.Store(int64(s.clock()))
	k.running.Go(func() { k.run(interval) })
	return k
}

func (k *keepalive) close() {
	k.mu.Lock()
	select {
	case <-k.stop:
	default:
		close(k.stop)
	}
	k.mu.Unlock()
	k.running.Wait()
}

func (k *keepalive) run(interval time.Duration) {
	tick := time.NewTicker(max(interval/pingGroups, time.Microsecond))
	defer tick.Stop()
	for i := 0; ; i = (i + 1) % pingGroups {
		select {
		case <-k.stop:
			return
		case <-tick.C:
			k.notePause()
			k.ping(&k.groups[i])
		}
	}
}

// notePause notes a pause of the process since the last pass.
func (k *keepalive) notePause() {
	now := k.server.clock()
	if now-time.Duration(k.lastPass.Swap(int64(now))) > k.server.opt.PingInterval/2 {
		k.resumed.Store(int64(now))
	}
}

// ping pings the connections of one group, and closes those whose time is up.
func (k *keepalive) ping(g *pingGroup) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range g.clients {
		if c.authenticated() && !c.successDue.Load() {
			if c.events == nil {
				c.out.Send(pingMessage)
			}
			c.out.Send(pingFrame)
			c.closeIfSilent()
			// The timer of the token's end follows the monotonic clock, the token the wall clock, which may have been set.
			c.expired()
		}
	}
}

// add gives a connection a slot.
func (k *keepalive) add(c *Client) {
	k.mu.Lock()
	g := &k.groups[k.next%pingGroups]
	k.next++
	k.mu.Unlock()
	g.mu.Lock()
	defer g.mu.Unlock()
	c.pingGroup, c.pingIndex = g, int32(len(g.clients)) //nolint:gosec // fewer than there are descriptors
	g.clients = append(g.clients, c)
}

// remove takes a connection out.
func (k *keepalive) remove(c *Client) {
	g := c.pingGroup
	g.mu.Lock()
	defer g.mu.Unlock()
	last := len(g.clients) - 1
	moved := g.clients[last]
	g.clients[c.pingIndex] = moved
	moved.pingIndex = c.pingIndex
	g.clients[last] = nil
	g.clients = g.clients[:last]
}

// each calls fn for every connection.
func (k *keepalive) each(fn func(*Client)) {
	for i := range k.groups {
		g := &k.groups[i]
		g.mu.Lock()
		for _, c := range g.clients {
			fn(c)
		}
		g.mu.Unlock()
	}
}

// SilentFor returns how long nothing has come from the client, for an event stream how long its system has not
// acknowledged data, where that is known. It does not count the time before a pause of this process or
// the end of a hook: the client's answers to pings are read only after it.
func (c *Client) SilentFor() time.Duration {
	if c.server == nil {
		return 0 // a zero Client, which has no connection
	}
	k := c.server.keepalive
	now := c.server.clock()
	if now-time.Duration(k.lastPass.Load()) > c.server.opt.PingInterval/2 {
		return 0 // the pause is over only now, and the client's answers have not been read
	}
	if c.runningHook() != "" {
		return 0
	}
	if c.events != nil {
		return c.sinceAcknowledged()
	}
	return now - time.Duration(max(c.lastRead.Load(), k.resumed.Load()))
}

// closeIfSilent closes a connection from which nothing has come for IdleTimeout. Most clients are heard of between two
// pings; a timer is set only for one whose time ends before its next ping.
func (c *Client) closeIfSilent() {
	opt := &c.server.opt
	left := opt.IdleTimeout - c.SilentFor()
	switch {
	case left <= 0:
		c.Close(manager.IdleTimeout)
	case left <= opt.PingInterval:
		time.AfterFunc(left, func() {
			if c.SilentFor() >= opt.IdleTimeout {
				c.Close(manager.IdleTimeout)
			}
		})
	}
}
