package client

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

const (
	// steady is the life of a connection after which the next delay is short again, and the time without one starts again.
	steady = 5 * time.Second
	// maxRetryAfter bounds the delay that a server can ask for.
	maxRetryAfter = 5 * time.Minute
	// maxViolations is the number of consecutive connections that may end with a ProtocolError, and maxRefusals the number
	// of consecutive refusals of a token.
	maxViolations = 3
	maxRefusals   = 2
)

// run keeps the connection as long as there are loops, until Close or an error that is final.
func (c *Client) run() {
	r := retries{opt: &c.opt, downSince: time.Now()}
	for {
		c.opt.OnState(State{Status: Connecting})
		opened := time.Now()
		e := c.connect()
		if c.ctx.Err() != nil {
			c.stopRunning(ErrClosed)
			return
		}
		delay, final := r.after(e, opened)
		if final != nil {
			c.stopRunning(final)
			return
		}
		if !c.wanted() {
			return
		}
		c.opt.OnState(State{Status: Waiting, Err: e.err, Retry: delay})
		if !sleep(c.ctx, delay) {
			c.stopRunning(ErrClosed)
			return
		}
		if !c.wanted() {
			return
		}
	}
}

// wanted reports whether there is a loop; without one the connection ends.
func (c *Client) wanted() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running = len(c.uploads) > 0
	return c.running
}

// stopRunning ends all loops.
func (c *Client) stopRunning(err error) {
	c.mu.Lock()
	c.running = false
	c.endAll(err)
	c.mu.Unlock()
	c.opt.OnState(State{Status: Stopped, Err: err})
}

// ending is the end of a connection.
type ending struct {
	err error
	// final: the client must not connect again.
	final bool
	// token: the token was refused.
	token bool
	// live is when the connection was authenticated; zero if it never was.
	live time.Time
	// retryAfter is the delay that the server asked for, or 0.
	retryAfter time.Duration
}

// retries decides about the next attempt.
type retries struct {
	opt                            *Options
	attempts, refusals, violations int
	downSince                      time.Time
}

// after returns the delay of the next attempt, or the error that is final.
func (r *retries) after(e ending, opened time.Time) (delay time.Duration, final error) {
	now := time.Now()
	wasLive := !e.live.IsZero()
	if wasLive {
		r.refusals = 0
		if now.Sub(e.live) >= steady {
			r.attempts, r.violations, r.downSince = 0, 0, now
		}
	}
	var permanent permanentError
	var violated *ProtocolError
	if errors.As(e.err, &violated) {
		r.violations++
	}
	if e.token {
		r.refusals++
	}
	if e.final || errors.As(e.err, &permanent) || r.refusals >= maxRefusals || r.violations >= maxViolations {
		return 0, e.err
	}
	delay = r.backoff(e)
	if limit := r.opt.GiveUpAfter; limit > 0 {
		left := limit - now.Sub(r.downSince)
		if left <= 0 {
			return 0, &UnreachableError{After: limit, Err: e.err}
		}
		delay = min(delay, left)
	}
	return delay, nil
}

// backoff returns a random part of a delay that doubles with each attempt, so that clients that were disconnected
// together do not return together. A delay of the server's is drawn for this client already.
func (r *retries) backoff(e ending) time.Duration {
	longest := r.opt.MinBackoff
	for range min(r.attempts, 32) {
		longest = min(2*longest, r.opt.MaxBackoff)
	}
	r.attempts++
	switch {
	case e.retryAfter > 0 && r.attempts == 1:
		return min(e.retryAfter, maxRetryAfter)
	case e.token && r.attempts == 1:
		return 0 // a fresh token is all that is missing
	}
	return min(e.retryAfter, maxRetryAfter) + rand.N(longest+1)
}

// connect opens a connection and serves it until it ends.
func (c *Client) connect() ending {
	token, err := c.currentToken()
	if err != nil {
		return ending{err: err}
	}
	ctx, cancel := context.WithTimeout(c.ctx, c.opt.ConnectTimeout)
	defer cancel()
	l, e := c.dial(ctx)
	if l == nil {
		return e
	}
	e = l.serve(ctx, token)
	if e.token {
		c.mu.Lock()
		c.token = ""
		c.mu.Unlock()
	}
	return e
}

// currentToken returns the newest token, or a fresh one.
func (c *Client) currentToken() (string, error) {
	c.mu.Lock()
	token := c.token
	c.mu.Unlock()
	if fresh(token) {
		return token, nil
	}
	token, err := c.fetchToken(c.ctx)
	if err != nil {
		return "", err
	}
	c.mu.Lock()
	c.token = token
	c.mu.Unlock()
	return token, nil
}
