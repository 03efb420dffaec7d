package manager

import "context"

// Connect registers a connection of a user, which from then on gets what is sent to the user and to every
// upload that the user follows. It must be taken out with Disconnect. Connecting twice changes nothing.
//
// If the user has more connections than Options.MaxConnectionsPerUser allows, the oldest is closed with
// TooManyConnections. The error is an *InvalidError or ErrClosed.
func (m *Manager) Connect(userID string, c Conn) error {
	if err := CheckID("user_id", userID); err != nil {
		return err
	}
	if c == nil {
		return &InvalidError{"connection", "must not be nil"}
	}
	if m.closed.Load() {
		return ErrClosed
	}
	oldest, evicted := m.registry.Connect(userID, c, m.opt.MaxConnectionsPerUser, func(u *upload) {
		m.sendNewest(u, c)
	})
	if evicted {
		oldest.Close(TooManyConnections)
	}
	// Whoever closes the manager sets closed before looking for connections: either it finds this one, or
	// this finds closed set.
	if m.closed.Load() {
		m.registry.Disconnect(userID, c)
		return ErrClosed
	}
	return nil
}

// Disconnect takes a connection out, with all its claims. The user's subscriptions end with the last
// connection. It does not close the connection. Disconnecting one that is not registered has no effect.
func (m *Manager) Disconnect(userID string, c Conn) {
	m.registry.Disconnect(userID, c)
}

// DisconnectUser closes all connections of a user, on every node, and returns how many it closed on this one.
// With a broker it blocks on that; the error is then that of ctx or wraps ErrUnavailable, and the connections on
// other nodes may still be there.
func (m *Manager) DisconnectUser(ctx context.Context, userID string, reason CloseReason) (closed int, err error) {
	if m.cluster != nil {
		err = m.cluster.closeUser(ctx, userID, reason)
	}
	return m.closeUserHere(userID, reason), err
}

// DisconnectToken closes all connections that were opened with a token, on every node, and returns how many it
// closed on this one. They are those whose Conn is a TokenHolder of this id. It blocks and fails as
// DisconnectUser does.
func (m *Manager) DisconnectToken(ctx context.Context, tokenID string, reason CloseReason) (closed int, err error) {
	if m.cluster != nil {
		err = m.cluster.closeToken(ctx, tokenID, reason)
	}
	return m.closeTokenHere(tokenID, reason), err
}

func (m *Manager) closeTokenHere(tokenID string, reason CloseReason) (closed int) {
	m.registry.EachConnection(func(userID string, c Conn) {
		if hasToken(c, tokenID) {
			c.Close(reason)
			m.registry.Disconnect(userID, c)
			closed++
		}
	})
	return closed
}

func (m *Manager) closeUserHere(userID string, reason CloseReason) int {
	var conns []Conn
	m.registry.WithConnections(userID, func(cs []Conn) { conns = append(conns, cs...) })
	for _, c := range conns {
		c.Close(reason)
		m.registry.Disconnect(userID, c)
	}
	return len(conns)
}
