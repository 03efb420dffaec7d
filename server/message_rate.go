package server

import (
	"time"

	"golang.org/x/time/rate"
)

// messageRate is a token bucket for the messages of a client. A [rate.Limiter] for each idle connection would take four
// times the memory. It belongs to the goroutine that reads from the client.
type messageRate struct {
	limits *settings // those that held when the connection was opened
	tokens float64
	filled time.Duration // when the tokens were last counted, on Server.clock
}

// newMessageRate returns a full bucket.
func newMessageRate(limits *settings, now time.Duration) messageRate {
	return messageRate{limits, float64(limits.ClientMessageBurst), now}
}

// allow takes n tokens if there are as many.
func (r *messageRate) allow(now time.Duration, n int) bool {
	if rate.Limit(r.limits.ClientMessageRate) == rate.Inf {
		return true
	}
	added := (now - r.filled).Seconds() * r.limits.ClientMessageRate
	r.tokens = min(r.tokens+added, float64(r.limits.ClientMessageBurst))
	r.filled = now
	if r.tokens < float64(n) {
		return false
	}
	r.tokens -= float64(n)
	return true
}
