package natsbroker

import (
	"time"

	"github.com/shoal-go/shoal/broker"
)

// compareClocks notes the time that the server has stated in a response that has just arrived. Without a statement the
// clocks count as equal.
func (s *session) compareClocks(server time.Time) {
	if !server.IsZero() {
		s.ahead.Store(int64(time.Until(server)))
	}
}

// setLocalTimes converts the times of messages from the server's clock to this machine's. No message is of the future.
func (s *session) setLocalTimes(messages []broker.Stored) {
	ahead, now := time.Duration(s.ahead.Load()), time.Now()
	for i := range messages {
		at := messages[i].At.Add(-ahead)
		if at.After(now) {
			at = now
		}
		messages[i].At = at
	}
}
