package natsbroker

import (
	"testing"
	"time"

	"github.com/shoal-go/shoal/broker"
)

// TestSession_TimesOfMessagesAreLocal: the age of a message is measured by the server's clock, however much that differs.
func TestSession_TimesOfMessagesAreLocal(t *testing.T) {
	for _, ahead := range []time.Duration{0, 11 * time.Minute, -11 * time.Minute} {
		s := new(session)
		s.compareClocks(time.Now().Add(ahead))
		messages := []broker.Stored{{At: time.Now().Add(ahead - time.Minute)}, {At: time.Now().Add(ahead + time.Second)}}
		s.setLocalTimes(messages)
		age, future := time.Since(messages[0].At), time.Until(messages[1].At)
		if age < 59*time.Second || age > 2*time.Minute || future > 0 {
			t.Errorf("with a server that is ahead by %v the ages are %v and %v, want a minute and none", ahead, age, -future)
		}
	}
	s := new(session)
	s.compareClocks(time.Time{})
	if s.ahead.Load() != 0 {
		t.Error("a server that does not state its time has another one")
	}
}
