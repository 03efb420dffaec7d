package client

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"time"
)

const (
	// renewBefore is the longest time between the renewal of a token and its expiry, minRenewal the shortest time between
	// two renewals. A token that has expired by this machine's clock is renewed every lateRenewal.
	renewBefore = time.Minute
	minRenewal  = time.Second
	lateRenewal = 30 * time.Second
	// maxTokenLife bounds the expiry that a token can name.
	maxTokenLife = 100 * 365 * 24 * time.Hour
)

// fetchToken calls Options.Token.
func (c *Client) fetchToken(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, c.opt.ConnectTimeout)
	defer cancel()
	token, err := c.opt.Token(ctx)
	switch {
	case err != nil:
		return "", fmt.Errorf("client: Options.Token: %w", err)
	case token == "":
		return "", errors.New("client: Options.Token returned no token")
	}
	return token, nil
}

// expiry returns when a JSON Web Token expires, by its own account. It returns false for another kind of token.
func expiry(token string) (at time.Time, ok bool) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return at, false
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	if err != nil {
		return at, false
	}
	var claims fields
	var seconds float64
	if json.Unmarshal(payload, &claims) != nil || json.Unmarshal(claims["exp"], &seconds) != nil {
		return at, false
	}
	if math.Abs(seconds) > float64(time.Now().Add(maxTokenLife).Unix()) {
		return at, false
	}
	whole, part := math.Modf(seconds)
	return time.Unix(int64(whole), int64(part*float64(time.Second))), true
}

// fresh reports whether a token can be used for a new connection.
func fresh(token string) bool {
	at, ok := expiry(token)
	return token != "" && (!ok || time.Until(at) > renewBefore)
}

// untilRenewal returns the delay until a token should be renewed. Clients whose tokens expire together renew them at
// different times.
func untilRenewal(left time.Duration) time.Duration {
	if left <= 0 {
		return lateRenewal
	}
	before := min(renewBefore, left/4)
	return max(minRenewal, left-before-rand.N(max(before/2, 1)))
}

// renew sends a fresh token before the accepted one expires, until ctx ends. The server then extends the connection.
// An error is tried again, sooner each time, and so is a token that the server cannot check now: in the end the server
// closes the connection, which needs a fresh token too.
func (l *link) renew(ctx context.Context, accepted string) {
	for {
		at, ok := expiry(accepted)
		if !ok || !sleep(ctx, untilRenewal(time.Until(at))) {
			return
		}
		next, err := l.client.fetchToken(ctx)
		var permanent permanentError
		switch {
		case errors.As(err, &permanent):
			l.end(err)
			return
		case err != nil || next == accepted:
			continue
		}
		l.client.mu.Lock()
		l.client.token = next
		l.client.mu.Unlock()
		select {
		case <-l.tokens: // the answer to an earlier token, which came late
		default:
		}
		if l.write(ctx, authMessage(next)) != nil {
			return
		}
		if l.waitAccepted(ctx) {
			accepted = next
		}
	}
}

// waitAccepted reports whether the server accepts the token that was sent last. It returns false without an answer.
func (l *link) waitAccepted(ctx context.Context) bool {
	timer := time.NewTimer(answerTimeout)
	defer timer.Stop()
	select {
	case ok := <-l.tokens:
		return ok
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}

// tokenAnswered tells renew of the server's answer to a token.
func (l *link) tokenAnswered(accepted bool) {
	select {
	case l.tokens <- accepted:
	default:
	}
}

// authMessage is the first message of a connection, and one that extends it.
func authMessage(token string) []byte {
	return encode(struct {
		Type  string `json:"type"`
		Token string `json:"token"`
	}{"auth", token})
}

// sleep waits and returns false if ctx ends first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
