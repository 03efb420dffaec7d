package natsbroker

import (
	"time"

	"github.com/shoal-go/shoal/broker"
)

// clockReading is what the server's clock and this machine's showed at one moment. local has a monotonic reading, so
// that steps of this machine's clock do not count.
type clockReading struct{ server, local time.Time }

// compareClocks notes the time that the server has stated in a response that has just arrived. Without a statement the
// clocks count as equal.
func (s *session) compareClocks(server time.Time) {
	if !server.IsZero() {
		s.clocks.Store(&clockReading{server, time.Now()})
	}
}

// localTime converts a time of the server's clock to this machine's, with a monotonic reading. It is not in the future.
func (s *session) localTime(at time.Time) time.Time {
	now := time.Now()
	server := now
	if c := s.clocks.Load(); c != nil {
		server = c.server.Add(now.Sub(c.local))
	}
	return now.Add(-max(server.Sub(at), 0))
}

// setLocalTimes converts the times of messages.
func (s *session) setLocalTimes(messages []broker.Stored) {
	for i := range messages {
		messages[i].At = s.localTime(messages[i].At)
	}
}
