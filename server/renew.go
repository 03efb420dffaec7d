package server

import (
	"errors"
	"time"

	"github.com/shoal-go/shoal/manager"
)

// renew gives an open connection the identity of a fresh token of the same user, and ends the subscriptions that it
// does not allow. The token was being checked since a moment.
func (c *Client) renew(id Identity, since manager.Moment) {
	c.mu.Lock()
	if c.stage != open {
		c.mu.Unlock()
		return
	}
	same := id.UserID == c.identity.UserID
	if same {
		c.unchecked = false
		c.setIdentityLocked(id)
	}
	c.mu.Unlock()
	if !same {
		c.refuse("Token belongs to another user", TokenInvalid, manager.InvalidToken)
		return
	}
	if c.server.manager.CloseIfRevoked(id.UserID, c, since) {
		return
	}
	c.out.CancelRecoveries(func(uploadID string) bool { return !c.AllowsUpload(uploadID) })
	c.out.Send(authSuccessFrame(id.UserID))
	c.reauthorize(id)
}

// reauthorize ends the connection's own subscriptions that its identity does not allow. One that cannot be decided now
// stays: it was allowed before.
func (c *Client) reauthorize(id Identity) {
	claims := c.server.manager.Claims(id.UserID, c)
	if len(claims) == 0 {
		return
	}
	for uploadID, err := range c.authorize(id, claims) {
		switch {
		case errors.Is(err, ErrForbidden):
			c.countForbidden(uploadID)
			c.unsubscribeForbidden(id.UserID, uploadID)
			c.sendUnsubscribed(uploadID)
		case err != nil:
			c.logAuthorizeError(err)
		}
	}
}

// unsubscribeForbidden ends a claim of the connection that its identity does not allow.
func (c *Client) unsubscribeForbidden(userID, uploadID string) {
	defer c.claims.because(ReasonForbidden, uploadID)()
	c.server.manager.UnsubscribeConn(userID, c, uploadID)
}

// watchExpiryLocked sets the timer for the end of the token; c.mu is held.
func (c *Client) watchExpiryLocked() {
	if c.deadline != nil {
		c.deadline.Stop()
		c.deadline = nil
	}
	if c.expiryLocked() {
		// A token whose end has come a moment ago, by a step of the clock, must not set the timer again and again.
		c.deadline = time.AfterFunc(max(time.Until(c.identity.Expires), time.Millisecond), c.onDeadline)
	}
}

// onDeadline is called when the first message is overdue or the token may have expired. The timer follows the monotonic
// clock and the token the wall clock, so the timer is set again if it was early.
func (c *Client) onDeadline() {
	c.refuseIf(func() bool { return c.stage == authenticating && c.deadline != nil }, // not since stopAuthTimeout
		"Authentication timeout", codeTimeout, manager.AuthTimeout)
	c.expired()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stage == open && c.expiryLocked() {
		c.watchExpiryLocked()
	}
}

// expiryLocked reports whether the connection ends with its token; c.mu is held.
func (c *Client) expiryLocked() bool {
	return !c.identity.Expires.IsZero() && c.server.opt.TokenExpiry == ExpiryEnforced
}

// expired closes an open connection whose token has expired: with InvalidToken, unless the client may have sent a fresh
// one that is not known to be bad. It should come back with that one then.
func (c *Client) expired() {
	due := func() bool { return c.stage == open && c.expiryLocked() && !time.Now().Before(c.identity.Expires) }
	if c.closeUnavailable(func() bool { return due() && c.mayRenewLocked() }) {
		return
	}
	c.refuseIf(due, "Token has expired", TokenExpired, manager.InvalidToken)
}

// mayRenewLocked reports whether the client may have sent a fresh token that has not been checked: the hook could not
// check it, or the messages behind the one that is being handled have not been read; c.mu is held.
func (c *Client) mayRenewLocked() bool {
	return c.server.opt.Authenticate != nil && c.events == nil && (c.unchecked || c.input.handling.Load())
}
