package manager

import (
	"math/bits"
	"slices"
	"sync/atomic"
	"time"
)

// Stats are a manager's counts. Taken while it works, each is right for some moment, not all for the same.
type Stats struct {
	// Now.
	Connections   int `json:"connections"`
	Users         int `json:"users"`
	Uploads       int `json:"uploads"`
	Subscriptions int `json:"subscriptions"`
	// Pending are users that have subscribed and have no connection.
	Pending int `json:"pending"`

	// Counts since the start: published messages, and the outcomes at single connections.
	Published uint64 `json:"published"`
	Queued    uint64 `json:"queued"`
	Conflated uint64 `json:"conflated"`
	Dropped   uint64 `json:"dropped"`

	// Panics are those of connections' methods.
	Panics uint64 `json:"connection_panics"`

	// Broker is nil on a node that is alone.
	Broker *BrokerStats `json:"broker,omitempty"`
}

// BrokerStats are the counts of a node's communication with other nodes, since the start.
type BrokerStats struct {
	// Received are the messages of uploads that the broker brought, Refused those of them and of the other
	// nodes' orders that made no sense.
	Received uint64 `json:"received"`
	Refused  uint64 `json:"refused"`
	// Recoveries counts the catch-ups of uploads with the broker's stored messages, on the first local follower or
	// after a possible loss; Resets counts the catch-ups that began a new epoch.
	Recoveries uint64 `json:"recoveries"`
	Resets     uint64 `json:"resets"`
	// SubscribeFailures, ReadFailures and PublishFailures are failed calls of the broker.
	SubscribeFailures uint64 `json:"subscribe_failures"`
	ReadFailures      uint64 `json:"read_failures"`
	PublishFailures   uint64 `json:"publish_failures"`
	// Conflated are the state messages that gave way to a newer one before they left this node.
	Conflated uint64 `json:"conflated"`
}

type clusterCounters struct {
	received, refused, recoveries, resets atomic.Uint64

	subscribeFailures, readFailures, publishFailures atomic.Uint64
	// logged is when a failure was last logged, on Manager.clock.
	logged atomic.Int64
}

// subscribeFailed, readFailed and publishFailed count a failed call of the broker. At most one per second is logged:
// the broker's health is reported by itself, but a single channel may be refused while all else is well.
func (c *cluster) subscribeFailed(err error) {
	c.counters.subscribeFailures.Add(1)
	c.logFailure("broker subscription failed", err)
}

func (c *cluster) readFailed(err error) {
	c.counters.readFailures.Add(1)
	c.logFailure("broker history read failed", err)
}

func (c *cluster) publishFailed(err error) {
	c.counters.publishFailures.Add(1)
	c.logFailure("broker publish failed", err)
}

func (c *cluster) logFailure(message string, err error) {
	now, last := c.manager.clock(), c.counters.logged.Load()
	if last == 0 || now-last >= int64(time.Second) {
		if c.counters.logged.CompareAndSwap(last, now) {
			c.manager.opt.Logger.Warn(message, "error", err)
		}
	}
}

// stats returns the counts.
func (c *cluster) stats() *BrokerStats {
	s := &BrokerStats{
		Received:   c.counters.received.Load(),
		Refused:    c.counters.refused.Load(),
		Recoveries: c.counters.recoveries.Load(),
		Resets:     c.counters.resets.Load(),

		SubscribeFailures: c.counters.subscribeFailures.Load(),
		ReadFailures:      c.counters.readFailures.Load(),
		PublishFailures:   c.counters.publishFailures.Load(),
	}
	if c.outgoing != nil {
		s.Conflated = c.outgoing.Counts().Replaced
	}
	return s
}

// refused counts a message from the broker that is invalid. It logs the channel, but never the message.
func (c *cluster) refused(channel string, err error) {
	n := c.counters.refused.Add(1)
	if bits.OnesCount64(n) == 1 || n%refusedToLog == 0 { // invalid messages must not flood the log
		c.manager.opt.Logger.Warn("message from the broker refused", "channel", channel, "error", err, "refused", n)
	}
}

// refusedToLog is the number of refused messages per log line, once many were refused.
const refusedToLog = 1024

// counters are changed once a broadcast, not once a receiver.
type counters struct {
	published, queued, conflated, dropped atomic.Uint64
}

func (c *counters) sent(d Delivery) {
	c.queued.Add(uint64(d.Queued)) //nolint:gosec // counts are not negative
	if d.Conflated > 0 {
		c.conflated.Add(uint64(d.Conflated))
	}
	if d.Dropped > 0 {
		c.dropped.Add(uint64(d.Dropped))
	}
}

// Stats returns the manager's counts.
func (m *Manager) Stats() Stats {
	if m.made() != nil {
		return Stats{}
	}
	n := m.registry.Counts()
	s := Stats{
		Connections:   n.Connections,
		Users:         n.Users,
		Uploads:       n.Uploads,
		Subscriptions: n.Subscriptions,
		Pending:       n.Pending,
		Published:     m.counters.published.Load(),
		Queued:        m.counters.queued.Load(),
		Conflated:     m.counters.conflated.Load(),
		Dropped:       m.counters.dropped.Load(),
		Panics:        m.guard.panics.Load(),
	}
	if m.cluster != nil {
		s.Broker = m.cluster.stats()
	}
	return s
}

// UploadSubscriberIDs returns the ids of the users that follow an upload, sorted.
func (m *Manager) UploadSubscriberIDs(uploadID string) []string {
	if m.made() != nil {
		return nil
	}
	ids := m.registry.SubscriberIDs(uploadID)
	slices.Sort(ids)
	return ids
}
