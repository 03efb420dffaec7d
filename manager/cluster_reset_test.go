package manager

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/shoal/broker"
)

// count returns the number of frames that the connection has received.
func (c *baseConn) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.frames)
}

// A broker that returns with its data may number the messages that it still stores from 1, under a new epoch, as Redis
// does after a restart. Base connections receive none of them again.
func TestCluster_RenumberedDataRepeatsNothing(t *testing.T) {
	inCluster(t, 2, Options{}, func(t *testing.T, hub *broker.Memory, nodes []member) {
		const published = 100 // more than the hub stores
		n, c := nodes[0], &baseConn{}
		must(t, n.Connect("ann", c))
		must(t, n.SubscribeUpload(t.Context(), "ann", "cat"))
		publish(t, nodes[1].Manager, "cat", published)
		<-time.After(time.Second)
		stored, err := n.link.HistoryBroker.History(t.Context(), "upload:cat", broker.Position{})
		must(t, err)
		stored.Epoch, stored.Floor, stored.Offset = "another", 0, uint64(len(stored.Messages))
		for i := range stored.Messages {
			stored.Messages[i].Offset = uint64(i + 1)
		}
		n.link.keeping(func(broker.Snapshot) broker.Snapshot { return stored })
		n.link.handler.Receive(broker.Message{Channel: "upload:cat", Position: stored.Position})
		<-time.After(time.Second)
		if got := c.count(); got != published || len(c.closed()) > 0 {
			t.Errorf("%d messages came, closed %v; want %d and an open connection", got, c.closed(), published)
		}
	})
}

// A message that does not name its epoch, and waits in the dispatch queue while the epoch changes, is not taken for one of
// the new epoch.
func TestCluster_QueuedMessageOfAnOldEpochIsLeftOut(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // one dispatch queue
	inCluster(t, 2, Options{}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		n := nodes[0]
		n.link.anonymize()
		c, slow := n.follower(t, "ann", "cat"), n.follower(t, "bob", "dog")
		publish(t, nodes[1].Manager, "cat", 3)
		synctest.Wait()
		released := make(chan struct{})
		release := sync.OnceFunc(func() { close(released) })
		defer release()
		slow.onSend = func(*Frame) Outcome {
			<-released
			return Queued
		}
		publish(t, nodes[1].Manager, "dog", 1)
		synctest.Wait() // the dispatch queue is blocked
		n.link.handler.Receive(broker.Message{
			Channel: "upload:cat", Payload: note(t, 4711).Payload(), Position: broker.Position{Offset: 5},
		})
		must(t, nodes[1].Forget(t.Context(), "cat"))
		publish(t, nodes[1].Manager, "cat", 1)
		n.link.handler.Interrupted("upload:cat")
		<-time.After(time.Second) // the node has read the new epoch
		release()
		publish(t, nodes[1].Manager, "cat", 5)
		<-time.After(time.Minute)
		if got := c.offsets(); !slices.Equal(got, []uint64{1, 2, 3, 1, 2, 3, 4, 5, 6}) {
			t.Errorf("the offsets of the messages are %v", got)
		}
		for _, r := range c.received(t) {
			if strings.Contains(r.published, "4711") {
				t.Errorf("a message of the old epoch came as number %d of the new one", r.Offset)
			}
		}
	})
}

// After an outage, a message that does not name its epoch may belong to a new one, even if it seems to continue the log: it
// waits until the node has asked the broker.
func TestCluster_MessageAfterAnOutageIsNotTakenForOneOfTheOldEpoch(t *testing.T) {
	for name, outage := range map[string]func(l *faulty) (end func()){
		"unhealthy": func(l *faulty) func() {
			l.cut()
			return l.mend
		},
		"loss of messages of any channel": func(l *faulty) func() {
			l.losing(func(broker.Message) bool { return true })
			return func() {
				l.losing(nil)
				l.handler.Interrupted()
			}
		},
	} {
		t.Run(name, func(t *testing.T) { messageAfterAnOutage(t, outage) })
	}
}

func messageAfterAnOutage(t *testing.T, outage func(l *faulty) (end func())) {
	inCluster(t, 2, Options{}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		n := nodes[0]
		n.link.anonymize()
		c := n.follower(t, "ann", "cat")
		publish(t, nodes[1].Manager, "cat", 3)
		synctest.Wait()
		end := outage(n.link)
		must(t, nodes[1].Forget(t.Context(), "cat"))
		publish(t, nodes[1].Manager, "cat", 3)
		release := n.link.stop("Positions")
		defer release()
		end()
		publish(t, nodes[1].Manager, "cat", 1) // number 4, behind number 3
		<-time.After(time.Second)
		var got []string
		for _, r := range c.received(t) {
			got = append(got, fmt.Sprint(r.Action, r.Offset))
		}
		want := []string{"note1", "note2", "note3", "subscribed4", "note4"}
		if len(got) < len(want) || !slices.Equal(got[len(got)-len(want):], want) {
			t.Errorf("the client received %v, want %v at the end", got, want)
		}
	})
}

// A gap that repeated reads do not close loses messages, so base connections are closed with 1013.
func TestCluster_FinalGapClosesBaseConnections(t *testing.T) {
	inCluster(t, 2, Options{}, func(t *testing.T, hub *broker.Memory, nodes []member) {
		n, c := nodes[0], &baseConn{}
		must(t, n.Connect("ann", c))
		must(t, n.SubscribeUpload(t.Context(), "ann", "cat"))
		publish(t, nodes[1].Manager, "cat", 1)
		<-time.After(time.Second)
		stale, err := n.link.HistoryBroker.History(t.Context(), "upload:cat", broker.Position{})
		must(t, err)
		n.link.keeping(func(broker.Snapshot) broker.Snapshot { return stale }) // a server that lags behind
		n.link.losing(func(m broker.Message) bool { return m.Offset < 5 })
		publish(t, nodes[1].Manager, "cat", 4)
		<-time.After(10 * time.Second)
		if closed := c.closed(); len(closed) != 1 || closed[0] != TryAgainLater {
			t.Errorf("%d messages came, closed with %v; want 1013", c.count(), closed)
		}
	})
}

// A message of a new epoch is a new one although its text was published before: a retry of an upload publishes the same
// texts again.
func TestCluster_RepeatedTextsOfANewEpochAreDelivered(t *testing.T) {
	inCluster(t, 2, Options{}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		n, c := nodes[0], &baseConn{}
		must(t, n.Connect("ann", c))
		must(t, n.SubscribeUpload(t.Context(), "ann", "cat"))
		publish(t, nodes[1].Manager, "cat", 10)
		<-time.After(time.Second)
		n.link.losing(func(broker.Message) bool { return true })
		must(t, nodes[1].Forget(t.Context(), "cat"))
		publish(t, nodes[1].Manager, "cat", 10)
		<-time.After(time.Second)
		n.link.losing(nil)
		n.link.handler.Interrupted()
		<-time.After(time.Second)
		if got := c.count(); got != 20 || len(c.closed()) > 0 {
			t.Errorf("%d messages came, closed %v; want 20 and an open connection", got, c.closed())
		}
	})
}

// Base connections are closed if this node's own limits drop messages of a new epoch before they are delivered.
func TestCluster_NarrowHistoryClosesBaseConnections(t *testing.T) {
	inCluster(t, 2, Options{HistoryMessages: 4}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		n, c := nodes[0], &baseConn{}
		must(t, n.Connect("ann", c))
		must(t, n.SubscribeUpload(t.Context(), "ann", "cat"))
		publish(t, nodes[1].Manager, "cat", 1)
		<-time.After(time.Second)
		n.link.losing(func(broker.Message) bool { return true })
		must(t, nodes[1].Forget(t.Context(), "cat"))
		publish(t, nodes[1].Manager, "cat", 20)
		<-time.After(time.Second)
		n.link.losing(nil)
		n.link.handler.Interrupted()
		<-time.After(time.Second)
		if closed := c.closed(); len(closed) != 1 || closed[0] != TryAgainLater {
			t.Errorf("%d messages came, closed with %v; want 1013", c.count(), closed)
		}
	})
}

// A message that arrives without its epoch during a catch-up, and whose upload is forgotten before the stored messages
// are read, does not become one of the new epoch.
func TestCatchUp_ForgottenMessagesWithoutEpochAreNotDelivered(t *testing.T) {
	inCluster(t, 2, Options{}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		link := nodes[1].link
		link.mu.Lock()
		link.bare = true
		link.mu.Unlock()
		release := link.stop("Kept")
		c := connect(t, nodes[1].Manager, "ann")
		subscribed := make(chan error)
		go func() {
			subscribed <- nodes[1].SubscribeConn(t.Context(), "ann", c, "cat", SubscribeOptions{Acknowledge: true})
		}()
		synctest.Wait()
		_, err := nodes[0].Publish(t.Context(), "cat", note(t, 1))
		must(t, err)
		must(t, nodes[0].Forget(t.Context(), "cat"))
		synctest.Wait()
		release()
		must(t, <-subscribed)
		synctest.Wait()
		if got := c.offsets(); len(got) != 0 {
			t.Errorf("offsets %v were delivered after the upload was forgotten", got)
		}
		want, err := nodes[0].Publish(t.Context(), "cat", note(t, 2))
		must(t, err)
		synctest.Wait()
		if _, pos, _ := newest(nodes[1].Manager, "cat"); pos != want || len(c.offsets()) != 1 {
			t.Errorf("the node is at %v and has delivered %v, want %v and one message", pos, c.offsets(), want)
		}
	})
}
