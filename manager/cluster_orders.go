package manager

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"
	"unicode/utf8"

	"github.com/shoal-go/shoal/internal/frame"
)

// wireOrder is the JSON form of a closeOrder. JSON text cannot hold a token id that is not valid UTF-8, such as a
// session id of random bytes: other nodes would compare their connections with another id.
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
	if len(o.Reason.Text) > frame.MaxReasonBytes {
		return &InvalidError{"reason",
			fmt.Sprintf("has %d bytes, at most %d are allowed", len(o.Reason.Text), frame.MaxReasonBytes)}
	}
	return o.Reason.Check()
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
	o.issued = l.clock.read().minus(o.Age - inaccuracy)
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
	Process string    `json:"process"`
	Learned uint64    `json:"learned"`
	Issued  uint64    `json:"issued"`
	Orders  orderList `json:"orders,omitempty"`
}

// orderList is a list of orders in JSON. One with more orders than a log holds is refused while it is decoded, because
// an order may take far more memory than its text.
type orderList []closeOrder

// UnmarshalJSON implements json.Unmarshaler.
func (l *orderList) UnmarshalJSON(data []byte) error {
	d := json.NewDecoder(bytes.NewReader(data))
	if begin, err := d.Token(); err != nil || begin != json.Delim('[') {
		return cmp.Or(err, errors.New("orders are no list"))
	}
	for d.More() {
		if len(*l) == maxOrders {
			return fmt.Errorf("more than %d orders", maxOrders)
		}
		var o closeOrder
		if err := d.Decode(&o); err != nil {
			return err
		}
		*l = append(*l, o)
	}
	return nil
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
	now := l.clock.read()
	for _, o := range l.orders {
		if o.learned > q.Read[l.process] {
			o.Age = max(now.least-o.issued.least, 1)
			r.Orders = append(r.Orders, o)
		}
	}
	return r
}

// apply adds the orders of a reply that was received some time ago: the question waits for the slowest node. It returns
// the orders that this node did not have, and the error of the first invalid one.
func (l *orderLog) apply(r orderReply, ago time.Duration) (fresh []closeOrder, err error) {
	for _, o := range r.Orders {
		o.Age = min(o.Age, math.MaxInt64-ago) + ago
		if problem := o.check(); problem != nil {
			err = cmp.Or(err, problem)
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
