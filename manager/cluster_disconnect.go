package manager

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"time"
)

// Pauses between two attempts to read the close orders of nodes that do not answer.
const (
	minOrderPause = time.Second
	maxOrderPause = 8 * time.Second
)

// closeEverywhere has all nodes close connections and returns how many they have closed. The order is remembered first,
// so that a node which cannot be reached now carries it out when it is back.
func (c *cluster) closeEverywhere(ctx context.Context, o closeOrder) (closed int, err error) {
	o = c.orders.issue(o)
	closed = c.carryOut(o)
	body, err := json.Marshal(o)
	if err != nil {
		return closed, err
	}
	answers, err := c.askAll(ctx, o.Kind, body)
	for _, answer := range answers {
		n, _ := strconv.Atoi(string(answer.Body)) // closeHere writes a number
		closed += n
	}
	return closed, err
}

// closeHere carries out an order that a node has just issued and returns how many connections it has closed.
func (c *cluster) closeHere(body []byte) ([]byte, error) {
	var o closeOrder
	err := json.Unmarshal(body, &o)
	if err == nil {
		err = o.check()
	}
	if err != nil {
		c.refused("orders of other nodes", err)
		return nil, err
	}
	closed := 0
	if o, fresh := c.orders.learn(o); fresh {
		closed = c.carryOut(o)
	}
	return strconv.AppendInt(nil, int64(closed), 10), nil
}

// carryOut closes the connections that an order of this moment concerns, and returns their number.
func (c *cluster) carryOut(o closeOrder) int {
	if o.Kind == closeUser {
		return c.manager.closeUserHere(o.UserID, o.Reason)
	}
	return c.manager.closeTokenHere(o.TokenID, o.Reason)
}

// carryOutLate closes the connections that are older than one of the orders that concern them, and returns their
// number.
func (c *cluster) carryOutLate(orders []closeOrder) (closed int) {
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
			if since <= o.issued && o.concerns(userID, conn, &c.manager.guard) {
				closed += c.manager.disconnectAndClose(userID, conn, o.Reason)
				return
			}
		}
	}
	for userID, orders := range byUser {
		for _, conn := range c.manager.connections(userID) {
			check(userID, conn, orders)
		}
	}
	if len(ofTokens) > 0 {
		c.manager.registry.EachConnection(func(userID string, conn Conn) { check(userID, conn, ofTokens) })
	}
	return closed
}

// closeIfRevoked closes a connection that has just been registered if an order that was issued since it began concerns
// it: the order may have been carried out before the connection was registered.
func (c *cluster) closeIfRevoked(userID string, conn Conn, since time.Duration) {
	// The connection is asked for its tokens without the lock of the orders.
	orders := slices.DeleteFunc(c.orders.since(since), func(o closeOrder) bool {
		return !o.concerns(userID, conn, &c.manager.guard)
	})
	if len(orders) > 0 {
		first := slices.MinFunc(orders, func(a, b closeOrder) int { return cmp.Compare(a.issued, b.issued) })
		c.manager.disconnectAndClose(userID, conn, first.Reason)
	}
}

// syncOrders reads the close orders that this node has missed, whenever a hello of another node or the broker suggests
// that there are any, until ctx ends. It repeats the question while a node does not answer.
func (c *cluster) syncOrders(ctx context.Context) {
	again := time.NewTimer(maxOrderPause)
	defer again.Stop()
	again.Stop()
	pause := minOrderPause
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.ordersMissed:
		case <-again.C:
		}
		if c.readOrders(ctx) {
			pause = minOrderPause
			again.Stop()
			continue
		}
		again.Reset(pause)
		pause = min(2*pause, maxOrderPause)
	}
}

// missedOrders wakes syncOrders. It does not block.
func (c *cluster) missedOrders() {
	select {
	case c.ordersMissed <- struct{}{}:
	default:
	}
}

// readOrders asks all other nodes for the close orders that this one does not have, and carries them out. It reports
// whether every node has answered.
func (c *cluster) readOrders(ctx context.Context) (complete bool) {
	body, err := json.Marshal(c.orders.request())
	if err != nil {
		return true // cannot happen: strings and numbers
	}
	answers, missing, err := c.peers.Ask(ctx, askOrders, body)
	if err != nil {
		return false
	}
	for node, answer := range answers {
		if node == c.peers.Name() {
			continue
		}
		var r orderReply
		err := json.Unmarshal(answer.Body, &r)
		if err != nil {
			c.refused("orders of other nodes", err)
			continue
		}
		fresh, err := c.orders.apply(r, time.Since(answer.Received))
		if err != nil {
			c.refused("orders of other nodes", err)
		}
		if closed := c.carryOutLate(fresh); closed > 0 {
			c.manager.opt.Logger.Info("close orders carried out late", "orders", len(fresh), "closed", closed)
		}
	}
	return len(missing) == 0
}

// answerOrders answers readOrders of another node.
func (c *cluster) answerOrders(body []byte) ([]byte, error) {
	var q orderRequest
	if err := json.Unmarshal(body, &q); err != nil {
		c.refused("orders of other nodes", err)
		return nil, err
	}
	return json.Marshal(c.orders.reply(q))
}
