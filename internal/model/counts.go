package model

import "maps"

// Counts are the sizes of everything.
type Counts struct{ Connections, Users, Uploads, Subscriptions, Pending int }

// Counts returns the sizes of everything.
func (m *Model) Counts() Counts {
	defer m.lock()()
	c := Counts{Pending: len(m.pending())}
	users, uploads := map[string]bool{}, map[string]bool{}
	for user, conns := range m.conns {
		c.Connections += len(conns)
		users[user] = len(conns) > 0
	}
	for claim := range m.claims {
		users[claim.user], uploads[claim.upload] = true, true
	}
	maps.DeleteFunc(users, func(_ string, there bool) bool { return !there })
	for user := range users {
		c.Subscriptions += len(m.followed(user))
	}
	for upload := range m.logs {
		uploads[upload] = true
	}
	c.Users, c.Uploads = len(users), len(uploads)
	return c
}

// Subscribers returns the users that follow an upload, sorted.
func (m *Model) Subscribers(upload string) []string {
	defer m.lock()()
	return m.subscribers(upload)
}

// History returns the messages after a position if all of them are held, otherwise every message held, and the upload's
// position, which has epoch 0 if the upload has no log.
func (m *Model) History(upload string, since Position) (messages []Message, complete bool, at Position) {
	defer m.lock()()
	l := m.logs[upload]
	if l == nil {
		return nil, false, Position{}
	}
	if messages, complete = l.after(since); !complete {
		messages = l.held()
	}
	return messages, complete, l.position
}
