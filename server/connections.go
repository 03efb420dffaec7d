package server

import (
	"cmp"
	"slices"
	"time"
)

// ConnectionInfo is the state of one connection at one moment.
type ConnectionInfo struct {
	// UserID is "" before the client has authenticated.
	UserID string
	// Remote is the client's address, see Client.RemoteAddr.
	Remote                 string
	Transport, Subprotocol string
	// Age is how long ago the connection was registered, 0 before the client has authenticated. Silent is how long
	// nothing has come from the client.
	Age, Silent time.Duration
	// QueuedMessages and QueuedBytes wait for the client. RecoveryBytes of these bytes are stored messages of a recovery,
	// which QueuedMessages does not count.
	QueuedMessages, QueuedBytes, RecoveryBytes int
	// Waiting is how long the oldest of them has waited for the client to read.
	Waiting time.Duration
}

// info returns the state of the connection.
func (c *Client) info() ConnectionInfo {
	p := c.out.Pending()
	return ConnectionInfo{
		UserID: c.UserID(), Remote: c.RemoteAddr().String(), Transport: c.Transport(), Subprotocol: c.Subprotocol(),
		Age: c.server.manager.ConnAge(c), Silent: c.SilentFor(),
		QueuedMessages: p.Frames, QueuedBytes: p.Bytes + p.RecoveryBytes, RecoveryBytes: p.RecoveryBytes,
		Waiting: p.Waiting,
	}
}

// UserConnections returns the state of at most limit of a user's connections to this server, oldest first, and the
// number of all of them.
func (s *Server) UserConnections(userID string, limit int) (conns []ConnectionInfo, total int) {
	if s.manager == nil {
		return nil, 0
	}
	for _, conn := range s.manager.UserConnections(userID) {
		c, ok := conn.(*Client)
		if !ok || c.server != s { // of the embedder's, or of another server of the manager
			continue
		}
		if total++; len(conns) < limit {
			conns = append(conns, c.info())
		}
	}
	return conns, total
}

// SlowWalk finds the connections whose clients read slowest. It visits a bounded number of connections at a time, so
// that a search among many of them does not keep a processor busy. Its methods must be called by one goroutine at a
// time.
type SlowWalk struct {
	server *Server
	most   int
	next   int
	// slowest are the slowest connections of each ping group when it was last visited.
	slowest [pingGroups][]*Client
}

// NewSlowWalk returns a walk that finds up to most connections.
func (s *Server) NewSlowWalk(most int) *SlowWalk { return &SlowWalk{server: s, most: most} }

// Step visits connections from where the last call ended, visits or a few more of them, each once at most. It returns
// the slowest of all connections visited so far, by their present state: those with the oldest queued messages, then
// those with the most queued bytes. Connections with empty queues are not among them. Connections that are opened or
// closed at the same time wait for microseconds.
func (w *SlowWalk) Step(visits int) []ConnectionInfo {
	if w.server.manager == nil {
		return nil
	}
	for groups := 0; groups < pingGroups && visits > 0; groups++ {
		visits -= w.visit(w.next)
		w.next = (w.next + 1) % pingGroups
	}
	found := make([]slowClient, 0, w.most)
	for _, group := range w.slowest {
		for _, c := range group {
			found = w.keep(found, c)
		}
	}
	infos := make([]ConnectionInfo, 0, len(found))
	for _, s := range found {
		infos = append(infos, s.client.info())
	}
	return infos
}

// visit finds the slowest connections of a group, and returns its size.
func (w *SlowWalk) visit(group int) (size int) {
	g := &w.server.keepalive.groups[group]
	g.mu.Lock()
	defer g.mu.Unlock()
	var found []slowClient
	for _, c := range g.clients {
		found = w.keep(found, c)
	}
	w.slowest[group] = nil
	for _, s := range found {
		w.slowest[group] = append(w.slowest[group], s.client)
	}
	return len(g.clients)
}

// slowClient is a connection with a queue.
type slowClient struct {
	client  *Client
	waiting time.Duration
	bytes   int
}

// keep adds a connection to the slowest ones, sorted, if it has a queue and is one of them.
func (w *SlowWalk) keep(found []slowClient, c *Client) []slowClient {
	p := c.out.Pending()
	s := slowClient{c, p.Waiting, p.Bytes + p.RecoveryBytes}
	if s.bytes == 0 {
		return found
	}
	at, _ := slices.BinarySearchFunc(found, s, func(a, b slowClient) int {
		return cmp.Or(cmp.Compare(b.waiting, a.waiting), cmp.Compare(b.bytes, a.bytes))
	})
	if at >= w.most {
		return found
	}
	found = slices.Insert(found, at, s)
	return found[:min(len(found), w.most)]
}

// ConnectionLimit returns the bound of connections, Options.MaxConnections as it is now; 0: there is none.
func (s *Server) ConnectionLimit() int {
	if s.manager == nil {
		return 0
	}
	return max(s.settings.Load().MaxConnections, 0)
}

// Inspection are figures of a server that take a visit to each connection.
type Inspection struct {
	// Base and V1 are the open WebSockets by subprotocol, authenticated or not, and Events the open event streams.
	Base, V1, Events int
	// QueuedMessages, QueuedBytes and RecoveryBytes are the sums of those of ConnectionInfo.
	QueuedMessages, QueuedBytes, RecoveryBytes int
	// Closings are the result of Server.Closings.
	Closings []Closing
	// Sockets are the HTTP connections of Serve and ServeHandler.
	Sockets int
	// ConnectionLimit is Options.MaxConnections and HistoryLimit the manager's HistoryTotalBytes, 0 if there is no bound.
	ConnectionLimit, HistoryLimit int
}

// Inspect visits every connection: with a hundred thousand of them it takes some ten milliseconds, in which connections
// wait for microseconds only.
func (s *Server) Inspect() Inspection {
	if s.manager == nil {
		return Inspection{}
	}
	in := Inspection{
		Closings: s.Closings(), Sockets: s.httpConns.len(),
		ConnectionLimit: s.ConnectionLimit(), HistoryLimit: max(s.manager.Limits().HistoryTotalBytes, 0),
	}
	s.keepalive.each(func(c *Client) {
		switch {
		case c.events != nil:
			in.Events++
		case c.v1:
			in.V1++
		default:
			in.Base++
		}
		p := c.out.Pending()
		in.QueuedMessages += p.Frames
		in.QueuedBytes += p.Bytes + p.RecoveryBytes
		in.RecoveryBytes += p.RecoveryBytes
	})
	return in
}
