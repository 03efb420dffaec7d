package model

import "time"

// Position is an epoch and the offset of the newest message in it. Epochs count from 1; 0 names none.
type Position struct {
	Epoch  int
	Offset uint64
}

// Message is one message of an upload.
type Message struct {
	Offset uint64
	Body   string
	at     time.Time
	lost   bool
}

// log holds every message that an upload ever had in this epoch, including lost ones.
type log struct {
	position Position
	messages []Message
	touched  time.Time
}

// held returns the messages that are not lost.
func (l *log) held() (held []Message) {
	for _, msg := range l.messages {
		if !msg.lost {
			held = append(held, msg)
		}
	}
	return held
}

// after returns the messages after a position, and whether they are known and none of them is lost.
func (l *log) after(since Position) (after []Message, complete bool) {
	complete = since.Epoch == l.position.Epoch && since.Offset <= l.position.Offset
	for _, msg := range l.messages {
		if msg.Offset > since.Offset {
			after = append(after, msg)
			complete = complete && !msg.lost
		}
	}
	return after, complete
}

// log returns an upload's log, begun if need be.
func (m *Model) log(upload string, now time.Time) *log {
	if m.logs[upload] == nil {
		m.epochs++
		m.logs[upload] = &log{position: Position{m.epochs, 0}, touched: now}
	}
	return m.logs[upload]
}

// Publish adds a message to an upload and sends it to all who follow it. It returns to how many connections.
func (m *Model) Publish(upload, body string, now time.Time) (at Position, receivers int) {
	defer m.lock()()
	l := m.log(upload, now)
	l.position.Offset++
	l.touched = now
	msg := Message{Offset: l.position.Offset, Body: body, at: now}
	l.messages = append(l.messages, msg)
	if beyond := len(l.messages) - m.limits.History; beyond > 0 {
		l.messages[beyond-1].lost = true
	}
	for _, user := range m.subscribers(upload) {
		for _, conn := range m.conns[user] {
			m.sendMessages(conn, upload, msg)
			receivers++
		}
	}
	return l.position, receivers
}

// SendToUser sends a message that belongs to no upload. It returns to how many connections.
func (m *Model) SendToUser(user, body string) int {
	defer m.lock()()
	for _, conn := range m.conns[user] {
		m.send(conn, Record{Kind: "message", Body: body})
	}
	return len(m.conns[user])
}

// Forget drops an upload's history and sends the new epoch to its subscribers.
func (m *Model) Forget(upload string, now time.Time) {
	defer m.lock()()
	delete(m.logs, upload)
	for _, user := range m.subscribers(upload) {
		at := m.log(upload, now).position
		for _, conn := range m.conns[user] {
			m.send(conn, Record{Kind: "subscribed", Upload: upload, Position: at})
		}
	}
}

// Expire drops everything older than its TTL: claims of users without connections, messages, and positions of uploads
// without subscribers and held messages.
func (m *Model) Expire(now time.Time) {
	defer m.lock()()
	for _, user := range m.pending() {
		if now.Sub(m.since[user]) > m.limits.PendingTTL {
			m.drop(func(c claim) bool { return c.user == user })
		}
	}
	for upload, l := range m.logs {
		for i, msg := range l.messages {
			l.messages[i].lost = msg.lost || now.Sub(msg.at) >= m.limits.HistoryTTL
		}
		keep := m.limits.HistoryTTL
		if l.position.Offset == 0 {
			keep = m.limits.PendingTTL
		}
		if len(l.held()) == 0 && len(m.subscribers(upload)) == 0 && now.Sub(l.touched) >= keep {
			delete(m.logs, upload)
		}
	}
}
