package model

import (
	"maps"
	"slices"
)

// lock locks the model and returns the function that unlocks it. Every function below is called with the lock held.
func (m *Model) lock() (unlock func()) {
	m.mu.Lock()
	return m.mu.Unlock
}

func (m *Model) disconnect(user, conn string) {
	i := slices.Index(m.conns[user], conn)
	if i < 0 {
		return
	}
	m.conns[user] = slices.Delete(slices.Clone(m.conns[user]), i, i+1)
	last := len(m.conns[user]) == 0
	if !last {
		for c := range maps.Clone(m.claims) {
			if c.user == user && c.conn == conn && !m.claims[claim{user, "", c.upload}] {
				m.claims[claim{user, inherited, c.upload}] = true
			}
		}
	}
	m.drop(func(c claim) bool { return c.user == user && (last || c.conn == conn) })
}

// claim makes a claim, unless it may not be.
func (m *Model) claim(c claim) error {
	if followed := m.followed(c.user); len(followed) >= m.limits.Subscriptions && !slices.Contains(followed, c.upload) &&
		(c.conn == "" || slices.Contains(m.conns[c.user], c.conn)) {
		m.dropInherited(c.user)
	}
	followed := m.followed(c.user)
	switch {
	case c.conn != "" && !slices.Contains(m.conns[c.user], c.conn):
		return ErrUnknown
	case !slices.Contains(followed, c.upload) && len(followed) >= m.limits.Subscriptions:
		return ErrLimit
	}
	m.claims[c] = true
	if c.conn == "" {
		delete(m.claims, claim{c.user, inherited, c.upload})
	}
	return nil
}

// inherited stands for a connection in the claim that a user has from connections that have ended.
const inherited = "inherited"

// dropInherited ends the subscriptions that a user has only from connections that have ended.
func (m *Model) dropInherited(user string) {
	m.drop(func(c claim) bool {
		if c.user != user || c.conn != inherited {
			return false
		}
		for other := range m.claims {
			if other.user == user && other.upload == c.upload && other.conn != inherited {
				return false
			}
		}
		return true
	})
}

// drop ends claims. It also deletes the shown records of every claim or subscription that ends.
func (m *Model) drop(these func(claim) bool) {
	maps.DeleteFunc(m.claims, func(c claim, _ bool) bool { return these(c) })
	maps.DeleteFunc(m.shown, func(c claim, _ bool) bool {
		return these(c) || !slices.Contains(m.followed(c.user), c.upload)
	})
}

// update brings a connection up to date: with the missed messages if they can be recovered, else with the newest
// message, which is repeated only if the connection requests an update.
func (m *Model) update(c claim, asked bool, missed []Message, recovered bool) {
	if recovered {
		m.shown[c] = true
		m.sendMessages(c.conn, c.upload, missed...)
		return
	}
	if asked {
		delete(m.shown, c)
	}
	m.show(c)
}

// show sends the newest message to a connection that was not shown it.
func (m *Model) show(c claim) {
	if m.shown[c] {
		return
	}
	m.shown[c] = true
	if l := m.logs[c.upload]; l != nil && len(l.held()) > 0 {
		m.sendMessages(c.conn, c.upload, l.held()[len(l.held())-1])
	}
}

func (m *Model) sendMessages(conn, upload string, messages ...Message) {
	for _, msg := range messages {
		m.send(conn, Record{Kind: "message", Upload: upload, Body: msg.Body, Position: Position{0, msg.Offset}})
	}
}

func (m *Model) send(conn string, r Record) { m.received[conn] = append(m.received[conn], r) }

// followed returns the uploads that a user follows, each once.
func (m *Model) followed(user string) []string {
	return m.ids(func(c claim) (string, bool) { return c.upload, c.user == user })
}

// subscribers returns the users that follow an upload, each once.
func (m *Model) subscribers(upload string) []string {
	return m.ids(func(c claim) (string, bool) { return c.user, c.upload == upload })
}

// pending returns the users that follow something without having a connection, each once.
func (m *Model) pending() []string {
	return m.ids(func(c claim) (string, bool) { return c.user, len(m.conns[c.user]) == 0 })
}

// ids collects ids from the claims, sorted.
func (m *Model) ids(of func(claim) (id string, wanted bool)) []string {
	found := map[string]bool{}
	for c := range m.claims {
		if id, wanted := of(c); wanted {
			found[id] = true
		}
	}
	return slices.Sorted(maps.Keys(found))
}
