// Package model holds the reference semantics of users, uploads, claims and recovery in plain maps under one
// mutex. Nothing here is fast, and nothing is clever: tests run the manager beside it and compare.
package model

import (
	"errors"
	"maps"
	"slices"
	"sync"
	"time"
)

// Limits bound a model. Each must be positive.
type Limits struct {
	Connections, Subscriptions, Pending, History int
	HistoryTTL, PendingTTL                       time.Duration
}

// Why the model refuses something.
var (
	ErrUnknown = errors.New("model: the connection is not registered")
	ErrLimit   = errors.New("model: the user follows too many uploads")
	ErrFull    = errors.New("model: the user has too many connections")
	ErrPending = errors.New("model: too many users wait for a connection")
)

// Record is one thing that a connection must have received: "message" with its body and offset, "subscribed"
// or "resumed" with a position, "closed" with the reason as its body.
type Record struct {
	Kind, Upload, Body string
	Position           Position
	Recovered          bool
}

// Model is safe for concurrent use. Each method has the effect of the manager's method of the same name, atomically. A
// connection is represented by its name.
type Model struct {
	mu     sync.Mutex
	limits Limits
	// conns are the connections of each user, oldest first.
	conns map[string][]string
	// claims keep subscriptions alive: a user follows an upload as long as there is a claim of the two.
	claims map[claim]bool
	// shown are the claims whose connection has received the upload's newest message.
	shown map[claim]bool
	// since is when a user without connections last asked for something.
	since    map[string]time.Time
	logs     map[string]*log
	epochs   int
	received map[string][]Record
}

// claim is a connection's wish to follow an upload; the connection "" stands for the user as such.
type claim struct{ user, conn, upload string }

// New returns an empty model.
func New(limits Limits) *Model {
	return &Model{
		limits: limits, conns: map[string][]string{}, claims: map[claim]bool{}, shown: map[claim]bool{},
		since: map[string]time.Time{}, logs: map[string]*log{}, received: map[string][]Record{},
	}
}

// Connect registers a connection, if it is not and the user may have one more.
func (m *Model) Connect(user, conn string) error {
	defer m.lock()()
	if slices.Contains(m.conns[user], conn) {
		return nil
	}
	if len(m.conns[user]) >= m.limits.Connections {
		return ErrFull
	}
	m.conns[user] = append(m.conns[user], conn)
	for _, upload := range m.followed(user) {
		if m.claims[claim{user, "", upload}] {
			m.show(claim{user, conn, upload})
		}
	}
	return nil
}

// Disconnect takes a connection out, if it is registered.
func (m *Model) Disconnect(user, conn string) {
	defer m.lock()()
	m.disconnect(user, conn)
}

// DisconnectUser closes all connections of a user and returns how many.
func (m *Model) DisconnectUser(user, reason string) int {
	defer m.lock()()
	conns := slices.Clone(m.conns[user])
	for _, conn := range conns {
		m.send(conn, Record{Kind: "closed", Body: reason})
		m.disconnect(user, conn)
	}
	return len(conns)
}

// SubscribeUpload makes the claim that belongs to the user as such.
func (m *Model) SubscribeUpload(user, upload string, now time.Time) error {
	defer m.lock()()
	newcomer := len(m.conns[user]) == 0 && len(m.followed(user)) == 0
	if newcomer && len(m.pending()) >= m.limits.Pending {
		return ErrPending
	}
	if err := m.claim(claim{user, "", upload}); err != nil {
		return err
	}
	if len(m.conns[user]) == 0 {
		m.since[user] = now
	}
	for _, conn := range m.conns[user] {
		m.show(claim{user, conn, upload})
	}
	return nil
}

// UnsubscribeUpload ends a subscription regardless of its claims.
func (m *Model) UnsubscribeUpload(user, upload string) {
	defer m.lock()()
	m.drop(func(c claim) bool { return c.user == user && c.upload == upload })
}

// SubscribeConn makes the claim of one connection. since may be nil.
func (m *Model) SubscribeConn(user, conn, upload string, since *Position, acknowledge bool, now time.Time) error {
	defer m.lock()()
	if err := m.claim(claim{user, conn, upload}); err != nil {
		return err
	}
	var missed []Message
	recovered := false
	if since != nil {
		missed, recovered = m.log(upload, now).after(*since)
	}
	if acknowledge {
		at := m.log(upload, now).position
		m.send(conn, Record{Kind: "subscribed", Upload: upload, Position: at, Recovered: recovered})
	}
	m.update(claim{user, conn, upload}, since != nil, missed, recovered)
	return nil
}

// UnsubscribeConn takes back the claim of one connection, if it has made one.
func (m *Model) UnsubscribeConn(user, conn, upload string) {
	defer m.lock()()
	if !m.claims[claim{user, conn, upload}] {
		return
	}
	m.drop(func(c claim) bool { return c == claim{user, conn, upload} })
}

// Resume makes a claim for each upload, in the order of their ids, and returns the refused ones, which it leaves alone.
func (m *Model) Resume(user, conn string, since map[string]Position, now time.Time) (map[string]error, error) {
	defer m.lock()()
	switch {
	case len(since) > m.limits.Subscriptions:
		return nil, ErrLimit
	case !slices.Contains(m.conns[user], conn):
		return nil, ErrUnknown
	}
	refused := map[string]error{}
	for _, upload := range slices.Sorted(maps.Keys(since)) {
		if err := m.claim(claim{user, conn, upload}); err != nil {
			refused[upload] = err
			continue
		}
		missed, recovered := m.log(upload, now).after(since[upload])
		at := m.logs[upload].position
		m.send(conn, Record{Kind: "resumed", Upload: upload, Position: at, Recovered: recovered})
		m.update(claim{user, conn, upload}, true, missed, recovered)
	}
	return refused, nil
}

// Received returns the records of one upload that a connection must have received so far, in order. The upload ""
// stands for records that belong to no upload.
func (m *Model) Received(conn, upload string) []Record {
	defer m.lock()()
	return slices.DeleteFunc(slices.Clone(m.received[conn]), func(r Record) bool { return r.Upload != upload })
}

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
