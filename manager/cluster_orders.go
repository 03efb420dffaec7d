package manager

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"
)

const (
	// maxOrders and maxOrderAge bound the close orders that a node remembers for nodes that were cut off.
	maxOrders   = 4096
	maxOrderAge = 24 * time.Hour
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

	issued  time.Duration // on the ageClock of this node
	learned uint64        // the order's place in the log of this node
}

// wireOrder is the JSON form of a closeOrder. JSON text cannot hold a token id that is not valid UTF-8, such as a session
// id of random bytes: other nodes would compare their connections with another id.
type wireOrder struct {
	order
	RawToken []byte `json:"raw_token,omitempty"`
}

// order is a closeOrder without its methods.
type order closeOrder

// MarshalJSON implements json.Marshaler.
func (o closeOrder) MarshalJSON() ([]byte, error) {
	w := wireOrder{order: order(o)}
	if !utf8.ValidString(o.TokenID) {
		w.TokenID, w.RawToken = "", []byte(o.TokenID)
	}
	return json.Marshal(w)
}

// UnmarshalJSON implements json.Unmarshaler.
func (o *closeOrder) UnmarshalJSON(data []byte) error {
	var w wireOrder
	if err := json.Unmarshal(data, &w); err != nil {
		return err
	}
	*o = closeOrder(w.order)
	if len(w.RawToken) > 0 {
		o.TokenID = string(w.RawToken)
	}
	return nil
}

// orderID identifies an order.
type orderID struct {
	origin string
	number uint64
}

func (o *closeOrder) id() orderID { return orderID{o.Origin, o.Number} }

// check returns the first problem of an order that another node has sent.
func (o *closeOrder) check() error {
	switch {
	case o.Origin == "" || len(o.Origin) > maxIDBytes || o.Number == 0:
		return &InvalidError{"origin", "must be a process and the number of an order"}
	case o.Kind != closeUser && o.Kind != closeToken:
		return &InvalidError{"kind", "must be " + closeUser + " or " + closeToken}
	case o.Kind == closeToken && (o.TokenID == "" || len(o.TokenID) > maxTokenIDBytes):
		return &InvalidError{"token", "must not be empty or longer than 64 KiB"}
	case o.Age < 0:
		return &InvalidError{"age", "must not be negative"}
	case o.Kind == closeUser:
		if err := CheckID("user", o.UserID); err != nil {
			return err
		}
	}
	if len(o.Reason.Text) > maxReasonBytes {
		return &InvalidError{"reason", fmt.Sprintf("has %d bytes, at most %d are allowed", len(o.Reason.Text), maxReasonBytes)}
	}
	return o.Reason.Check()
}

// concerns reports whether the order is for a connection of a user.
func (o *closeOrder) concerns(userID string, c Conn, g *guard) bool {
	if o.Kind == closeUser {
		return o.UserID == userID
	}
	return g.hasToken(c, o.TokenID)
}

// orderLog remembers the close orders that this node issued or learned of, for the nodes that were cut off. It holds
// the newest maxOrders of the last maxOrderAge.
type orderLog struct {
	// process identifies this process in the orders that it issues.
	process string
	clock   *ageClock
	// newest is when the newest order of the log was issued, on clock. It spares connections a look at the log.
	newest atomic.Int64
	// late counts the orders that this node received by synchronization, dropped the orders evicted from a full log.
	late, dropped atomic.Uint64

	mu      sync.Mutex   // protects the fields below
	orders  []closeOrder // in the order in which they were learned
	known   map[orderID]struct{}
	learned uint64 // the number of orders learned so far
	issued  uint64 // the number of orders issued so far
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
	o.Origin, o.Number, o.issued = l.process, l.issued, l.clock.now()
	l.addLocked(o)
	return o
}

// announce returns the number of orders that this node has issued, for its hello.
func (l *orderLog) announce() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.issued
}

// learn adds an order of another node and returns it with the time at which it was issued. fresh is false if it is
// known or too old.
func (l *orderLog) learn(o closeOrder) (_ closeOrder, fresh bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	// The clocks of two machines may differ by this in their speed. It is better to close a newer connection as well.
	inaccuracy := min(o.Age, o.Age/5000+time.Millisecond)
	o.issued = l.clock.now() - o.Age + inaccuracy
	if o.Number == l.complete[o.Origin]+1 {
		l.completeLocked(o.Origin, o.Number)
	}
	if _, known := l.known[o.id()]; known || o.Age >= maxOrderAge || o.Origin == l.process {
		return o, false
	}
	if o.Age > 0 {
		l.late.Add(1)
	}
	l.addLocked(o)
	return o, true
}

// addLocked adds an order. A full log evicts the order that was issued first.
func (l *orderLog) addLocked(o closeOrder) {
	l.expireLocked()
	l.newest.Store(max(l.newest.Load(), int64(o.issued)))
	if len(l.orders) >= maxOrders {
		l.dropped.Add(1)
		first := 0
		for i := range l.orders {
			if l.orders[i].issued < l.orders[first].issued {
				first = i
			}
		}
		if o.issued < l.orders[first].issued {
			return
		}
		delete(l.known, l.orders[first].id())
		l.orders = slices.Delete(l.orders, first, first+1)
	}
	l.learned++
	o.learned, o.Age = l.learned, 0
	l.orders = append(l.orders, o)
	l.known[o.id()] = struct{}{}
}

// expireLocked drops the orders that are too old.
func (l *orderLog) expireLocked() {
	oldest := l.clock.now() - maxOrderAge
	l.orders = slices.DeleteFunc(l.orders, func(o closeOrder) bool {
		if o.issued > oldest {
			return false
		}
		delete(l.known, o.id())
		return true
	})
}

// completeLocked records that this node has all orders of a process up to a number.
func (l *orderLog) completeLocked(process string, number uint64) {
	bound(l.complete)
	l.complete[process] = max(l.complete[process], number)
}

// bound empties a map of processes that has grown too large, with the processes that no longer exist. The others are
// asked for all their orders once more.
func bound(m map[string]uint64) {
	if len(m) >= maxOrderOrigins {
		clear(m)
	}
}

// missed reports whether a process has issued more orders than this node has.
func (l *orderLog) missed(process string, announced uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return announced > l.complete[process]
}

// orderRequest asks the other nodes for their orders. Read is the place, by process, up to which the asking node has
// read the log of that process.
type orderRequest struct {
	Read map[string]uint64 `json:"read,omitempty"`
}

// orderReply answers an orderRequest.
type orderReply struct {
	// Process is the answering one, Learned the place of the last of the orders in its log, and Issued the number of
	// the newest order that it has issued itself.
	Process string       `json:"process"`
	Learned uint64       `json:"learned"`
	Issued  uint64       `json:"issued"`
	Orders  []closeOrder `json:"orders,omitempty"`
}

// request returns the question for the other nodes.
func (l *orderLog) request() orderRequest {
	l.mu.Lock()
	defer l.mu.Unlock()
	read := make(map[string]uint64, len(l.read))
	for process, at := range l.read {
		read[process] = at
	}
	return orderRequest{read}
}

// reply returns the orders that the asking node has not read.
func (l *orderLog) reply(q orderRequest) orderReply {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expireLocked()
	r := orderReply{Process: l.process, Learned: l.learned, Issued: l.issued}
	now := l.clock.now()
	for _, o := range l.orders {
		if o.learned > q.Read[l.process] {
			o.Age = max(now-o.issued, 1)
			r.Orders = append(r.Orders, o)
		}
	}
	return r
}

// apply adds the orders of a reply that was received some time ago: the question waits for the slowest node. It returns
// the orders that this node did not have, and the errors of invalid orders.
func (l *orderLog) apply(r orderReply, ago time.Duration) (fresh []closeOrder, err error) {
	for _, o := range r.Orders {
		o.Age = min(o.Age, math.MaxInt64-ago) + ago
		if problem := o.check(); problem != nil {
			err = errors.Join(err, problem)
			continue
		}
		if o, isNew := l.learn(o); isNew {
			fresh = append(fresh, o)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.Process != "" && len(r.Process) <= maxIDBytes {
		l.completeLocked(r.Process, r.Issued)
		bound(l.read)
		l.read[r.Process] = r.Learned
	}
	return fresh, err
}

// since returns the orders that were issued at a moment or after it.
func (l *orderLog) since(moment time.Duration) (orders []closeOrder) {
	if l.newest.Load() < int64(moment) {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, o := range l.orders {
		if o.issued >= moment {
			orders = append(orders, o)
		}
	}
	return orders
}
