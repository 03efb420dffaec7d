package manager

import (
	"context"
	"encoding/json"
	"strconv"
	"time"
)

// Pauses between two attempts to read the close orders of nodes that do not answer.
const (
	minOrderPause = time.Second
	maxOrderPause = 8 * time.Second
)

// closeElsewhere has all other nodes close connections and returns how many they have closed.
func (c *cluster) closeElsewhere(ctx context.Context, o closeOrder) (closed int, err error) {
	body, err := json.Marshal(o)
	if err != nil {
		return 0, err
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
	if o, fresh := c.manager.orders.learn(o); fresh {
		closed = c.manager.carryOut(o)
	}
	return strconv.AppendInt(nil, int64(closed), 10), nil
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
	body, err := json.Marshal(c.manager.orders.request())
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
		fresh, err := c.manager.orders.apply(r, time.Since(answer.Received))
		if err != nil {
			c.refused("orders of other nodes", err)
		}
		if closed := c.manager.carryOutLate(fresh); closed > 0 {
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
	return json.Marshal(c.manager.orders.reply(q))
}
