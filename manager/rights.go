package manager

// TokenSet is implemented by a Conn that has shown several tokens, so that DisconnectToken finds it by each of them. It
// takes precedence over TokenHolder.
type TokenSet interface {
	// HasToken reports whether the connection has shown the token with an id, the `jti` claim of a JWT.
	HasToken(tokenID string) bool
}

// hasToken reports whether a connection was authenticated by a token.
func hasToken(c Conn, tokenID string) bool {
	switch t := c.(type) {
	case TokenSet:
		return tokenID != "" && t.HasToken(tokenID)
	case TokenHolder:
		return tokenID != "" && t.TokenID() == tokenID
	}
	return false
}

// Limits are the options of a manager that its callers have to respect.
type Limits struct {
	// MaxMessageBytes bounds a published message.
	MaxMessageBytes int
	// MaxSubscriptionsPerUser bounds the uploads that a user follows; negative: no bound.
	MaxSubscriptionsPerUser int
	// HistoryTotalBytes bounds Stats.HistoryBytes; negative: no bound.
	HistoryTotalBytes int
}

// Limits returns the limits that the manager was made with.
func (m *Manager) Limits() Limits {
	return Limits{m.opt.MaxMessageBytes, m.opt.MaxSubscriptionsPerUser, m.opt.HistoryTotalBytes}
}

// Claims returns the uploads that a registered connection itself has subscribed to: by SubscribeConn or Resume, and
// not by another connection of its user. Their order is not defined.
func (m *Manager) Claims(userID string, c Conn) (uploadIDs []string) {
	return m.registry.Claims(userID, c)
}

// Admissible returns the uploads that a connection could subscribe to, one after the other, within
// Options.MaxSubscriptionsPerUser. It is cheap, and meant to be called before an expensive authorization. It returns
// ErrNotConnected if the connection is not registered for the user.
func (m *Manager) Admissible(userID string, c Conn, uploadIDs ...string) (admitted []string, err error) {
	admitted, registered := m.registry.Admissible(userID, c, uploadIDs, m.opt.MaxSubscriptionsPerUser)
	if !registered {
		return nil, ErrNotConnected
	}
	return admitted, nil
}
