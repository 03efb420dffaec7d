package manager

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
)

// Connect is ConnectSince for a connection whose user has just been identified: it begins now. The error is an
// *InvalidError, ErrTooManyConnections or ErrClosed.
func (m *Manager) Connect(userID string, c Conn) error { return m.ConnectSince(userID, c, Moment{}) }

// ConnectSince registers a connection of a user, which from then on receives every message to the user and to every
// upload that the user follows. It must be removed with Disconnect. Connecting twice changes nothing.
//
// If the user has as many connections as Options.MaxConnectionsPerUser allows, the one that has been silent longest is
// removed and closed with IdleTimeout, if it is a SilenceReporter and has been silent for more than
// Options.EvictSilentAfter; otherwise the error is ErrTooManyConnections. Other errors are an *InvalidError or
// ErrClosed.
//
// The connection counts as begun at a moment: the one before its token was checked, or its user was identified in
// another way. An order of DisconnectUser or DisconnectToken that was issued since, on any node, closes it, although it
// was carried out while the connection was not registered: then the error is nil and the connection closed. With the
// zero Moment the connection begins now.
func (m *Manager) ConnectSince(userID string, c Conn, since Moment) error {
	if err := m.check(); err != nil {
		return err
	}
	if err := CheckID("user_id", userID); err != nil {
		return err
	}
	if !isUsable(c) {
		return &InvalidError{"connection", fmt.Sprintf("must be comparable and not nil, such as a pointer, but is %T", c)}
	}
	since = m.stampConn(userID, c, since)
	old, evicted, err := m.registry.Connect(userID, c, m.opt.MaxConnectionsPerUser, m.mostSilent, func(u *upload) {
		m.sendNewest(u, c)
	})
	switch {
	case err != nil:
		return ErrTooManyConnections
	case evicted:
		m.guard.close(old, IdleTimeout)
		m.guard.forget(old)
	}
	// Close sets closed before it looks for connections: either it finds this one, or this finds closed set.
	if m.closed.Load() {
		m.registry.Disconnect(userID, c)
		return ErrClosed
	}
	m.CloseIfRevoked(userID, c, since)
	return nil
}

// mostSilent returns the index of the connection that has been silent longest, or -1 if none has been for long enough.
func (m *Manager) mostSilent(conns []Conn) int {
	found, longest := -1, m.opt.EvictSilentAfter
	for i, c := range conns {
		if s, ok := c.(SilenceReporter); ok {
			if silent := m.guard.silentFor(s); silent > longest {
				found, longest = i, silent
			}
		}
	}
	return found
}

// isUsable reports whether a connection can be a key of the registry, and is not nil.
func isUsable(c Conn) bool {
	r := reflect.ValueOf(c)
	if r.Kind() == reflect.Pointer { // as most are: pointers are comparable
		return !r.IsNil()
	}
	return r.IsValid() && r.Comparable()
}

// isNil reports whether a value is nil or a nil pointer.
func isNil(v any) bool {
	r := reflect.ValueOf(v)
	return !r.IsValid() || r.Kind() == reflect.Pointer && r.IsNil()
}

// Disconnect unregisters a connection. Its claims pass to the user while another connection is left; the user's
// subscriptions end with the last one. It does not close the connection, but cancels the replays of a Replayer that is
// not closing. It has no effect on an unregistered one.
func (m *Manager) Disconnect(userID string, c Conn) {
	if m.checkCreated() != nil || !isUsable(c) {
		return
	}
	if m.registry.Disconnect(userID, c) { // a call for another user must not let messages follow one that was lost
		m.guard.forget(c)
	}
}

// DisconnectUser closes all connections of a user, on every node, and returns how many were closed. With a broker it
// blocks until every node has confirmed, at most until ctx ends or for some seconds.
//
// The error then wraps ErrUnavailable, and ctx's error if that has ended, or ErrRefused, or is a *MissingNodesError
// with the nodes that did not confirm.
// A node that was cut off, whether it is named or not, closes the connections that are older than the call when it is
// back: the nodes that are left remember the order for 24 hours, each the newest 4096 orders, or 16 MiB of them. An
// invalid id or reason is an *InvalidError, and then nothing is closed.
func (m *Manager) DisconnectUser(ctx context.Context, userID string, reason CloseReason) (closed int, err error) {
	if err := errors.Join(m.checkCreated(), CheckID("user_id", userID), reason.Check()); err != nil {
		return 0, err
	}
	return m.closeEverywhere(ctx, closeOrder{Kind: closeUser, UserID: userID, Reason: reason.orNormal()})
}

// DisconnectToken closes all connections that were opened with a token, on every node, and returns how many were
// closed. They are those whose Conn is a TokenHolder or a TokenSet of this id. It blocks and fails as DisconnectUser
// does, and reaches nodes that were cut off in the same way.
func (m *Manager) DisconnectToken(ctx context.Context, tokenID string, reason CloseReason) (closed int, err error) {
	if err := errors.Join(m.checkCreated(), reason.Check()); err != nil {
		return 0, err
	}
	if len(tokenID) > maxTokenIDBytes {
		return 0, &InvalidError{"token_id",
			fmt.Sprintf("has %d bytes, at most %d are allowed", len(tokenID), maxTokenIDBytes)}
	}
	if tokenID == "" { // no connection has it
		return 0, nil
	}
	return m.closeEverywhere(ctx, closeOrder{Kind: closeToken, TokenID: tokenID, Reason: reason.orNormal()})
}

func (m *Manager) closeTokenHere(tokenID string, reason CloseReason) (closed int) {
	m.registry.EachConnection(func(userID string, c Conn) {
		if m.guard.hasToken(c, tokenID) {
			closed += m.disconnectAndClose(userID, c, reason)
		}
	})
	return closed
}

func (m *Manager) closeUserHere(userID string, reason CloseReason) (closed int) {
	for _, c := range slices.Backward(m.connections(userID)) { // the registry finds the newest connections first
		closed += m.disconnectAndClose(userID, c, reason)
	}
	return closed
}

// UserConnections returns the connections of a user on this node, oldest first.
func (m *Manager) UserConnections(userID string) []Conn {
	if m.checkCreated() != nil {
		return nil
	}
	return m.connections(userID)
}

// connections returns the connections of a user on this node.
func (m *Manager) connections(userID string) (conns []Conn) {
	m.registry.WithConnections(userID, func(cs []Conn) { conns = append(conns, cs...) })
	return conns
}

// disconnectAndClose unregisters a connection and then closes it: it gets the messages of bursts first, and what it is
// owed of replays. It returns 1, for the callers' sums.
func (m *Manager) disconnectAndClose(userID string, c Conn, reason CloseReason) int {
	unregistered := isUsable(c) && m.registry.DisconnectClosing(userID, c)
	m.guard.close(c, reason)
	if unregistered {
		m.guard.forget(c)
	}
	return 1
}
