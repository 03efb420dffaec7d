package server

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/shoal-go/shoal/internal/strictjson"
	"github.com/shoal-go/shoal/manager"
)

// identify calls Options.Identify, for a WebSocket or an event stream. It returns the identity or the problem.
func (s *Server) identify(r *http.Request) (Identity, *apiProblem) {
	ctx, cancel := s.hookContext(r)
	defer cancel()
	defer s.requestHooks.run("Identify")()
	id, err := s.opt.Identify(r.WithContext(ctx))
	var refused *TokenError
	switch {
	case errors.As(err, &refused), errors.Is(err, http.ErrNoCookie):
		return id, unauthorized(bearerChallenge, "not identified")
	case errors.Is(err, ErrForbidden):
		return id, newProblem(http.StatusForbidden, "not allowed")
	case err != nil:
		if s.awaits(r) {
			s.logs.identify.Log(s.opt.Logger, slog.LevelWarn, "Identify failed", "remote", s.peer(r), "error", err)
		}
		return id, unavailable("identification is not possible now, try again later")
	}
	if err := manager.CheckID("user_id", id.UserID); err != nil {
		s.logs.invalidUser.Log(s.opt.Logger, slog.LevelError, "Identify returned an invalid user id", "error", err)
		return id, newProblem(http.StatusInternalServerError, "internal error")
	}
	return id, nil
}

// begin starts a connection: with the identity of its request, which was asked for since a moment, with the token of
// its request, or by waiting for the first message.
func (c *Client) begin(id *Identity, since manager.Moment, token string) {
	switch {
	case id != nil:
		c.enter(*id, since, false)
	case token != "":
		c.authenticate(token)
	default:
		c.mu.Lock()
		c.deadline = time.AfterFunc(c.server.opt.AuthTimeout, c.onDeadline)
		c.mu.Unlock()
	}
}

// stopAuthTimeout ends the time for the first message, which has come: AuthTimeout does not cover Authenticate. It
// reports false if the time was up before.
func (c *Client) stopAuthTimeout() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stage != authenticating {
		return false
	}
	if c.deadline != nil {
		c.deadline.Stop()
		c.deadline = nil
	}
	return true
}

// onAuth handles the first message of a client.
func (c *Client) onAuth(text bool, data []byte) {
	if !c.stopAuthTimeout() {
		return
	}
	message, err := strictjson.Decode(data)
	if err == nil {
		err = message.Duplicate()
	}
	if !text || err != nil {
		c.Close(manager.InvalidFormat)
		return
	}
	if kind, err := message.Text("type"); err != nil || kind != "auth" {
		c.refuse("Authentication required", codeRequired, manager.AuthRequired)
		return
	}
	c.onToken(message)
}

// onToken handles an auth message: the first message, or one that renews the token.
func (c *Client) onToken(message strictjson.Object) {
	token, err := message.Text("token")
	if err != nil || token == "" {
		c.refuse("Authentication required", codeRequired, manager.AuthRequired)
		return
	}
	c.authenticate(token)
}

// authenticate checks a token, and opens the connection or renews its identity.
func (c *Client) authenticate(token string) {
	var id Identity
	var err error
	since := c.server.manager.Moment()
	c.call("Authenticate", c.server.opt.HookTimeout, func(ctx context.Context) {
		id, err = c.server.checkToken(ctx, token)
	})
	var refused *TokenError
	switch {
	case err == nil && c.authenticated():
		c.renew(id, since)
	case err == nil:
		c.enter(id, since, true)
	case errors.As(err, &refused):
		c.server.tokenRefused(refused, c.RemoteAddr().String())
		c.refuse(refused.Message, refused.code(), manager.InvalidToken)
	default:
		c.authUnavailable(err)
	}
}

// checkToken calls Options.Authenticate. An invalid user id of the hook is an error of the operator's.
func (s *Server) checkToken(ctx context.Context, token string) (Identity, error) {
	id, err := s.opt.Authenticate(ctx, token)
	if err != nil {
		return id, err
	}
	if err := manager.CheckID("user_id", id.UserID); err != nil {
		s.logs.invalidUser.Log(s.opt.Logger, slog.LevelError, "Authenticate returned an invalid user id", "error", err)
		return id, &TokenError{Message: "Authentication failed"}
	}
	return id, nil
}

// tokenRefused counts and logs a token that is known to be bad.
func (s *Server) tokenRefused(refused *TokenError, remote string) {
	s.counters.unauthenticated.Add(1)
	s.logs.refusedToken.Log(s.opt.Logger, slog.LevelInfo, "token refused", "reason", refused.Message, "remote", remote)
}

// authenticateFailed counts and logs a token that cannot be checked.
func (s *Server) authenticateFailed(err error) {
	s.counters.unavailable.Add(1)
	s.logs.authenticate.Log(s.opt.Logger, slog.LevelWarn, "authentication unavailable", "error", err)
}

// authUnavailable handles a token that cannot be checked now. An open connection stays open until its current token
// expires; any other is closed with TryAgainLater.
func (c *Client) authUnavailable(err error) {
	if !c.gone() {
		c.server.authenticateFailed(err)
	}
	c.mu.Lock()
	renews := c.stage == open
	c.unchecked = renews
	c.mu.Unlock()
	if !renews {
		c.closeUnavailable(func() bool { return true })
	} else if c.v1 {
		c.out.Send(authUnavailableFrame())
	}
}

// closeUnavailable closes the connection with TryAgainLater, on a condition as refuseIf, because its client's token
// cannot be checked.
func (c *Client) closeUnavailable(condition func() bool) (closed bool) {
	if !c.setClosingIf(condition, manager.TryAgainLater) {
		return false
	}
	ahead := c.reconnectNotice(manager.TryAgainLater)
	if c.v1 { // a base client stops on any auth_error
		ahead = append([]*manager.Frame{authUnavailableFrame()}, ahead...)
	}
	c.closeOut(manager.TryAgainLater, ahead...)
	return true
}

// enter opens the connection for its user, or closes it. The user was being identified since a moment.
func (c *Client) enter(id Identity, since manager.Moment, greet bool) {
	if err := c.register(id, since, greet); err != nil {
		c.connectFailed(err)
	}
}

// errNotEntered is the error of register on a connection that is closing.
var errNotEntered = errors.New("server: the connection is closing")

// register opens the connection for its user. auth_success is sent, if greet is set, only once the connection is
// registered: a client that has got it is reached by every later message and order. Orders that were issued while the
// user was being identified, since a moment, close it. The error is errNotEntered or the manager's.
func (c *Client) register(id Identity, since manager.Moment, greet bool) error {
	c.mu.Lock()
	if c.stage != authenticating { // the time was up, or the server is closing
		c.mu.Unlock()
		return errNotEntered
	}
	c.stage = open
	c.setIdentityLocked(id)
	c.successDue.Store(greet)
	c.mu.Unlock()
	return c.connect(id, since)
}

// connect registers a connection that has its identity with the manager. It may have been closed since it has.
func (c *Client) connect(id Identity, since manager.Moment) error {
	err := c.server.manager.ConnectSince(id.UserID, c, since)
	if err != nil {
		c.successDue.Store(false) // the reason of the close frame is the answer
		return err
	}
	c.sendSuccess()
	c.server.opt.Logger.LogAttrs(c.server.ctx, slog.LevelDebug, "connected",
		slog.String("user", id.UserID), slog.Any("remote", loggedAddr{c}))
	c.mu.Lock()
	c.entered = true
	closed := c.stage == closing
	c.mu.Unlock()
	if closed { // setClosing may have come before ConnectSince
		c.server.manager.Disconnect(id.UserID, c)
	}
	if c.server.opt.OnConnect != nil {
		c.runHook("OnConnect", func() { c.server.opt.OnConnect(c) })
	}
	c.claims.start()
	c.FlushClaims()
	// Draining looks for connections after it has set the flag: either it finds this one, or this finds the
	// flag set.
	if c.server.draining.Load() {
		c.Close(manager.ServerReloading)
	}
	return nil
}

// sendSuccess queues auth_success if it is due. The first message that is sent to a registered connection calls it too,
// because auth_success precedes all others.
func (c *Client) sendSuccess() {
	if !c.successDue.Load() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.successDue.Load() {
		c.out.Send(authSuccessFrame(c.identity.UserID))
		c.successDue.Store(false)
	}
}

// connectFailed closes a connection that the manager has not accepted.
func (c *Client) connectFailed(err error) {
	switch {
	case errors.Is(err, errNotEntered):
	case errors.Is(err, manager.ErrClosed):
		c.Close(manager.ServerReloading)
	case errors.Is(err, manager.ErrTooManyConnections):
		c.Close(manager.TooManyConnections)
	default:
		c.server.logs.connect.Log(c.server.opt.Logger, slog.LevelError, "connection not accepted", "error", err)
		c.Close(manager.InternalError)
	}
}

// setIdentityLocked stores who the connection belongs to and until when; c.mu is held.
func (c *Client) setIdentityLocked(id Identity) {
	c.identity = id
	if id.TokenID != "" {
		c.addTokenLocked(id.TokenID)
	}
	if c.server.claimsOnly {
		c.allowed.Store(&id)
	}
	c.watchExpiryLocked()
}

// maxTokenIDs bounds the token ids that a connection remembers. The oldest is forgotten.
const maxTokenIDs = 64

func (c *Client) addTokenLocked(tokenID string) {
	if slices.Contains(c.tokens, tokenID) {
		return
	}
	if len(c.tokens) == maxTokenIDs {
		c.tokens = append(c.tokens[:0], c.tokens[1:]...)
	}
	c.tokens = append(c.tokens, tokenID)
}

// HasToken reports whether the connection has shown the token with an id, at its beginning or to renew it.
func (c *Client) HasToken(tokenID string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Contains(c.tokens, tokenID)
}

// AllowsUpload reports whether the connection's own token allows it to get the messages of an upload. Only
// AuthorizeClaims restricts that; it does not block.
func (c *Client) AllowsUpload(uploadID string) bool {
	id := c.allowed.Load()
	return id == nil || id.allows(uploadID)
}

// refuse sends the client the problem of its authentication and closes the connection.
func (c *Client) refuse(message, code string, reason manager.CloseReason) {
	c.refuseIf(func() bool { return true }, message, code, reason)
}

// refuseIf is refuse on a condition, which is called with c.mu held: a token that has been renewed, or a first message
// that has come, after the decision would be too late.
func (c *Client) refuseIf(condition func() bool, message, code string, reason manager.CloseReason) {
	if !c.setClosingIf(condition, reason) {
		return
	}
	if !c.v1 {
		code = ""
	}
	c.closeOut(reason, authErrorFrame(message, code))
}
