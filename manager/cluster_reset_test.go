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

// tailLoss is a cluster of which one node has a client of shoal.v1 and a base connection that have received ten messages
// of an upload, when the broker loses the last three without beginning a new epoch.
type tailLoss struct {
	node   member
	v1     *fakeConn
	base   *baseConn
	stored broker.Snapshot
}

func loseTail(t *testing.T, nodes []member) *tailLoss {
	t.Helper()
	l := &tailLoss{node: nodes[0], base: &baseConn{}}
	must(t, l.node.Connect("ann", l.base))
	must(t, l.node.SubscribeUpload(t.Context(), "ann", "cat"))
	l.v1 = l.node.follower(t, "bob", "cat")
	publish(t, nodes[1].Manager, "cat", 10)
	<-time.After(time.Minute)
	stored, err := l.node.link.HistoryBroker.History(t.Context(), "upload:cat", broker.Position{})
	must(t, err)
	stored.Messages = stored.Messages[:7]
	stored.Offset = 7
	l.stored = stored
	l.node.link.keeping(func(broker.Snapshot) broker.Snapshot { return l.stored })
	return l
}

// store stores a message at the broker and returns it.
func (l *tailLoss) store(t *testing.T, n int) broker.Message {
	t.Helper()
	s := broker.Stored{Offset: l.stored.Offset + 1, Payload: note(t, n).Payload(), At: time.Now()}
	m := broker.Message{Channel: "upload:cat", Payload: slices.Clone(s.Payload), Prev: l.stored.Offset}
	l.stored.Messages = append(slices.Clone(l.stored.Messages), s)
	l.stored.Offset = s.Offset
	m.Position = l.stored.Position
	return m
}

// want fails unless the base connection received the ten messages and then some more, and the client of shoal.v1 was
// notified of a reset and then received these messages.
func (l *tailLoss) want(t *testing.T, base int, v1 ...uint64) {
	t.Helper()
	<-time.After(10 * time.Second)
	if got := l.base.count(); got != 10+base || len(l.base.closed()) > 0 {
		t.Errorf("the base connection received %d more messages, closed %v; want %d", got-10, l.base.closed(), base)
	}
	all := l.v1.received(t)
	reset := slices.IndexFunc(all[1:], func(r received) bool { return r.Action == "subscribed" && !r.Recovered }) + 1
	if reset == 0 {
		t.Fatalf("the client received %+v, want a reset", all)
	}
	var got []uint64
	for _, r := range all[reset+1:] {
		got = append(got, r.Offset)
	}
	if !slices.Equal(got, v1) {
		t.Errorf("after the reset came %v, want %v", got, v1)
	}
}

// TestReset_LostTailIsNoticedAfterAnInterruption: a broker that returns without its newest messages in the same epoch will
// use their offsets again. The messages with these offsets are delivered, whether they were stored before the node asked
// or arrive later.
func TestReset_LostTailIsNoticedAfterAnInterruption(t *testing.T) {
	inCluster(t, 2, Options{}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		l := loseTail(t, nodes)
		l.node.link.handler.Interrupted()
		l.want(t, 0, 7)
		for n := range 5 {
			l.node.link.handler.Receive(l.store(t, 100+n))
		}
		l.want(t, 5, 7, 8, 9, 10, 11, 12)
	})
	inCluster(t, 2, Options{}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		l := loseTail(t, nodes)
		l.store(t, 100)
		l.store(t, 101)
		l.node.link.handler.Interrupted()
		l.want(t, 2, 9)
	})
}

// TestReset_LostTailIsNoticedByAReusedOffset: a message with the offset of another one that was delivered shows that the
// broker has lost messages, also if it has passed the node's offset when the node asks.
func TestReset_LostTailIsNoticedByAReusedOffset(t *testing.T) {
	for _, more := range []int{0, 5} {
		inCluster(t, 2, Options{}, func(t *testing.T, _ *broker.Memory, nodes []member) {
			l := loseTail(t, nodes)
			first := l.store(t, 100)
			var rest []broker.Message
			for n := range more {
				rest = append(rest, l.store(t, 101+n))
			}
			l.node.link.handler.Receive(first)
			<-time.After(time.Second)
			for _, m := range rest {
				l.node.link.handler.Receive(m)
			}
			l.want(t, 1+more, uint64(8+more))
		})
	}
}

// TestReset_OlderReadIsNoLoss: the answer to a read may be older than messages that arrived since it began.
func TestReset_OlderReadIsNoLoss(t *testing.T) {
	inCluster(t, 2, Options{}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		n := nodes[0]
		c := n.follower(t, "ann", "cat")
		publish(t, nodes[1].Manager, "cat", 3)
		synctest.Wait()
		for call, interrupt := range map[string]func(){
			"Kept":      func() { n.link.handler.Interrupted("upload:cat") },
			"Positions": func() { n.link.handler.Interrupted() },
		} {
			reads := n.link.made("Kept")
			release := n.link.delay(call)
			interrupt()
			synctest.Wait()
			publish(t, nodes[1].Manager, "cat", 3)
			synctest.Wait()
			release()
			<-time.After(time.Second)
			if more := n.link.made("Kept") - reads; call == "Positions" && more != 0 {
				t.Errorf("%d reads after an older answer", more)
			}
		}
		wantConsecutive(t, c.offsets(), 1, 9)
		if s := n.Stats().Broker; s.Resets != 0 {
			t.Errorf("%d resets", s.Resets)
		}
	})
}

// TestReset_DroppedMessagesAreNotRepeated: a broker that returns with its data under a new epoch makes no base connection
// receive messages again of which the node has no copy any more: it is closed instead. Before that, a client of shoal.v1
// that returns receives the dropped messages, which the node reads from the broker.
func TestReset_DroppedMessagesAreNotRepeated(t *testing.T) {
	const published = 20
	for name, test := range map[string]struct {
		opt   Options
		lost  int // messages that the broker has lost
		evict bool
	}{
		"evicted":         {Options{}, 0, true},
		"only the newest": {Options{HistoryMessages: 1}, 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			inCluster(t, 2, test.opt, func(t *testing.T, _ *broker.Memory, nodes []member) {
				n, c := nodes[0], &baseConn{}
				must(t, n.Connect("ann", c))
				must(t, n.SubscribeUpload(t.Context(), "ann", "cat"))
				pos := publish(t, nodes[1].Manager, "cat", published)
				<-time.After(2 * time.Second)
				if test.evict {
					n.registry.WithKnown("cat", func(u *upload) { n.evictUpload(u, true) })
					since := n.connectSince(t, "carl", "cat", Position{Epoch: pos.Epoch, Offset: 15})
					if got := since.received(t); len(got) != 1+5 || !got[0].Recovered {
						t.Errorf("a client that returns received %+v, want the five messages that it missed", got)
					}
					n.registry.WithKnown("cat", func(u *upload) { n.evictUpload(u, true) })
				}
				stored, err := n.link.HistoryBroker.History(t.Context(), "upload:cat", broker.Position{})
				must(t, err)
				stored.Epoch, stored.Floor = "another", 0
				stored.Messages = stored.Messages[:published-test.lost]
				stored.Offset = uint64(len(stored.Messages))
				n.link.keeping(func(broker.Snapshot) broker.Snapshot { return stored })
				n.link.handler.Receive(broker.Message{Channel: "upload:cat", Position: stored.Position})
				<-time.After(time.Second)
				closed := c.closed()
				if got := c.count() - len(closed); got != published {
					t.Errorf("the base connection received %d messages, %d were published", got, published)
				}
				if len(closed) != 1 || closed[0] != TryAgainLater {
					t.Errorf("the base connection was closed with %v, want 1013", closed)
				}
			})
		})
	}
}
