package manager

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/shoal/broker"
)

// slowReads lets every read of stored messages take a time before its answer arrives.
func slowReads(took time.Duration) func(context.Context, string) error {
	return func(_ context.Context, call string) error {
		if call == "Kept" {
			<-time.After(took)
		}
		return nil
	}
}

// flood publishes to an upload at a rate until stop is called.
func flood(t *testing.T, m *Manager, upload string, perSecond int) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for i := 0; ctx.Err() == nil; i++ {
			if _, err := m.Publish(context.Background(), upload, note(t, i)); err != nil {
				t.Error(err)
			}
			<-time.After(time.Second / time.Duration(perSecond))
		}
	}()
	return func() {
		cancel()
		<-ended
	}
}

// TestCatchUp_BusyUploadBecomesCurrent: an upload that gets far more messages during each read than its history holds is
// followed at once, is current after an interruption, and delivers without a gap that is not announced.
func TestCatchUp_BusyUploadBecomesCurrent(t *testing.T) {
	for name, opt := range map[string]Options{
		"default": {}, "messages that do not fit": {HistoryBytes: 30 * len(note(t, 1000).Payload())},
	} {
		t.Run(name, func(t *testing.T) {
			inCluster(t, 2, opt, func(t *testing.T, _ *broker.Memory, nodes []member) {
				n := nodes[0]
				n.link.meddle(nil, slowReads(20*time.Millisecond))
				stop := flood(t, nodes[1].Manager, "cat", 15_000)
				defer stop()
				<-time.After(50 * time.Millisecond)
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				c := connect(t, n.Manager, "ann")
				must(t, n.SubscribeConn(ctx, "ann", c, "cat", SubscribeOptions{Acknowledge: true}))
				<-time.After(50 * time.Millisecond)
				reads := n.link.made("Kept")
				n.link.losing(func(broker.Message) bool { return true })
				<-time.After(50 * time.Millisecond)
				n.link.losing(nil)
				n.link.handler.Interrupted()
				<-time.After(500 * time.Millisecond)
				stop()
				<-time.After(100 * time.Millisecond)
				if more := n.link.made("Kept") - reads; more > 2*(maxAttempts+2) {
					t.Errorf("%d reads after one interruption", more)
				}
				wantAnnouncedGaps(t, c)
				_, want, err := nodes[1].Newest(t.Context(), "cat")
				must(t, err)
				if got := c.offsets(); got[len(got)-1] != want.Offset {
					t.Errorf("the last message is %d, want %d", got[len(got)-1], want.Offset)
				}
			})
		})
	}
}

// wantAnnouncedGaps fails if a message does not follow the one before it, or a new beginning.
func wantAnnouncedGaps(t *testing.T, c *fakeConn) {
	t.Helper()
	var last uint64
	for _, r := range c.received(t) {
		switch r.Action {
		case "subscribed":
			last = max(r.Offset, 1) - 1
		case "note":
			if r.Offset != last+1 && r.Offset != last+2 { // the newest message may precede the position that was told
				t.Fatalf("message %d came after %d", r.Offset, last)
			}
			last = r.Offset
		}
	}
}

// TestCatchUp_SubscribersPrecedeTheBacklog: a new subscriber does not wait for the uploads that catch up.
func TestCatchUp_SubscribersPrecedeTheBacklog(t *testing.T) {
	inCluster(t, 2, Options{MaxSubscriptionsPerUser: -1}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		const uploads = 3200
		n := nodes[0]
		for i := range uploads {
			must(t, n.SubscribeUpload(t.Context(), "ann", fmt.Sprint("upload-", i)))
		}
		n.link.losing(func(broker.Message) bool { return true })
		for i := range uploads {
			publish(t, nodes[1].Manager, fmt.Sprint("upload-", i), 1)
		}
		n.link.losing(nil)
		n.link.meddle(nil, slowReads(500*time.Millisecond)) // 100 of them for each worker take 50 s
		n.link.handler.Interrupted()
		<-time.After(time.Second)
		begin := time.Now()
		must(t, n.SubscribeUpload(t.Context(), "ann", "new"))
		if took := time.Since(begin); took > 1200*time.Millisecond {
			t.Errorf("a new subscriber waited %v, want at most two reads", took)
		}
		must(t, n.Ready())
		<-time.After(2 * maxBehind)
		if err := n.Ready(); err == nil || !strings.Contains(err.Error(), "to catch up") {
			t.Errorf("with uploads that wait for %v ready is %v", 2*maxBehind, err)
		}
		<-time.After(time.Minute)
		must(t, n.Ready())
	})
}

// TestCatchUp_ComparingAllUploadsDelaysNone: a pass over all uploads that the broker answers slowly does not hold up the
// uploads that share its worker.
func TestCatchUp_ComparingAllUploadsDelaysNone(t *testing.T) {
	inCluster(t, 2, Options{}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		n := nodes[0]
		c := n.follower(t, "ann", "cat")
		release := n.link.stop("Positions")
		defer release()
		n.link.handler.Interrupted()
		synctest.Wait()
		begin := time.Now()
		for i := range 4 * catchingWorkers {
			must(t, n.SubscribeUpload(t.Context(), "bob", fmt.Sprint("upload-", i)))
		}
		if took := time.Since(begin); took > 100*time.Millisecond {
			t.Errorf("subscribing took %v", took)
		}
		publish(t, nodes[1].Manager, "cat", 3)
		synctest.Wait()
		wantConsecutive(t, c.offsets(), 1, 3)
	})
}

// TestCatchUp_RepeatedMessagesCostNoRead: the messages that a catch-up has brought before they arrive are recognised; one
// that is another message with the same offset starts a read.
func TestCatchUp_RepeatedMessagesCostNoRead(t *testing.T) {
	inCluster(t, 2, Options{}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		n := nodes[0]
		c := n.follower(t, "ann", "cat")
		var late []broker.Message
		n.link.losing(func(m broker.Message) bool {
			if m.Channel == "upload:cat" {
				late = append(late, m)
			}
			return m.Channel == "upload:cat"
		})
		publish(t, nodes[1].Manager, "cat", 20)
		n.link.handler.Interrupted("upload:cat")
		synctest.Wait()
		n.link.losing(nil)
		reads := n.link.made("Kept")
		for _, m := range late {
			n.link.handler.Receive(m)
		}
		synctest.Wait()
		if more := n.link.made("Kept") - reads; more != 0 {
			t.Errorf("%d reads for messages that had been read", more)
		}
		other := late[19]
		other.Payload = note(t, 99).Payload()
		n.link.handler.Receive(other)
		synctest.Wait()
		if more := n.link.made("Kept") - reads; more != 1 {
			t.Errorf("%d reads for another message of a known offset, want 1", more)
		}
		wantConsecutive(t, c.offsets(), 1, 20)
	})
}

// TestDispatch_OverflowIsCaughtUp: messages that overflow the queue between the broker and the fan-out are read from the
// broker's history; if that no longer has them, shoal.v1 clients are told and base connections closed. None is lost
// silently.
func TestDispatch_OverflowIsCaughtUp(t *testing.T) {
	inCluster(t, 2, Options{}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		n := nodes[0]
		goOn := make(chan struct{})
		c, base := n.follower(t, "ann", "cat"), &baseConn{}
		blocking := &fakeConn{onSend: func(*Frame) Outcome { <-goOn; return Queued }}
		must(t, n.Connect("bob", blocking))
		must(t, n.Connect("carl", base))
		must(t, n.SubscribeUpload(t.Context(), "carl", "cat"))
		must(t, n.SubscribeUpload(t.Context(), "bob", "cat"))
		publish(t, nodes[1].Manager, "cat", 2*dispatchMessages+100)
		synctest.Wait()
		close(goOn) // the first delivery had held up all others
		<-time.After(time.Second)
		publish(t, nodes[1].Manager, "cat", 1)
		<-time.After(time.Second)
		wantAnnouncedGaps(t, c)
		offsets := c.offsets()
		if got := offsets[len(offsets)-1]; got != 2*dispatchMessages+101 {
			t.Errorf("the last message is %d, want %d", got, 2*dispatchMessages+101)
		}
		if closed := base.closed(); len(base.frames) < 2*dispatchMessages+101 && len(closed) != 1 {
			t.Errorf("the base connection received %d messages and was closed with %v", len(base.frames), closed)
		}
		if s := n.Stats().Broker; s.Overflowed == 0 {
			t.Error("the overflow was not counted")
		}
	})
}

// counting is a broker that counts dropped messages.
type counting struct{ *faulty }

func (counting) Oversized() uint64 { return 7 }

// TestCatchUp_EvictsWhatExceedsABound: a catch-up does not leave that to a goroutine that may be slower than the broker.
func TestCatchUp_EvictsWhatExceedsABound(t *testing.T) {
	inCluster(t, 1, Options{MaxUploads: 50}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		n := nodes[0]
		for i := range 100 {
			n.held.pause.count.Store(math.MaxInt64) // nothing is evicted in the background
			n.held.pause.bytes.Store(math.MaxInt64)
			n.cluster.pin(fmt.Sprint("cat ", i))
			synctest.Wait()
		}
		if all := n.held.positions.count.Load(); all != 100 || n.exceedsBound() {
			t.Errorf("%d positions are held, the bound is exceeded: %v", all, n.exceedsBound())
		}
	})
}

// TestStats_ShowWhatWasDropped: the counters of the parts between nodes are in the manager's counts.
func TestStats_ShowWhatWasDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		link := newLink(broker.NewMemory(broker.MemoryOptions{}))
		m := open(t, Options{Broker: counting{link}, StateRate: 1})
		synctest.Wait()
		link.handler.Receive(broker.Message{Channel: "shoal:all", Payload: []byte("no header")})
		state := UploadProgress{Status: StatusPending, Stage: StageQueued}
		for range 2 { // the second is delayed
			_, err := m.Publish(t.Context(), "cat", state)
			must(t, err)
		}
		link.meddle(only("Store", broker.ErrUnavailable), nil)
		<-time.After(1500 * time.Millisecond)
		link.meddle(nil, nil)
		s := m.Stats().Broker
		if s.NodeMessagesDropped != 1 || s.DelayedStateFailures == 0 || s.Oversized != 7 || s.Nodes != 1 {
			t.Errorf("counts are %+v", *s)
		}
	})
}

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
