package manager

import (
	"slices"
	"sync/atomic"

	"github.com/shoal-go/shoal/internal/frame"
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

	// Messages are the accepted messages since the start, by the way that they came in and by class.
	Messages MessageCounts `json:"messages"`

	// Panics are those of the methods of connections and of the Tracer.
	Panics uint64 `json:"connection_panics"`

	// HistoryUploads are the uploads with stored messages now, HistoryMessages and HistoryBytes their messages and the
	// memory that Options.HistoryTotalBytes bounds. HistoryEvicted are the uploads that lost stored messages because of
	// that bound or Options.MaxUploads, since the start.
	HistoryUploads  int64  `json:"history_uploads"`
	HistoryMessages int64  `json:"history_messages"`
	HistoryBytes    int64  `json:"history_bytes"`
	HistoryEvicted  uint64 `json:"history_evicted"`

	// Broker is nil on a node that is alone.
	Broker *BrokerStats `json:"broker,omitempty"`
}

// MessageCounts are messages by the way that they came in: Publish, SendToUploadSubscribers, SendToUser, and the
// broker, which brings a node's own published messages too.
type MessageCounts struct {
	Publish ClassCounts `json:"publish"`
	Local   ClassCounts `json:"local"`
	User    ClassCounts `json:"user"`
	Broker  ClassCounts `json:"broker"`
}

// ClassCounts are messages by class.
type ClassCounts struct {
	Event    uint64 `json:"event"`
	State    uint64 `json:"state"`
	Terminal uint64 `json:"terminal"`
}

// Total returns the sum.
func (c ClassCounts) Total() uint64 { return c.Event + c.State + c.Terminal }

// classCounters are the counters of ClassCounts, by class.
type classCounters [frame.Terminal + 1]atomic.Uint64

// add counts a message.
func (c *classCounters) add(class frame.Class) {
	if int(class) < len(c) {
		c[class].Add(1)
	}
}

func (c *classCounters) counts() ClassCounts {
	return ClassCounts{c[frame.Event].Load(), c[frame.State].Load(), c[frame.Terminal].Load()}
}

// BrokerStats are the counts of a node's communication with other nodes, since the start.
type BrokerStats struct {
	// Received are the messages of uploads received from the broker. Refused are the invalid ones among them, among the
	// stored ones at each read, and among the orders of other nodes.
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
	// LateOrders are orders to close connections that this node learned of after it had missed them; DroppedOrders are
	// orders that it no longer remembers for other nodes, because there were too many.
	LateOrders    uint64 `json:"late_orders"`
	DroppedOrders uint64 `json:"dropped_orders"`
	// Overflowed are uploads that were read from the broker once more because too many messages arrived at once.
	Overflowed uint64 `json:"overflowed"`
	// NodesLost are nodes that fell silent without leaving, NodeMessagesDropped the messages between nodes that were
	// malformed, late or too many.
	NodesLost           uint64 `json:"nodes_lost"`
	NodeMessagesDropped uint64 `json:"node_messages_dropped"`
	// Oversized are messages that the broker dropped because they were larger than it takes; 0 if it does not count
	// them.
	Oversized uint64 `json:"oversized"`
	// DelayedStateFailures are failed attempts to publish a state that Options.StateRate had delayed.
	DelayedStateFailures uint64 `json:"delayed_state_failures"`

	// Now: whether messages come through, the number of known nodes, this one among them, the received messages that
	// have not been delivered, and the uploads whose catch-up or subscription is not finished.
	Healthy     bool `json:"healthy"`
	Nodes       int  `json:"nodes"`
	Waiting     int  `json:"waiting"`
	CatchingUp  int  `json:"catching_up"`
	Subscribing int  `json:"subscribing"`
}

type clusterCounters struct {
	received, refused, recoveries, resets, overflowed atomic.Uint64

	subscribeFailures, readFailures, publishFailures atomic.Uint64
	// logged is when a failure was last logged, on Manager.clock.
	logged atomic.Int64
}

// stats returns the counts.
func (c *cluster) stats() *BrokerStats {
	peers := c.peers.Counts()
	s := &BrokerStats{
		Received:   c.counters.received.Load(),
		Refused:    c.counters.refused.Load(),
		Recoveries: c.counters.recoveries.Load(),
		Resets:     c.counters.resets.Load(),

		SubscribeFailures: c.counters.subscribeFailures.Load(),
		ReadFailures:      c.counters.readFailures.Load(),
		PublishFailures:   c.counters.publishFailures.Load(),

		LateOrders:    c.manager.orders.late.Load(),
		DroppedOrders: c.manager.orders.dropped.Load(),

		Overflowed:          c.counters.overflowed.Load(),
		NodesLost:           peers.Lost,
		NodeMessagesDropped: peers.Malformed + peers.Stray + peers.Overflow,
		Healthy:             c.health.Load() == nil,
		Nodes:               len(c.peers.Members()),
		Waiting:             c.dispatch.Len(),
		CatchingUp:          c.catching.Len(),
		Subscribing:         c.interest.Len(),
	}
	if b, ok := c.broker.(interface{ Oversized() uint64 }); ok {
		s.Oversized = b.Oversized()
	}
	if c.outgoing != nil {
		counts := c.outgoing.Counts()
		s.Conflated, s.DelayedStateFailures = counts.Replaced, counts.Failed
	}
	return s
}

// counters are changed once a broadcast, not once a receiver.
type counters struct {
	published, queued, conflated, dropped atomic.Uint64
	// Accepted messages by the way that they came in.
	byPublish, byLocal, byUser, byBroker classCounters
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
	if m.checkCreated() != nil {
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
		Messages: MessageCounts{
			Publish: m.counters.byPublish.counts(),
			Local:   m.counters.byLocal.counts(),
			User:    m.counters.byUser.counts(),
			Broker:  m.counters.byBroker.counts(),
		},
		Panics: m.guard.panics.Load(),

		HistoryUploads:  m.held.uploads.Load(),
		HistoryMessages: m.held.messages.Load(),
		HistoryBytes:    m.held.bytes.Load(),
		HistoryEvicted:  m.held.evicted.Load(),
	}
	if m.cluster != nil {
		s.Broker = m.cluster.stats()
	}
	return s
}

// ShardStats are the sizes of one shard of the registry.
type ShardStats struct {
	Connections   int `json:"connections"`
	Users         int `json:"users"`
	Uploads       int `json:"uploads"`
	Subscriptions int `json:"subscriptions"`
}

// ShardStats returns the sizes of each shard. The hash of an id selects its shard.
func (m *Manager) ShardStats() []ShardStats {
	if m.checkCreated() != nil {
		return nil
	}
	counts := m.registry.ShardCounts()
	stats := make([]ShardStats, 0, len(counts))
	for _, c := range counts {
		stats = append(stats, ShardStats{c.Connections, c.Users, c.Uploads, c.Subscriptions})
	}
	return stats
}

// UserUploads returns at most limit of the uploads that a user follows on this node, sorted, and the number of all of
// them.
func (m *Manager) UserUploads(userID string, limit int) (uploadIDs []string, total int) {
	if m.checkCreated() != nil {
		return nil, 0
	}
	uploadIDs, total = m.registry.Subscriptions(userID, limit)
	slices.Sort(uploadIDs)
	return uploadIDs, total
}

// Followers returns the number of users that follow an upload on this node.
func (m *Manager) Followers(uploadID string) (users int) {
	if m.checkCreated() == nil {
		m.registry.WithKnown(uploadID, func(u *upload) { users = u.Subscribers() })
	}
	return users
}

// UploadSubscriberIDs returns the ids of the users that follow an upload on this node, sorted. Subscribers queries all
// nodes.
func (m *Manager) UploadSubscriberIDs(uploadID string) []string {
	if m.checkCreated() != nil {
		return nil
	}
	ids := m.registry.SubscriberIDs(uploadID)
	slices.Sort(ids)
	return ids
}
