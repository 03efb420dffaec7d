package manager

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/internal/frame"
	"github.com/shoal-go/shoal/internal/membership"
)

// inPlainCluster is inCluster with brokers that keep nothing.
func inPlainCluster(t *testing.T, nodes int, fn func(t *testing.T, nodes []member)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		hub := broker.NewMemory(broker.MemoryOptions{})
		all := make([]member, nodes)
		for i := range all {
			link := newLink(hub)
			all[i] = member{open(t, Options{Broker: struct{ broker.Broker }{link}}), link}
		}
		<-time.After(2 * time.Second)
		fn(t, all)
	})
}

func TestCluster_BrokerWithoutHistory(t *testing.T) {
	inPlainCluster(t, 2, func(t *testing.T, nodes []member) {
		c := nodes[0].follower(t, "ann", "cat")
		if pos := publish(t, nodes[1].Manager, "cat", 3); pos != (Position{}) {
			t.Errorf("publishing returned %+v, which nobody can know", pos)
		}
		synctest.Wait()
		got := c.received(t)
		if len(got) != 4 || got[0].Epoch == "" || got[0].Offset != 0 || got[3].Offset != 0 {
			t.Fatalf("received %+v, want the answer and three messages without offsets", got)
		}
		late := nodes[0].follower(t, "bob", "cat")
		if got := late.received(t); len(got) != 2 || got[1].published != `{"action":"note","n":2}` {
			t.Errorf("who came late received %+v, want the newest", got)
		}
		s, pos, err := nodes[0].Newest(t.Context(), "cat")
		if err != nil || string(s.Payload) != `{"action":"note","n":2}` || pos != got[0].Position {
			t.Errorf("the newest is %s at %+v, %v", s.Payload, pos, err)
		}
		if _, _, err := nodes[1].Newest(t.Context(), "cat"); !errors.Is(err, ErrUnknownUpload) {
			t.Errorf("where nobody follows the newest is %v, want ErrUnknownUpload", err)
		}
		h, err := nodes[0].History(t.Context(), "cat", Position{})
		if err != nil || len(h.Messages) != 0 || h.Position != got[0].Position {
			t.Errorf("the history is %+v, %v", h, err)
		}
		must(t, nodes[0].Forget(t.Context(), "cat"))
	})
}

// TestForget_WithoutHistoryReachesEveryNode: a late follower does not get a message that was forgotten, on any node, and
// the followers learn the new epoch.
func TestForget_WithoutHistoryReachesEveryNode(t *testing.T) {
	inPlainCluster(t, 2, func(t *testing.T, nodes []member) {
		clients := []*fakeConn{nodes[0].follower(t, "ann", "cat"), nodes[1].follower(t, "bob", "cat")}
		publish(t, nodes[1].Manager, "cat", 1)
		synctest.Wait()
		must(t, nodes[0].Forget(t.Context(), "cat"))
		for i, n := range nodes {
			if got := n.follower(t, "late", "cat").received(t); len(got) != 1 {
				t.Errorf("on node %d a late follower received %+v, want the answer alone", i, got)
			}
			got := clients[i].received(t)
			if last := got[len(got)-1]; last.Action != "subscribed" || last.Recovered || last.Epoch == got[0].Epoch {
				t.Errorf("on node %d the follower was told %+v, want a new epoch", i, last)
			}
		}
		publish(t, nodes[1].Manager, "cat", 1)
		synctest.Wait()
		if got := clients[0].received(t); len(got) != 4 {
			t.Errorf("received %+v, want the message that was published afterwards too", got)
		}
		nodes[1].link.cut()
		var missing *MissingNodesError
		if err := nodes[0].Forget(t.Context(), "cat"); !errors.As(err, &missing) {
			t.Errorf("with a node that is cut off: %v, want its name", err)
		}
	})
}

// TestCluster_InterruptionWithoutHistoryIsAnnounced: without stored messages a loss cannot be repaired, so
// followers are notified.
func TestCluster_InterruptionWithoutHistoryIsAnnounced(t *testing.T) {
	inPlainCluster(t, 1, func(t *testing.T, nodes []member) {
		c := nodes[0].follower(t, "ann", "cat")
		nodes[0].link.handler.Interrupted()
		synctest.Wait()
		got := c.received(t)
		if len(got) != 2 || got[1].Action != "subscribed" || got[1].Recovered || got[1].Epoch == got[0].Epoch {
			t.Errorf("received %+v, want a new epoch", got)
		}
	})
}

// TestCluster_InterruptionWithoutHistoryClosesBaseConnections: base connections learn of a possible loss by 1013, if it
// concerns an upload that they follow.
func TestCluster_InterruptionWithoutHistoryClosesBaseConnections(t *testing.T) {
	inPlainCluster(t, 1, func(t *testing.T, nodes []member) {
		cat, dog := &baseConn{}, &baseConn{}
		must(t, nodes[0].Connect("ann", cat))
		must(t, nodes[0].Connect("bob", dog))
		must(t, nodes[0].SubscribeUpload(t.Context(), "ann", "cat"))
		must(t, nodes[0].SubscribeUpload(t.Context(), "bob", "dog"))
		nodes[0].link.handler.Interrupted("upload:cat")
		synctest.Wait()
		if a, b := cat.closed(), dog.closed(); len(a) != 1 || a[0] != TryAgainLater || len(b) != 0 {
			t.Errorf("closed with %v and %v, want 1013 for the first alone", a, b)
		}
		must(t, nodes[0].Forget(t.Context(), "dog"))
		if b := dog.closed(); len(b) != 0 {
			t.Errorf("Forget closed with %v", b)
		}
		nodes[0].link.handler.Interrupted()
		synctest.Wait()
		if b := dog.closed(); len(b) != 1 || b[0] != TryAgainLater {
			t.Errorf("closed with %v, want 1013", b)
		}
	})
}

func TestCluster_InterruptionOfOneChannel(t *testing.T) {
	inPlainCluster(t, 1, func(t *testing.T, nodes []member) {
		cat, dog := nodes[0].follower(t, "ann", "cat"), nodes[0].follower(t, "bob", "dog")
		nodes[0].link.handler.Interrupted("upload:cat", "upload:unknown", "cat", "other:dog", "dog")
		synctest.Wait()
		if a, b := len(cat.received(t)), len(dog.received(t)); a != 2 || b != 1 {
			t.Errorf("%d and %d messages came, want 2 and 1", a, b)
		}
		if s := nodes[0].Stats(); s.Uploads != 2 || s.Broker.Resets != 1 {
			t.Errorf("counts are %+v, %+v", s, s.Broker)
		}
	})
}

func TestCluster_OptionsAreChecked(t *testing.T) {
	hub := broker.NewMemory(broker.MemoryOptions{})
	for _, test := range []struct {
		opt  Options
		want string // "": it is fine
	}{
		{Options{StateRate: 1000.5, Broker: hub.Node()}, "Options.StateRate is 1000.5"},
		{Options{StateRate: 1e-10, Broker: hub.Node()}, "Options.StateRate is 1e-10, want 0, or from 0.001 to 1000"},
		{Options{StateRate: math.NaN(), Broker: hub.Node()}, "Options.StateRate is NaN"},
		{Options{StateRate: math.Inf(1), Broker: hub.Node()}, "Options.StateRate is +Inf"},
		{Options{StateRate: 10}, "without a Broker"},
		{Options{NodeName: "a b", Broker: hub.Node()}, "Options.NodeName is \"a b\""},
		{Options{NodeName: "a b"}, "Options.NodeName is \"a b\""},
		{Options{NodeName: strings.Repeat("a", 129), Broker: hub.Node()}, "Options.NodeName"},
	} {
		m, err := New(test.opt)
		if m != nil || err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: %v, want an error with %q", test.opt, err, test.want)
		}
	}
	for _, opt := range []Options{
		{StateRate: 1000, Broker: hub.Node()}, {StateRate: -1, Broker: hub.Node()}, {StateRate: 0.001, Broker: hub.Node()}, {NodeName: "a-1_b.c:d", Broker: hub.Node()},
	} {
		open(t, opt)
	}
}

// A node can be closed while its broker is away, or answers nothing at all; the bubble sees to it that no
// goroutine is left.
func TestClose_WithoutTheBrokerReturnsInTime(t *testing.T) {
	hangs := func(ctx context.Context, _ string) error {
		<-ctx.Done()
		return ctx.Err()
	}
	for name, disturb := range map[string]func(*faulty){
		"away":  (*faulty).cut,
		"stuck": func(f *faulty) { f.meddle(hangs, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			inCluster(t, 1, Options{StateRate: 1}, func(t *testing.T, _ *broker.Memory, nodes []member) {
				n := nodes[0]
				n.follower(t, "ann", "cat")
				for range 2 { // the second is held back
					_, err := n.Publish(t.Context(), "cat", UploadProgress{Status: StatusPending, Stage: StageQueued})
					must(t, err)
				}
				disturb(n.link)
				n.link.handler.Interrupted()
				const patience = 700 * time.Millisecond
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				start := time.Now()
				if err := n.Close(ctx); err == nil {
					t.Error("what could not be sent was not mentioned")
				}
				if took := time.Since(start); took > patience {
					t.Errorf("closing took %v, at most %v were given", took, patience)
				}
				if err := n.Close(t.Context()); err != nil {
					t.Errorf("closing again returned %v", err)
				}
			})
		})
	}
}

// TestCatchUp_MessageOfAnOldEpochIsLeftOut: a message that was in flight during a Forget belongs to the forgotten epoch.
func TestCatchUp_MessageOfAnOldEpochIsLeftOut(t *testing.T) {
	inCluster(t, 2, Options{}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		c := nodes[0].follower(t, "ann", "cat")
		old := publish(t, nodes[1].Manager, "cat", 2)
		must(t, nodes[1].Forget(t.Context(), "cat"))
		synctest.Wait()
		seen := len(c.received(t))
		nodes[0].link.handler.Receive(broker.Message{
			Channel: "upload:cat", Payload: note(t, 7).Payload(), Position: old, Prev: 1,
		})
		publish(t, nodes[1].Manager, "cat", 2)
		<-time.After(time.Minute)
		got := c.received(t)[seen:]
		if len(got) != 2 || got[0].Offset != 1 || got[1].Offset != 2 {
			t.Errorf("received %+v, want the two messages of the new epoch", got)
		}
	})
}

// TestCatchUp_FinalGapIsAnnounced: if the stored messages never close the gap before a live message, the node
// delivers the live message.
func TestCatchUp_FinalGapIsAnnounced(t *testing.T) {
	inCluster(t, 2, Options{}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		n := nodes[0]
		c := n.follower(t, "ann", "cat")
		stopAt := func(offset uint64) { // the answers are as old as that
			n.link.keeping(func(k broker.Snapshot) broker.Snapshot {
				k.Offset, k.Floor, k.Messages = min(k.Offset, offset), 0, nil
				return k
			})
		}
		stopAt(1)
		n.link.losing(func(m broker.Message) bool { return m.Offset == 2 })
		before := n.link.made("Kept")
		publish(t, nodes[1].Manager, "cat", 4)
		<-time.After(time.Minute)
		got := c.received(t)
		if !slices.Equal(c.offsets(), []uint64{1, 3, 4}) || got[2].Action != "subscribed" || got[2].Offset != 2 || got[2].Recovered {
			t.Errorf("received %+v, want 1, a new beginning at 2, then 3 and 4", got)
		}
		if asked := n.link.made("Kept") - before; asked != maxAttempts+1 {
			t.Errorf("asked %d times, want %d", asked, maxAttempts+1)
		}
		// The next gap gets as many attempts, and may be filled.
		stopAt(4)
		n.link.losing(func(m broker.Message) bool { return m.Offset == 5 })
		publish(t, nodes[1].Manager, "cat", 2)
		time.AfterFunc(100*time.Millisecond, func() { n.link.keeping(nil) })
		<-time.After(time.Minute)
		if !slices.Equal(c.offsets(), []uint64{1, 3, 4, 5, 6}) || len(c.received(t)) != len(got)+2 {
			t.Errorf("received %+v, want 5 and 6 without another beginning", c.received(t)[len(got):])
		}
	})
}

// TestCatchUp_TooManyHeldMessagesAreReadAgain: during a catch-up the node holds a bounded number of messages; it reads the
// others from the broker again.
func TestCatchUp_TooManyHeldMessagesAreReadAgain(t *testing.T) {
	for name, opt := range map[string]Options{
		"by number": {HistoryMessages: 1000},
		"by bytes":  {HistoryMessages: 1000, HistoryBytes: 100 * len(note(t, 10).Payload())},
	} {
		t.Run(name, func(t *testing.T) { tooManyWait(t, opt) })
	}
}

func tooManyWait(t *testing.T, opt Options) {
	inCluster(t, 2, opt, func(t *testing.T, _ *broker.Memory, nodes []member) {
		n := nodes[0]
		c := n.follower(t, "ann", "cat")
		release := n.link.stop("Kept")
		n.link.losing(func(m broker.Message) bool { return m.Offset == 1 }) // else the others continue the log, and none waits
		n.link.handler.Interrupted("upload:cat")
		synctest.Wait()
		for range 10 {
			publish(t, nodes[1].Manager, "cat", 70)
			synctest.Wait()
			n.Manager.registry.WithKnown("cat", func(u *upload) {
				bytes := 0
				for _, a := range u.State.follow.waiting {
					bytes += len(a.Payload)
				}
				if waiting := len(u.State.follow.waiting); waiting > maxWaiting || bytes > n.opt.HistoryBytes {
					t.Errorf("%d messages of %d bytes wait, at most %d of %d may", waiting, bytes, maxWaiting, n.opt.HistoryBytes)
				}
			})
		}
		release()
		<-time.After(time.Minute)
		publish(t, nodes[1].Manager, "cat", 1)
		synctest.Wait()
		offsets := c.offsets()
		// 64 of 700 messages are stored, so the client restarts at the newest.
		if got := c.received(t); got[1].Action != "subscribed" || got[1].Offset < 600 || offsets[len(offsets)-1] != 701 {
			t.Errorf("received %+v", got)
		}
		wantConsecutive(t, offsets, offsets[0], 701)
	})
}

func TestCatchUp_FailedReadIsRetried(t *testing.T) {
	inCluster(t, 2, Options{}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		n := nodes[0]
		n.link.meddle(only("Kept", broker.ErrUnavailable), nil)
		time.AfterFunc(time.Second, func() { n.link.meddle(nil, nil) })
		c := n.follower(t, "ann", "cat")
		publish(t, nodes[1].Manager, "cat", 2)
		n.link.meddle(only("Kept", broker.ErrUnavailable), nil)
		n.link.handler.Interrupted()
		publish(t, nodes[1].Manager, "cat", 2)
		<-time.After(time.Second)
		n.link.meddle(nil, nil)
		<-time.After(time.Minute)
		wantConsecutive(t, c.offsets(), 1, 4)
		if asked := n.link.made("Kept"); asked < 6 || asked > 20 {
			t.Errorf("asked %d times in two seconds", asked)
		}
	})
}

// An answer that was on its way when messages were lost is not the last word.
func TestCatchUp_InterruptionDuringARead(t *testing.T) {
	inCluster(t, 2, Options{}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		n := nodes[0]
		c := n.follower(t, "ann", "cat")
		arrive := n.link.delay("Kept")
		n.link.handler.Interrupted("upload:cat")
		synctest.Wait() // it has been read, and the answer is on its way
		n.link.losing(func(broker.Message) bool { return true })
		publish(t, nodes[1].Manager, "cat", 3)
		n.link.losing(nil)
		n.link.handler.Interrupted("upload:cat")
		arrive()
		<-time.After(time.Minute)
		wantConsecutive(t, c.offsets(), 1, 3)
	})
}

// TestFollow_CancelledSubscribersLeaveNothing: a subscriber whose context ends while it waits leaves no state behind.
func TestFollow_CancelledSubscribersLeaveNothing(t *testing.T) {
	inCluster(t, 1, Options{}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		n := nodes[0]
		release := n.link.stop("Subscribe")
		var waiting sync.WaitGroup
		for i := range 20 {
			waiting.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*100*time.Millisecond)
				defer cancel()
				if err := n.SubscribeUpload(ctx, "ann", fmt.Sprint("upload-", i%5)); err == nil {
					t.Error("subscribed without a broker")
				}
			})
		}
		waiting.Wait()
		release()
		<-time.After(2*leaveDelay + maxPause)
		synctest.Wait()
		if s := n.Stats(); s.Uploads != 0 || s.Pending != 0 {
			t.Errorf("counts are %+v, want none left", s)
		}
		for _, subscribed := range n.cluster.subscribed {
			if len(subscribed) > 0 {
				t.Errorf("the node is still subscribed to %v", subscribed)
			}
		}
	})
}

// After an interruption only uploads that have changed are read, and live messages of the others are delivered at once.
func TestInvariant10_InterruptionReadsChangedUploadsOnly(t *testing.T) {
	inCluster(t, 2, Options{MaxSubscriptionsPerUser: -1}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		const uploads = 3000
		n := nodes[0]
		c := connect(t, n.Manager, "ann")
		for i := range uploads {
			must(t, n.SubscribeUpload(t.Context(), "ann", fmt.Sprint("upload-", i)))
		}
		before := len(c.received(t))
		n.link.losing(func(broker.Message) bool { return true })
		for i := range uploads / 100 {
			publish(t, nodes[1].Manager, fmt.Sprint("upload-", 100*i), 1)
		}
		synctest.Wait()
		n.link.losing(nil)
		reads := n.link.made("Kept")
		n.link.handler.Interrupted()
		publish(t, nodes[1].Manager, "upload-7", 1)
		<-time.After(time.Second)
		if got := len(c.received(t)) - before; got != uploads/100+1 {
			t.Errorf("%d messages came, want those of %d changed uploads and one more", got, uploads/100)
		}
		// The live message may arrive after the positions were read; then its upload is read too.
		if read := n.link.made("Kept") - reads; read < uploads/100 || read > uploads/100+2 {
			t.Errorf("%d histories were read, want those of %d changed uploads", read, uploads/100)
		}
		if asked := n.link.made("Positions"); asked != (uploads+positionBatch-1)/positionBatch {
			t.Errorf("positions were asked for in %d calls", asked)
		}
	})
}

// baseConn is a connection whose client knows no positions.
type baseConn struct{ fakeConn }

func (*baseConn) TracksPositions() bool { return false }

func (c *baseConn) Send(f *Frame) Outcome {
	if !f.For(frame.Base) {
		return Queued
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.frames = append(c.frames, f)
	return Queued
}

// TestCluster_BaseConnectionsLoseNothingSilently: a base connection that missed messages which the broker no longer
// stores is closed with 1013. Missed messages that are stored are delivered to it.
func TestCluster_BaseConnectionsLoseNothingSilently(t *testing.T) {
	for name, published := range map[string]int{"stored": 40, "no longer stored": 200} {
		t.Run(name, func(t *testing.T) {
			inCluster(t, 2, Options{}, func(t *testing.T, hub *broker.Memory, nodes []member) {
				n, c := nodes[0], &baseConn{}
				must(t, n.Connect("ann", c))
				must(t, n.SubscribeUpload(t.Context(), "ann", "cat"))
				publish(t, nodes[1].Manager, "cat", 1)
				synctest.Wait()
				n.link.losing(func(broker.Message) bool { return true })
				<-time.After(time.Second)
				must(t, nodes[1].Forget(t.Context(), "cat")) // a new epoch that the node learns too late
				publish(t, nodes[1].Manager, "cat", published)
				synctest.Wait()
				n.link.losing(nil)
				n.link.handler.Interrupted("upload:cat")
				<-time.After(time.Second)
				closed := c.closed()
				if name == "stored" {
					if got := len(c.frames); got != 1+published || len(closed) > 0 {
						t.Errorf("%d messages came, closed %v; want %d and an open connection", got, closed, 1+published)
					}
					return
				}
				if len(closed) != 1 || closed[0] != TryAgainLater {
					t.Errorf("closed with %v, want 1013", closed)
				}
			})
		})
	}
}

// After a broker returns with its data under a new epoch, base connections must not receive messages again.
func TestCluster_ReturnOfTheSameDataRepeatsNothing(t *testing.T) {
	inCluster(t, 2, Options{}, func(t *testing.T, hub *broker.Memory, nodes []member) {
		n, c := nodes[0], &baseConn{}
		must(t, n.Connect("ann", c))
		must(t, n.SubscribeUpload(t.Context(), "ann", "cat"))
		publish(t, nodes[1].Manager, "cat", 5)
		synctest.Wait()
		n.link.keeping(func(broker.Snapshot) broker.Snapshot {
			all, err := n.link.HistoryBroker.History(t.Context(), "upload:cat", broker.Position{})
			must(t, err)
			all.Epoch = "another"
			return all
		})
		n.link.handler.Receive(broker.Message{Channel: "upload:cat", Position: broker.Position{Epoch: "another", Offset: 5}})
		<-time.After(time.Second)
		if got := len(c.frames); got != 5 || len(c.closed()) > 0 {
			t.Errorf("%d messages came, want 5", got)
		}
	})
}

// A command that a node has not confirmed names that node, rather than pretending that a revoked token is connected
// nowhere.
func TestCluster_CommandsNameMissingNodes(t *testing.T) {
	inCluster(t, 3, Options{}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		c := connect(t, nodes[1].Manager, "ann")
		nodes[1].link.cut()
		var missing *MissingNodesError
		_, err := nodes[0].DisconnectUser(t.Context(), "ann", NormalClosure)
		if !errors.As(err, &missing) || len(missing.Nodes) != 1 || !errors.Is(err, ErrUnavailable) {
			t.Errorf("DisconnectUser: %v, want the name of the node that is cut off", err)
		}
		if len(c.closed()) > 0 {
			t.Error("the node was reached")
		}
		nodes[1].link.mend()
		<-time.After(10 * time.Second)
		if _, err := nodes[0].DisconnectUser(t.Context(), "ann", NormalClosure); err != nil || len(c.closed()) != 1 {
			t.Errorf("DisconnectUser: %v, closed %v", err, c.closed())
		}
	})
}

// A node is ready only when it has joined the others: commands that are given from then on reach it.
func TestCluster_ReadyMeansJoined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := broker.NewMemory(broker.MemoryOptions{})
		var nodes []*Manager
		for i := range 2 {
			m, err := New(Options{Broker: hub.Node(), NodeName: fmt.Sprint("node-", i)})
			must(t, err)
			defer func() { must(t, m.Close(context.Background())) }()
			nodes = append(nodes, m)
		}
		begin := time.Now()
		for _, m := range nodes {
			for m.Ready() != nil {
				<-time.After(time.Millisecond)
			}
		}
		if took := time.Since(begin); took > 100*time.Millisecond {
			t.Errorf("the nodes were ready after %v", took)
		}
		c := connect(t, nodes[1], "ann")
		if _, err := nodes[0].SendToUser(t.Context(), "ann", note(t, 1)); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if got := len(c.received(t)); got != 1 {
			t.Errorf("%d messages came, want 1", got)
		}
		if _, err := nodes[0].DisconnectUser(t.Context(), "ann", NormalClosure); err != nil || len(c.closed()) != 1 {
			t.Errorf("DisconnectUser: %v, closed %v", err, c.closed())
		}
	})
}

// refusingNode is a broker that refuses to publish to other nodes, as for want of a permission.
type refusingNode struct{ *broker.MemoryNode }

func (refusingNode) Publish(context.Context, string, []byte) error { return errNoPermission }

// TestCluster_RefusedQuestionIsErrRefused: a refusal of the broker is not ErrUnavailable, also for questions to nodes.
func TestCluster_RefusedQuestionIsErrRefused(t *testing.T) {
	m := open(t, Options{Broker: refusingNode{broker.NewMemory(broker.MemoryOptions{}).Node()}})
	for name, ask := range map[string]func(ctx context.Context) error{
		"SendToUser": func(ctx context.Context) error {
			_, err := m.SendToUser(ctx, "ann", note(t, 1))
			return err
		},
		"DisconnectUser": func(ctx context.Context) error {
			_, err := m.DisconnectUser(ctx, "ann", CloseReason{})
			return err
		},
		"DisconnectToken": func(ctx context.Context) error {
			_, err := m.DisconnectToken(ctx, "token", CloseReason{})
			return err
		},
		"Subscribers": func(ctx context.Context) error {
			_, err := m.Subscribers(ctx, "cat")
			return err
		},
		"NodeStats": func(ctx context.Context) error {
			_, _, err := m.NodeStats(ctx)
			return err
		},
	} {
		if err := ask(t.Context()); !errors.Is(err, ErrRefused) || errors.Is(err, ErrUnavailable) || !errors.Is(err, errNoPermission) {
			t.Errorf("%s: %v, want ErrRefused", name, err)
		}
	}
}

// refusingKeys is a broker that refuses to look for keys.
type refusingKeys struct{ *broker.MemoryNode }

func (refusingKeys) CheckOnce(context.Context, string, broker.Once) error { return errNoPermission }

// TestCluster_RefusedReadIsErrRefused: the same for the reads of an upload.
func TestCluster_RefusedReadIsErrRefused(t *testing.T) {
	wantRefused := func(t *testing.T, name string, err, cause error) {
		t.Helper()
		if !errors.Is(err, ErrRefused) || errors.Is(err, ErrUnavailable) || !errors.Is(err, cause) {
			t.Errorf("%s: %v, want ErrRefused", name, err)
		}
	}
	inCluster(t, 1, Options{}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		nodes[0].link.damage("upload:cat")
		wantRefused(t, "Newest", third(nodes[0].Newest(t.Context(), "cat")), errWrongType)
		wantRefused(t, "History", second(nodes[0].History(t.Context(), "cat", Position{})), errWrongType)
	})
	synctest.Test(t, func(t *testing.T) {
		m := open(t, Options{Broker: refusingKeys{broker.NewMemory(broker.MemoryOptions{}).Node()}})
		synctest.Wait()
		wantRefused(t, "CheckOnce", m.CheckOnce(t.Context(), "cat", Once{Key: "key"}), errNoPermission)
	})
}

// eager is a broker of which another node asks for counts as soon as this node runs.
type eager struct {
	*broker.MemoryNode
	answered chan struct{}
	once     sync.Once
}

func (b *eager) Run(ctx context.Context, h broker.Handler) error {
	ask := []byte(`{"v":1,"t":"ask","from":"other","run":"other","kind":"` + askStats + `","n":1}` + "\n")
	var asking sync.WaitGroup
	defer asking.Wait()
	asking.Go(func() {
		for ctx.Err() == nil {
			select {
			case <-b.answered:
				return
			default: // before the node has joined, it ignores questions
				h.Receive(broker.Message{Channel: membership.AllChannel, Payload: ask})
				runtime.Gosched()
			}
		}
	})
	return b.MemoryNode.Run(ctx, h)
}

func (b *eager) Publish(ctx context.Context, channel string, payload []byte) error {
	if strings.HasSuffix(channel, "-other") {
		b.once.Do(func() { close(b.answered) })
	}
	return b.MemoryNode.Publish(ctx, channel, payload)
}

// TestNew_AnswersQuestionsDuringTheStart: a question that comes before New has returned is no data race.
func TestNew_AnswersQuestionsDuringTheStart(t *testing.T) {
	for range 10 {
		b := &eager{MemoryNode: broker.NewMemory(broker.MemoryOptions{}).Node(), answered: make(chan struct{})}
		open(t, Options{Broker: b})
		<-b.answered
	}
}

// A message that is older than HistoryTTL is not the newest any more, also right before it is dropped.
func TestNewest_WithoutHistoryExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := broker.NewMemory(broker.MemoryOptions{})
		n := member{open(t, Options{Broker: struct{ broker.Broker }{hub.Node()}, HistoryTTL: 8 * time.Second}), nil}
		<-time.After(2500 * time.Millisecond) // between two sweeps
		n.follower(t, "ann", "cat")
		publish(t, n.Manager, "cat", 1)
		synctest.Wait()
		for _, step := range []struct {
			wait   time.Duration
			stored bool
		}{{7900 * time.Millisecond, true}, {200 * time.Millisecond, false}} {
			<-time.After(step.wait)
			if s, _, err := n.Newest(t.Context(), "cat"); err != nil || (s.Payload != nil) != step.stored {
				t.Errorf("%v later the newest is %q, %v", step.wait, s.Payload, err)
			}
		}
	})
}
