package server

import (
	"sync"
	"time"

	"github.com/shoal-go/shoal/manager"
)

// beats is how many groups the connections are pinged in, one after the other over the ping interval.
const beats = 64

// heart pings every connection once each interval, spread over it, and finds those from which nothing comes
// any more. It needs one goroutine, whatever the number of connections, and knows all of them.
type heart struct {
	server  *Server
	groups  [beats]group
	next    uint32
	stop    chan struct{}
	running sync.WaitGroup
	mu      sync.Mutex // protects next, and stop against being closed twice
}

// group holds the connections that are pinged together.
type group struct {
	mu      sync.Mutex // protects clients and their places; only clients and their outboxes are locked under it
	clients []*Client
}

// place is where a connection stands among the groups.
type place struct {
	group *group
	index int
}

func newHeart(s *Server, interval time.Duration) *heart {
	h := &heart{server: s, stop: make(chan struct{})}
	h.running.Go(func() { h.run(interval) })
	return h
}

func (h *heart) close() {
	h.mu.Lock()
	select {
	case <-h.stop:
	default:
		close(h.stop)
	}
	h.mu.Unlock()
	h.running.Wait()
}

func (h *heart) run(interval time.Duration) {
	tick := time.NewTicker(max(interval/beats, time.Microsecond))
	defer tick.Stop()
	for i := 0; ; i = (i + 1) % beats {
		select {
		case <-h.stop:
			return
		case now := <-tick.C:
			h.beat(&h.groups[i], now)
		}
	}
}

// beat pings the connections of one group.
func (h *heart) beat(g *group, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range g.clients {
		if c.authenticated() {
			c.out.Send(pingFrame)
			c.watchIdle(now)
		}
	}
}

// add gives a connection a place.
func (h *heart) add(c *Client) {
	h.mu.Lock()
	g := &h.groups[h.next%beats]
	h.next++
	h.mu.Unlock()
	g.mu.Lock()
	defer g.mu.Unlock()
	c.beat = place{g, len(g.clients)}
	g.clients = append(g.clients, c)
}

// remove takes a connection out.
func (h *heart) remove(c *Client) {
	g := c.beat.group
	g.mu.Lock()
	defer g.mu.Unlock()
	last := len(g.clients) - 1
	moved := g.clients[last]
	g.clients[c.beat.index] = moved
	moved.beat.index = c.beat.index
	g.clients[last] = nil
	g.clients = g.clients[:last]
}

// each calls fn for every connection.
func (h *heart) each(fn func(*Client)) {
	for i := range h.groups {
		g := &h.groups[i]
		g.mu.Lock()
		for _, c := range g.clients {
			fn(c)
		}
		g.mu.Unlock()
	}
}

// watchIdle sees to it that the connection ends when nothing has come from it for IdleTimeout. Most are
// heard of between two pings; only for one whose time will be up before its next ping is a timer set.
func (c *Client) watchIdle(now time.Time) {
	opt := &c.server.opt
	left := time.Unix(0, c.seen.Load()).Add(opt.IdleTimeout).Sub(now)
	switch {
	case left <= 0:
		c.Close(manager.IdleTimeout)
	case left <= opt.PingInterval:
		time.AfterFunc(left, func() { c.endIfIdle(opt.IdleTimeout) })
	}
}

func (c *Client) endIfIdle(timeout time.Duration) {
	if time.Since(time.Unix(0, c.seen.Load())) >= timeout {
		c.Close(manager.IdleTimeout)
	}
}
