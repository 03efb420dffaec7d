package server

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"time"

	"github.com/shoal-go/shoal/manager"
)

// begin starts a connection's life: at once where the request has said whose it is, else with waiting for
// the client's first message.
func (c *Client) begin(id Identity, token string) {
	switch {
	case c.server.opt.Identify != nil:
		c.enter(id, false)
	case token != "":
		c.authenticate(token)
	default:
		c.mu.Lock()
		c.deadline = time.AfterFunc(c.server.opt.AuthTimeout, c.expired)
		c.mu.Unlock()
	}
}

// onAuth handles the first message of a client.
func (c *Client) onAuth(text bool, data []byte) {
	kind, token, ok := decodeAuth(data)
	switch {
	case !text || !ok:
		c.Close(manager.InvalidFormat)
	case kind != "auth" || token == "":
		c.refuse("Authentication required", manager.AuthRequired)
	default:
		c.authenticate(token)
	}
}

// decodeAuth returns the type and the token of a first message, each "" if it is no string. It reports false for
// what is not an object.
func decodeAuth(data []byte) (kind, token string, ok bool) {
	var r request
	if decodePlain(data, &r) {
		return r.Type, r.Token, true
	}
	var object map[string]json.RawMessage
	if json.Unmarshal(data, &object) != nil || object == nil {
		return "", "", false
	}
	if json.Unmarshal(object["type"], &kind) != nil {
		kind = ""
	}
	if json.Unmarshal(object["token"], &token) != nil {
		token = ""
	}
	return kind, token, true
}

// authenticate asks whose the token is, and opens the connection or gives it a new time.
func (c *Client) authenticate(token string) {
	ctx, cancel := context.WithTimeout(c.server.ctx, c.server.opt.AuthTimeout)
	defer cancel()
	id, err := c.server.opt.Authenticate(ctx, token)
	if err == nil {
		err = manager.CheckID("user_id", id.UserID)
	}
	switch {
	case err != nil:
		c.server.counters.unauthenticated.Add(1)
		c.refuse(c.tokenProblem(err), manager.InvalidToken)
	case c.authenticated():
		c.extend(id)
	default:
		c.enter(id, true)
	}
}

// tokenProblem returns what a client may know of an error of Authenticate.
func (c *Client) tokenProblem(err error) string {
	var refused *TokenError
	if errors.As(err, &refused) {
		return refused.Message
	}
	c.server.opt.Logger.Warn("authentication failed", "error", err)
	return "Authentication failed"
}

// enter opens the connection for its user. The answer is queued before the connection is registered, so that
// it comes ahead of everything else.
func (c *Client) enter(id Identity, greet bool) {
	c.mu.Lock()
	if c.stage != authenticating { // the time was up, or the server is closing
		c.mu.Unlock()
		return
	}
	c.stage, c.identity = open, id
	c.watchExpiry()
	c.mu.Unlock()
	if greet {
		c.out.Send(authSuccessFrame(id.UserID))
	}
	if err := c.server.manager.Connect(id.UserID, c); err != nil {
		c.Close(manager.ServerReloading)
		return
	}
	c.server.opt.Logger.LogAttrs(c.server.ctx, slog.LevelDebug, "connected",
		slog.String("user", id.UserID), slog.Any("remote", c.RemoteAddr()))
	c.mu.Lock()
	c.entered = true
	c.mu.Unlock()
	if c.server.opt.OnConnect != nil {
		c.runHook("OnConnect", nil, func() { c.server.opt.OnConnect(c) })
	}
	// Draining looks for connections after it has set the flag: either it finds this one, or this finds the
	// flag set.
	if c.server.draining.Load() {
		c.Close(manager.ServerReloading)
	}
}

// extend gives an open connection the time of a fresh token of the same user.
func (c *Client) extend(id Identity) {
	c.mu.Lock()
	same := id.UserID == c.identity.UserID
	if same {
		c.identity = id
		c.watchExpiry()
	}
	c.mu.Unlock()
	if !same {
		c.refuse("Token belongs to another user", manager.InvalidToken)
		return
	}
	c.out.Send(authSuccessFrame(id.UserID))
}

// watchExpiry sets the timer for the end of the token; c.mu is held.
func (c *Client) watchExpiry() {
	if c.deadline != nil {
		c.deadline.Stop()
		c.deadline = nil
	}
	if !c.identity.Expires.IsZero() {
		c.deadline = time.AfterFunc(time.Until(c.identity.Expires), c.expired)
	}
}

// expired is called when the time to authenticate or that of the token is up.
func (c *Client) expired() {
	c.mu.Lock()
	stage, expires := c.stage, c.identity.Expires
	c.mu.Unlock()
	switch {
	case stage == authenticating:
		c.refuse("Authentication timeout", manager.AuthTimeout)
	case stage == open && !expires.IsZero() && !time.Now().Before(expires):
		c.refuse("Token has expired", manager.InvalidToken)
	}
}

// refuse tells the client what is wrong with its authentication and closes.
func (c *Client) refuse(why string, reason manager.CloseReason) {
	if c.setClosing(reason) {
		c.out.Close(closeFrame(reason), authErrorFrame(why))
	}
}
