package manager

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/shoal/broker"
)

// A client that comes from a node that was further on is answered as soon as this node has caught up.
func TestAClientAheadOfANodeWaitsForIt(t *testing.T) {
	inCluster(t, 2, Options{}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		nodes[0].follower(t, "bob", "cat")
		publish(t, nodes[1].Manager, "cat", 5)
		synctest.Wait()
		nodes[0].link.losing(func(m broker.Message) bool { return m.Channel == "upload:cat" })
		seen := publish(t, nodes[1].Manager, "cat", 1) // which bob's node does not get for now
		synctest.Wait()
		time.AfterFunc(100*time.Millisecond, func() {
			nodes[0].link.losing(nil)
			publish(t, nodes[1].Manager, "cat", 1)
		})
		c := connect(t, nodes[0].Manager, "ann")
		must(t, nodes[0].SubscribeConn(t.Context(), "ann", c, "cat", SubscribeOptions{Acknowledge: true, Since: &seen}))
		<-time.After(time.Second)
		if told := c.received(t)[0]; !told.Recovered {
			t.Errorf("was told %+v", told)
		}
		wantConsecutive(t, c.offsets(), 7, 7)
	})
}
