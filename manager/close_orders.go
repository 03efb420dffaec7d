package manager

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxOrders and maxOrderAge bound the close orders that a node remembers for nodes that were cut off.
	maxOrders = 4096
	// maxOrderBytes bounds their JSON, so that another node can read all of them in one answer.
	maxOrderBytes = 16 << 20
	maxOrderAge   = 24 * time.Hour
	// maxOrderOrigins bounds how many processes a node remembers the positions of.
	maxOrderOrigins = 2048
	// maxTokenIDBytes bounds the token id of an order that another node sent.
	maxTokenIDBytes = 64 << 10
)

// closeOrder is a command to close the connections of a user or a token. A node that was cut off when it was issued
// carries it out later, once, and then closes only connections that are older than the order.
type closeOrder struct {
	// Origin is the process that issued the order, Number its place among the orders of that process, from 1.
	Origin  string      `json:"origin"`
	Number  uint64      `json:"number"`
	Kind    string      `json:"kind"`
	UserID  string      `json:"user,omitempty"`
	TokenID string      `json:"token,omitempty"`
	Reason  CloseReason `json:"reason,omitzero"`
	// Age is the time since the order was issued, when it was sent. Nodes need no common clock.
	Age time.Duration `json:"age,omitempty"`

	issued  instant // on the ageClock of this node
	learned uint64  // the order's place in the log of this node
	size    int     // the size of its JSON, at most
}

// orderID identifies an order.
type orderID struct {
	origin string
	number uint64
}

func (o *closeOrder) id() orderID { return orderID{o.Origin, o.Number} }

// compareIssued compares orders by the time at which they were issued.
func compareIssued(a, b closeOrder) int { return cmp.Compare(a.issued.most, b.issued.most) }

// encodedSize returns the size of the order's JSON with the longest age.
func (o closeOrder) encodedSize() int {
	o.Age = maxOrderAge
	body, _ := json.Marshal(o) // strings and numbers
	return len(body)
}

// concerns reports whether the order is for a connection of a user.
func (o *closeOrder) concerns(userID string, c Conn, g *guard) bool {
	if o.Kind == closeUser {
		return o.UserID == userID
	}
	return g.hasToken(c, o.TokenID)
}

// orderLog remembers the close orders that this node issued or learned of, for the nodes that were cut off. It holds
// the newest maxOrders of the last maxOrderAge, within maxOrderBytes.
type orderLog struct {
	// process identifies this process in the orders that it issues.
	process string
	clock   *ageClock
	// newest is when the newest order was issued, by most of clock: younger connections need no search of the log.
	newest atomic.Int64
	// late counts the orders that this node received by synchronization, dropped the orders evicted from a full log.
	late, dropped atomic.Uint64

	mu      sync.Mutex   // protects the fields below
	orders  []closeOrder // in the order in which they were learned
	known   map[orderID]struct{}
	size    int           // the sum of the sizes of orders
	oldest  time.Duration // no order of the log was issued before, by least of clock
	evicted time.Duration // when the newest of the orders evicted from a full log was issued, by most of clock
	learned uint64        // the number of orders learned so far
	issued  uint64        // the number of orders issued so far
	// complete is, by process, the number up to which this node has all orders that the process issued; read is the
	// place in the log of that process up to which this node has read it.
	complete, read map[string]uint64
}

func newOrderLog(process string, clock *ageClock) *orderLog {
	return &orderLog{
		process: process, clock: clock, known: make(map[orderID]struct{}),
		complete: make(map[string]uint64), read: make(map[string]uint64),
	}
}

// issue adds an order of this node.
func (l *orderLog) issue(o closeOrder) closeOrder {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.issued++
	o.Origin, o.Number, o.issued = l.process, l.issued, l.clock.read()
	l.addLocked(o)
	return o
}

// addLocked adds an order. A full log evicts the orders that were issued first.
func (l *orderLog) addLocked(o closeOrder) {
	l.expireLocked()
	l.newest.Store(max(l.newest.Load(), int64(o.issued.most)))
	o.size = o.encodedSize()
	for len(l.orders) >= maxOrders || l.size+o.size > maxOrderBytes {
		i := l.firstLocked()
		first := l.orders[i].issued.most
		l.dropped.Add(1)
		l.evicted = max(l.evicted, min(o.issued.most, first))
		if o.issued.most < first {
			return
		}
		l.forgetLocked(&l.orders[i])
		l.orders = slices.Delete(l.orders, i, i+1)
	}
	if len(l.orders) == 0 {
		l.oldest = o.issued.least
	}
	l.oldest = min(l.oldest, o.issued.least)
	l.learned++
	o.learned, o.Age = l.learned, 0
	l.orders = append(l.orders, o)
	l.size += o.size
	l.known[o.id()] = struct{}{}
}

// firstLocked returns the index of the order that was issued first. The log is not empty.
func (l *orderLog) firstLocked() (first int) {
	for i := range l.orders {
		if l.orders[i].issued.most < l.orders[first].issued.most {
			first = i
		}
	}
	return first
}

// expireLocked drops the orders that are certainly too old. It searches for them only if there can be one.
func (l *orderLog) expireLocked() {
	now := l.clock.read().least
	if len(l.orders) == 0 || l.oldest > now-maxOrderAge {
		return
	}
	l.oldest = now
	l.orders = slices.DeleteFunc(l.orders, func(o closeOrder) bool {
		if o.issued.least <= now-maxOrderAge {
			l.forgetLocked(&o)
			return true
		}
		l.oldest = min(l.oldest, o.issued.least)
		return false
	})
}

// forgetLocked prepares the removal of an order from orders.
func (l *orderLog) forgetLocked(o *closeOrder) {
	delete(l.known, o.id())
	l.size -= o.size
}

// since returns the orders that were issued at a moment or after it. complete is false if the log has evicted one of
// them.
func (l *orderLog) since(moment time.Duration) (orders []closeOrder, complete bool) {
	if l.newest.Load() < int64(moment) {
		return nil, true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, o := range l.orders {
		if o.issued.most >= moment {
			orders = append(orders, o)
		}
	}
	return orders, l.evicted < moment
}

// closeEverywhere has all nodes close connections and returns how many they have closed. The order is remembered first,
// for the connections that are being registered, and for the nodes that cannot be reached now.
func (m *Manager) closeEverywhere(ctx context.Context, o closeOrder) (closed int, err error) {
	o = m.orders.issue(o)
	closed = m.carryOut(o)
	if m.cluster != nil {
		var elsewhere int
		elsewhere, err = m.cluster.closeElsewhere(ctx, o)
		closed += elsewhere
	}
	return closed, err
}

// carryOut carries out an order that has just been issued, and returns the number of closed connections.
func (m *Manager) carryOut(o closeOrder) int {
	if o.Kind == closeUser {
		return m.closeUserHere(o.UserID, o.Reason)
	}
	return m.closeTokenHere(o.TokenID, o.Reason)
}

// carryOutLate closes the connections that are older than one of the orders that concern them, and returns their
// number.
func (m *Manager) carryOutLate(orders []closeOrder) (closed int) {
	byUser := make(map[string][]closeOrder)
	var ofTokens []closeOrder
	for _, o := range orders {
		if o.Kind == closeUser {
			byUser[o.UserID] = append(byUser[o.UserID], o)
		} else {
			ofTokens = append(ofTokens, o)
		}
	}
	check := func(userID string, conn Conn, orders []closeOrder) {
		since := connTime(conn)
		for _, o := range orders {
			if since <= o.issued.most && o.concerns(userID, conn, &m.guard) {
				closed += m.disconnectAndClose(userID, conn, o.Reason)
				return
			}
		}
	}
	for userID, orders := range byUser {
		for _, conn := range slices.Backward(m.connections(userID)) { // as in closeUserHere
			check(userID, conn, orders)
		}
	}
	if len(ofTokens) > 0 {
		m.registry.EachConnection(func(userID string, conn Conn) { check(userID, conn, ofTokens) })
	}
	return closed
}

// Moment is a moment of a process, for ConnectSince and CloseIfRevoked. The zero value stands for the present.
type Moment struct {
	at time.Duration // by most of Manager.ages
}

// Moment returns the present. It does not block.
func (m *Manager) Moment() Moment {
	if m.checkCreated() != nil {
		return Moment{}
	}
	return Moment{m.ages.now()}
}

// CloseIfRevoked closes a registered connection of a user if an order of DisconnectUser or DisconnectToken that was
// issued at a moment or later, on any node, concerns it, and reports whether it has. It is meant for a connection that
// has shown a further token, with the moment before that token was checked: an order that this node carried out during
// the check did not find the connection. It does not block. ConnectSince does the same for a new connection.
//
// A connection is also closed, with TryAgainLater, if so many orders were issued since that this node no longer
// remembers all of them.
func (m *Manager) CloseIfRevoked(userID string, c Conn, since Moment) (closed bool) {
	if m.checkCreated() != nil || !isUsable(c) || since.at == 0 {
		return false
	}
	// The connection is asked for its tokens without the lock of the orders.
	orders, complete := m.orders.since(since.at)
	orders = slices.DeleteFunc(orders, func(o closeOrder) bool { return !o.concerns(userID, c, &m.guard) })
	switch {
	case len(orders) > 0:
		first := slices.MinFunc(orders, compareIssued)
		m.disconnectAndClose(userID, c, first.Reason)
	case !complete:
		m.disconnectAndClose(userID, c, TryAgainLater)
	default:
		return false
	}
	return true
}
