package manager

import (
	"slices"
	"sync/atomic"
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

	// Since the start: messages published, and what became of messages at single connections.
	Published uint64 `json:"published"`
	Queued    uint64 `json:"queued"`
	Conflated uint64 `json:"conflated"`
	Dropped   uint64 `json:"dropped"`
}

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
	n := m.registry.Counts()
	return Stats{
		Connections:   n.Connections,
		Users:         n.Users,
		Uploads:       n.Uploads,
		Subscriptions: n.Subscriptions,
		Pending:       n.Pending,
		Published:     m.counters.published.Load(),
		Queued:        m.counters.queued.Load(),
		Conflated:     m.counters.conflated.Load(),
		Dropped:       m.counters.dropped.Load(),
	}
}

// UploadSubscriberIDs returns the ids of the users that follow an upload, sorted.
func (m *Manager) UploadSubscriberIDs(uploadID string) []string {
	ids := m.registry.SubscriberIDs(uploadID)
	slices.Sort(ids)
	return ids
}
