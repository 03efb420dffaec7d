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

// run keeps the connection, again if a loop has begun before the end was reported. The client has one such goroutine at
// a time, so that the calls of Options.OnState are in order and do not overlap.
func (c *Client) run() {
	for again := true; again; again = c.runAgain() {
		err := c.keep()
		c.opt.OnState(State{Status: Stopped, Err: err})
	}
}

// runAgain reports whether there is a loop; without one the goroutine ends.
func (c *Client) runAgain() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running = len(c.uploads) > 0
	return c.running
}

// keep keeps the connection until it breaks while there is no loop, or until Close or an error that is final. The
// latter end all loops. It returns the reason.
func (c *Client) keep() error {
	r := retries{opt: &c.opt, downSince: time.Now()}
	for {
		c.opt.OnState(State{Status: Connecting})
		opened := time.Now()
		e := c.connect()
		delay, final := r.after(e, opened)
		if c.ctx.Err() != nil {
			final = ErrClosed
		}
		if final != nil {
			return c.endLoops(final)
		}
		if !c.hasLoops() {
			return e.err
		}
		c.opt.OnState(State{Status: Waiting, Err: e.err, Retry: delay})
		if !sleep(c.ctx, delay) {
			return c.endLoops(ErrClosed)
		}
		if !c.hasLoops() {
			return e.err
		}
	}
}

func (c *Client) hasLoops() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.uploads) > 0
}

// endLoops ends all loops with an error, which it returns.
func (c *Client) endLoops(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.endAll(err)
	return err
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
