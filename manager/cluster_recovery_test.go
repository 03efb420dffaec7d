package manager

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/shoal/broker"
)

// TestReadOlder_NewClientsNeedTheNewestOnly: a node that begins to follow an upload reads one message, however many are
// stored. A client that returns makes it read the ones before, once for all clients at that position, and recovers
// completely; live messages in between keep their place.
func TestReadOlder_NewClientsNeedTheNewestOnly(t *testing.T) {
	inCluster(t, 2, Options{}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		far := nodes[1]
		epoch := publish(t, far.Manager, "cat", 20).Epoch
		n := nodes[0]
		late := n.follower(t, "ann", "cat")
		if got := late.received(t); len(got) != 2 || got[1].Offset != 20 || n.link.made("Kept") != 1 || n.link.newests != 1 {
			t.Fatalf("received %+v with %d reads, %d of the newest alone", got, n.link.made("Kept"), n.link.newests)
		}
		publish(t, far.Manager, "cat", 2)
		synctest.Wait()
		release := n.link.delay("Kept")
		var returning sync.WaitGroup
		var conns []*fakeConn
		for i := range 30 {
			c := connect(t, n.Manager, fmt.Sprint("returning-", i))
			conns = append(conns, c)
			returning.Go(func() {
				refused, err := n.Resume(t.Context(), fmt.Sprint("returning-", i), c, map[string]Position{"cat": {Epoch: epoch, Offset: 5}})
				if err != nil || len(refused) > 0 {
					t.Errorf("Resume: %v, %v", refused, err)
				}
			})
		}
		<-time.After(time.Millisecond)
		publish(t, far.Manager, "cat", 1)
		release()
		returning.Wait()
		synctest.Wait()
		for _, c := range conns {
			got := c.received(t)
			if len(got) != 1+18 || !got[0].Uploads["cat"].Recovered || got[1].Offset != 6 || got[18].Offset != 23 {
				t.Errorf("received %+v, want all from 6 to 23", got)
			}
		}
		if reads := n.link.made("Kept"); reads != 2 {
			t.Errorf("%d reads, want one more for all clients", reads)
		}
		since := n.connectSince(t, "early", "cat", Position{Epoch: epoch})
		if got := since.received(t); len(got) != 1+23 || !got[0].Recovered {
			t.Errorf("received %+v, want all from the first", got)
		}
		n.connectSince(t, "strange", "cat", Position{Epoch: "another", Offset: 3})
		if reads := n.link.made("Kept"); reads != 3 {
			t.Errorf("%d reads, want one more", reads)
		}
	})
}

// TestReadOlder_ReadsAreBounded: however many clients return at the same time, few reads of older messages are made at
// once.
func TestReadOlder_ReadsAreBounded(t *testing.T) {
	inCluster(t, 2, Options{}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		const users, each = 20, 40
		n := nodes[0]
		reader := connect(t, n.Manager, "reader")
		since := make([]map[string]Position, users)
		for user := range users {
			since[user] = make(map[string]Position)
			for i := range each {
				id := fmt.Sprint(user, "-", i)
				since[user][id] = Position{Epoch: publish(t, nodes[1].Manager, id, 5).Epoch, Offset: 1}
				must(t, n.SubscribeConn(t.Context(), "reader", reader, id, SubscribeOptions{}))
			}
		}
		release := n.link.stop("Kept")
		var returning sync.WaitGroup
		for user := range users {
			name := fmt.Sprint("user-", user)
			c := connect(t, n.Manager, name)
			returning.Go(func() {
				if refused, err := n.Resume(t.Context(), name, c, since[user]); err != nil || len(refused) > 0 {
					t.Errorf("Resume: %v, %v", refused, err)
				}
			})
		}
		synctest.Wait()
		if got := n.link.stopped(); got != allOlderReaders {
			t.Errorf("%d reads are made at once, want %d", got, allOlderReaders)
		}
		release()
		returning.Wait()
	})
}

// TestReadOlder_FailureIsNoGap: a client is not told that it missed messages because they could not be read now.
func TestReadOlder_FailureIsNoGap(t *testing.T) {
	inCluster(t, 2, Options{}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		epoch := publish(t, nodes[1].Manager, "cat", 20).Epoch
		n := nodes[0]
		n.follower(t, "ann", "cat")
		since := map[string]Position{"cat": {Epoch: epoch, Offset: 5}}
		c := connect(t, n.Manager, "bob")
		n.link.meddle(only("Kept", broker.ErrUnavailable), nil)
		if _, err := n.Resume(t.Context(), "bob", c, since); !isPassing(err) {
			t.Errorf("Resume: %v, want ErrUnavailable", err)
		}
		n.link.meddle(refusing("Kept"), nil)
		if refused, err := n.Resume(t.Context(), "bob", c, since); err != nil || refused["cat"] == nil {
			t.Errorf("Resume: %v, %v, want a refusal", refused, err)
		}
		n.link.meddle(nil, nil)
		if refused, err := n.Resume(t.Context(), "bob", c, since); err != nil || len(refused) > 0 {
			t.Errorf("Resume: %v, %v", refused, err)
		}
		if got := c.received(t); len(got) != 2+15 {
			t.Errorf("received %+v, want two answers and 15 messages", got)
		}
	})
}

// TestReadOlder_EndsAtTheLimits: a position that the history no longer reaches is answered as such, and is not read
// for again.
func TestReadOlder_EndsAtTheLimits(t *testing.T) {
	inCluster(t, 2, Options{HistoryMessages: 8}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		epoch := publish(t, nodes[1].Manager, "cat", 40).Epoch
		n := nodes[0]
		n.follower(t, "ann", "cat")
		for i, c := range []struct {
			offset, reads int
			recovered     bool
		}{{38, 2, true}, {20, 3, false}, {10, 3, false}, {36, 3, true}} {
			conn := n.connectSince(t, fmt.Sprint("user-", i), "cat", Position{Epoch: epoch, Offset: uint64(c.offset)})
			got := conn.received(t)
			if got[0].Recovered != c.recovered || n.link.made("Kept") != c.reads {
				t.Errorf("since %d: %+v with %d reads, want recovered %v with %d", c.offset, got[0], n.link.made("Kept"), c.recovered, c.reads)
			}
		}
	})
}

// connectSince returns a connection of its own user that has subscribed from a position.
func (n member) connectSince(t *testing.T, userID, uploadID string, since Position) *fakeConn {
	t.Helper()
	c := connect(t, n.Manager, userID)
	must(t, n.SubscribeConn(t.Context(), userID, c, uploadID, SubscribeOptions{Since: &since, Acknowledge: true}))
	return c
}

// TestReadOlder_ResetOfAPartialLog: after a reset that takes the only message which this node knew, the older ones of the
// new epoch are not delivered as new ones; a base connection, which cannot tell, is closed.
func TestReadOlder_ResetOfAPartialLog(t *testing.T) {
	inCluster(t, 2, Options{}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		publish(t, nodes[1].Manager, "cat", 5)
		n, base := nodes[0], &baseConn{}
		must(t, n.Connect("ann", base))
		must(t, n.SubscribeUpload(t.Context(), "ann", "cat"))
		v1 := n.follower(t, "bob", "cat")
		n.link.keeping(func(broker.Snapshot) broker.Snapshot {
			all, err := n.link.HistoryBroker.History(t.Context(), "upload:cat", broker.Position{})
			must(t, err)
			all.Epoch, all.Offset, all.Messages = "another", 4, all.Messages[:4]
			return all
		})
		n.link.handler.Receive(broker.Message{Channel: "upload:cat", Position: broker.Position{Epoch: "another", Offset: 4}})
		<-time.After(time.Second)
		synctest.Wait()
		if closed := base.closed(); len(base.frames) != 1+1 || len(closed) != 1 || closed[0] != TryAgainLater {
			t.Errorf("a base connection got %d frames and %v, want the snapshot and 1013", len(base.frames), closed)
		}
		if got := v1.received(t); len(got) != 4 || got[2].Recovered || got[2].Epoch != "another" || got[3].Offset != 4 {
			t.Errorf("received %+v, want the new position and its newest message", got)
		}
	})
}

// TestReadOlder_LostDataOfAPartialLog: an engine that returns without its data begins an epoch whose messages are all
// new, also for a base connection.
func TestReadOlder_LostDataOfAPartialLog(t *testing.T) {
	inCluster(t, 2, Options{}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		publish(t, nodes[1].Manager, "cat", 5)
		n, base := nodes[0], &baseConn{}
		must(t, n.Connect("ann", base))
		must(t, n.SubscribeUpload(t.Context(), "ann", "cat"))
		n.link.losing(func(broker.Message) bool { return true })
		<-time.After(2 * time.Second)
		must(t, nodes[1].Forget(t.Context(), "cat"))
		publish(t, nodes[1].Manager, "cat", 3)
		n.link.losing(nil)
		n.link.handler.Interrupted()
		<-time.After(time.Second)
		synctest.Wait()
		if got, closed := len(base.frames), base.closed(); got != 1+3 || len(closed) != 0 {
			t.Errorf("%d messages came, closed %v; want the snapshot and the three new ones", got, closed)
		}
	})
}

// A client that comes from a node that was further on is answered as soon as this node has caught up.
func TestWaitForPosition_ClientAheadOfItsNode(t *testing.T) {
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
