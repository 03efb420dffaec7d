package natsbroker

import (
	"testing"
	"time"
)

// TestSupervisor_AnsweringStreamEndsTheHurry: a call that failed before the stream has responded does not shorten the wait
// of a later check.
func TestSupervisor_AnsweringStreamEndsTheHurry(t *testing.T) {
	l := &replicas{t: t}
	b, _ := l.run(time.Hour)
	s := b.session.Load()
	v := &supervisor{opt: l.opt, streamManager: streamManager{Options: l.opt}}
	for range 50 {
		s.leaderless <- struct{}{}
		if _, err := v.awaitStream(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		if len(s.leaderless) > 0 {
			t.Fatal("the failure is left for the next check")
		}
	}
}
