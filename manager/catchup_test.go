package manager

import (
	"slices"
	"testing"
	"testing/synctest"

	"github.com/shoal-go/shoal/broker"
)

// A message that is lost while the stored messages are being read, after the broker has collected them, is delivered
// after the notice of the loss, without waiting for a later message.
func TestCatchUp_LossDuringAReadIsReadAgain(t *testing.T) {
	inCluster(t, 2, Options{}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		link := nodes[1].link
		release := link.delay("Kept")
		c := connect(t, nodes[1].Manager, "ann")
		subscribed := make(chan error)
		go func() {
			subscribed <- nodes[1].SubscribeConn(t.Context(), "ann", c, "cat", SubscribeOptions{Acknowledge: true})
		}()
		synctest.Wait()
		link.losing(func(broker.Message) bool { return true })
		_, err := nodes[0].Publish(t.Context(), "cat", note(t, 1))
		must(t, err)
		link.losing(nil)
		link.handler.Interrupted(uploadChannel + "cat")
		synctest.Wait()
		release()
		must(t, <-subscribed)
		synctest.Wait()
		if got := c.offsets(); !slices.Equal(got, []uint64{1}) {
			t.Errorf("offsets %v were delivered, want 1", got)
		}
	})
}

// After a reset that the node has not noticed, a message that does not name its epoch may have an offset that was used
// before. It is not taken for one that was delivered already.
func TestArrive_ReusedOffsetIsNotTakenForOld(t *testing.T) {
	inCluster(t, 2, Options{}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		link := nodes[1].link
		link.mu.Lock()
		link.bare = true
		link.mu.Unlock()
		c := nodes[1].follower(t, "ann", "cat")
		for n := range 3 {
			_, err := nodes[0].Publish(t.Context(), "cat", note(t, n))
			must(t, err)
		}
		link.losing(func(m broker.Message) bool { return m.Payload == nil })
		must(t, nodes[0].Forget(t.Context(), "cat"))
		link.losing(nil)
		want, err := nodes[0].Publish(t.Context(), "cat", note(t, 4))
		must(t, err)
		synctest.Wait()
		if got := c.offsets(); !slices.Equal(got, []uint64{1, 2, 3, 1}) {
			t.Errorf("offsets %v were delivered, want 1, 2, 3 and 1 again", got)
		}
		if _, pos, _ := newest(nodes[1].Manager, "cat"); pos != want {
			t.Errorf("the node is at %v, want %v", pos, want)
		}
	})
}
