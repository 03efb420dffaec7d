package manager

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/shoal/broker"
)

func TestCluster_PublishReachesAllNodes(t *testing.T) {
	inCluster(t, 3, Options{}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		var clients []*fakeConn
		for i, n := range nodes {
			clients = append(clients, n.follower(t, fmt.Sprint("user-", i), "cat"))
		}
		last := publish(t, nodes[1].Manager, "cat", 5)
		synctest.Wait()
		for i, c := range clients {
			wantConsecutive(t, c.offsets(), 1, 5)
			if told := c.received(t)[0]; told.Epoch != last.Epoch || told.Offset != 0 {
				t.Errorf("node %d acknowledged %+v, want offset 0 of the epoch %q", i, told.Position, last.Epoch)
			}
		}
	})
}

func TestCluster_LateSubscriberGetsTheNewest(t *testing.T) {
	inCluster(t, 2, Options{}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		publish(t, nodes[0].Manager, "cat", 5)
		c := nodes[1].follower(t, "ann", "cat")
		if got := c.offsets(); len(got) != 1 || got[0] != 5 {
			t.Errorf("received %v, want the newest", got)
		}
	})
}

func TestCluster_ClientRecoversOnAnotherNode(t *testing.T) {
	inCluster(t, 2, Options{}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		nodes[0].follower(t, "bob", "cat") // so that the node has a log of its own
		seen := publish(t, nodes[0].Manager, "cat", 5)
		publish(t, nodes[0].Manager, "cat", 3)
		c := connect(t, nodes[1].Manager, "ann")
		refused, err := nodes[1].Resume(t.Context(), "ann", c, map[string]Position{"cat": seen})
		if err != nil || len(refused) > 0 {
			t.Fatal(err, refused)
		}
		publish(t, nodes[0].Manager, "cat", 2)
		synctest.Wait()
		wantConsecutive(t, c.offsets(), 6, 10)
		if told := c.received(t)[0]; !told.Uploads["cat"].Recovered {
			t.Errorf("was told %+v", told)
		}
	})
}

// TestCluster_ForeignMessageHasNoOffset: a message from a publisher outside this module is delivered to all
// subscribers and becomes the newest message for late subscribers.
func TestCluster_ForeignMessageHasNoOffset(t *testing.T) {
	inCluster(t, 2, Options{}, func(t *testing.T, hub *broker.Memory, nodes []member) {
		c := nodes[0].follower(t, "ann", "cat")
		foreign := `{"action":"upload_progress","payload":{"upload_id":"cat"},"extra":1}`
		must(t, nodes[1].link.HistoryBroker.Publish(t.Context(), "upload:cat", []byte(foreign)))
		synctest.Wait()
		late := nodes[0].follower(t, "bob", "cat")
		for who, c := range map[string]*fakeConn{"who was there": c, "who came late": late} {
			got := c.received(t)
			if len(got) != 2 || got[1].published != foreign || got[1].Offset != 0 {
				t.Errorf("%s received %+v", who, got)
			}
		}
	})
}

func TestCluster_InvalidForeignMessageIsCounted(t *testing.T) {
	inCluster(t, 1, Options{MaxMessageBytes: 1024}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		n := nodes[0]
		c := n.follower(t, "ann", "cat")
		nonsense := []string{
			"", " ", "null", "no JSON", `"action"`, `[]`, `{}`, `{"action":1}`, `{"action":""}`, `{"action":"pong"}`,
			`{"action":"a","action":"b"}`, `{"action":"a","offset":1}`, `{"action":"a","skipped":1}`,
			`{"action":"a","upload_id":"dog"}`, `{"action":"a","upload_id":"\u0000"}`, `{"action":"a","upload_id":7}`,
			`{"action":"upload_progress","payload":{"upload_id":"dog"}}`, "{\"action\":\"\xff\"}",
			`{"action":"a","long":"` + string(make([]byte, 2000)) + `"}`,
		}
		for _, text := range nonsense {
			must(t, n.link.Publish(t.Context(), "upload:cat", []byte(text)))
		}
		must(t, n.link.Publish(t.Context(), "upload:cat", []byte(`{"action":"fine"}`)))
		synctest.Wait()
		if got := c.received(t); len(got) != 2 || got[1].Action != "fine" {
			t.Errorf("received %+v", got)
		}
		if s := n.Stats().Broker; s.Refused != uint64(len(nonsense)) {
			t.Errorf("%d were refused, want %d", s.Refused, len(nonsense))
		}
	})
}

// A stored message that will not do has an offset all the same: it must not look like a gap.
func TestCluster_InvalidStoredMessageLeavesNoGap(t *testing.T) {
	inCluster(t, 2, Options{}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		c := nodes[0].follower(t, "ann", "cat")
		publish(t, nodes[1].Manager, "cat", 1)
		for range 2 {
			_, err := nodes[1].link.Store(t.Context(), "upload:cat", []byte("no JSON"))
			must(t, err)
		}
		publish(t, nodes[1].Manager, "cat", 1)
		synctest.Wait()
		if got := c.offsets(); !slices.Equal(got, []uint64{1, 4}) {
			t.Errorf("received %v", got)
		}
		if s := nodes[0].Stats().Broker; s.Resets != 0 || s.Recoveries != 1 {
			t.Errorf("counts are %+v, want the one recovery of the first subscriber", s)
		}
	})
}

func TestForget_ReachesAllNodes(t *testing.T) {
	inCluster(t, 2, Options{}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		c := nodes[0].follower(t, "ann", "cat")
		before := publish(t, nodes[1].Manager, "cat", 3)
		must(t, nodes[1].Forget(t.Context(), "cat"))
		synctest.Wait()
		after := publish(t, nodes[1].Manager, "cat", 1)
		synctest.Wait()
		got := c.received(t)
		told := got[4]
		if told.Action != "subscribed" || told.Epoch == before.Epoch || told.Epoch != after.Epoch || told.Recovered {
			t.Errorf("was told %+v, the epochs are %q and %q", told, before.Epoch, after.Epoch)
		}
		if last := got[5]; len(got) != 6 || last.Offset != 1 {
			t.Errorf("then received %+v", got[5:])
		}
	})
}

func TestSendToUploadSubscribers_StaysLocal(t *testing.T) {
	inCluster(t, 2, Options{}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		here, there := nodes[0].follower(t, "ann", "cat"), nodes[1].follower(t, "bob", "cat")
		d, err := nodes[0].SendToUploadSubscribers("cat", note(t, 1))
		if err != nil || d.Queued != 1 {
			t.Errorf("%+v, %v", d, err)
		}
		synctest.Wait()
		if a, b := len(here.received(t)), len(there.received(t)); a != 2 || b != 1 {
			t.Errorf("here came %d and there %d messages, want 2 and 1", a, b)
		}
	})
}

func TestSendToUser_ReachesEveryNode(t *testing.T) {
	inCluster(t, 3, Options{}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		var all []*fakeConn
		for _, n := range nodes {
			all = append(all, connect(t, n.Manager, "ann"), connect(t, n.Manager, "bob"))
		}
		text := `{"action":"note", "html":"<b> & \u003c"}`
		e, err := Parse("", []byte(text), time.Time{})
		must(t, err)
		d, err := nodes[0].SendToUser(t.Context(), "ann", e)
		if err != nil || d.Queued != 3 {
			t.Errorf("%+v, %v", d, err)
		}
		if n := nodes[0].Stats().Messages.User.Total(); n != 1 {
			t.Errorf("%d messages to users are counted, want 1", n)
		}
		synctest.Wait()
		n, err := nodes[2].DisconnectUser(t.Context(), "ann", CloseReason{4000, "Signed out"})
		if err != nil || n != 3 {
			t.Errorf("%d were closed, %v", n, err)
		}
		synctest.Wait()
		for i, c := range all {
			got, want := c.received(t), 2*(1-i%2)
			if len(got) != want || want > 0 && (got[0].published != text || got[1].published != "Signed out") {
				t.Errorf("connection %d received %+v", i, got)
			}
		}
	})
}

// holder is a connection that knows its token.
type holder struct {
	fakeConn
	token string
}

func (h *holder) TokenID() string { return h.token }

func TestDisconnectToken_ReachesEveryNode(t *testing.T) {
	inCluster(t, 2, Options{}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		stolen, own, none := &holder{token: "stolen"}, &holder{token: "own"}, &holder{}
		must(t, nodes[0].Connect("ann", stolen))
		must(t, nodes[0].Connect("ann", own))
		must(t, nodes[0].Connect("ann", none))
		for token, want := range map[string]int{"stolen": 1, "": 0} {
			if n, err := nodes[1].DisconnectToken(t.Context(), token, NormalClosure); n != want || err != nil {
				t.Errorf("%d were closed, %v, want %d", n, err, want)
			}
		}
		synctest.Wait()
		if a, b, c := len(stolen.closed()), len(own.closed()), len(none.closed()); a != 1 || b != 0 || c != 0 {
			t.Errorf("the connections were closed %d, %d, %d times, want 1, 0, 0", a, b, c)
		}
	})
}

// A token id of arbitrary bytes, such as a session id, is the same id on all nodes, and a reason that no close frame can
// hold does not keep other nodes from closing.
func TestDisconnectToken_OfArbitraryBytes(t *testing.T) {
	inCluster(t, 2, Options{}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		revoked, other := &holder{token: "\xff\x01"}, &holder{token: "\xfe\x01"}
		must(t, nodes[0].Connect("ann", revoked))
		must(t, nodes[0].Connect("ann", other))
		reason := CloseReason{4003, strings.Repeat("\xff", 100) + "Signed out"}
		if n, err := nodes[1].DisconnectToken(t.Context(), "\xff\x01", reason); n != 1 || err != nil {
			t.Errorf("%d were closed, %v, want 1", n, err)
		}
		got := revoked.closed()
		if len(got) != 1 || got[0] != (CloseReason{4003, "Signed out"}) || len(other.closed()) != 0 {
			t.Errorf("closed with %v and %v, want the reason's valid text for the first alone", got, other.closed())
		}
	})
}

// A message to a user that is too large for the other nodes is refused before any connection has it.
func TestSendToUser_RefusesMessagesTooLargeForOtherNodes(t *testing.T) {
	inCluster(t, 1, Options{MaxMessageBytes: 2 << 20}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		c := connect(t, nodes[0].Manager, "ann")
		e, err := NewEvent("note", map[string]string{"text": strings.Repeat("x", 1<<20)})
		must(t, err)
		var invalid *InvalidError
		if _, err := nodes[0].SendToUser(t.Context(), "ann", e); !errors.As(err, &invalid) {
			t.Errorf("%v, want an InvalidError", err)
		}
		if n := len(c.received(t)); n != 0 {
			t.Errorf("%d messages came", n)
		}
	})
}

func TestSubscribers_OfAllNodes(t *testing.T) {
	inCluster(t, 3, Options{}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		for i, n := range nodes {
			n.follower(t, fmt.Sprint("user-", i), "cat")
			n.follower(t, "everywhere", "cat")
		}
		s, err := nodes[0].Subscribers(t.Context(), "cat")
		want := []string{"everywhere", "user-0", "user-1", "user-2"}
		if err != nil || !slices.Equal(s.Users, want) || len(s.Missing) > 0 {
			t.Errorf("%+v, %v", s, err)
		}
		nodes[2].link.cut()
		s, err = nodes[0].Subscribers(t.Context(), "cat")
		if err != nil || !slices.Equal(s.Users, want[:3]) || len(s.Missing) != 1 {
			t.Errorf("without one node: %+v, %v", s, err)
		}
		stats, missing, err := nodes[0].NodeStats(t.Context())
		if err != nil || len(stats) != 2 || len(missing) != 1 {
			t.Errorf("%+v, %v, %v", stats, missing, err)
		}
		nodes[2].link.mend()
	})
}

func TestFollow_EndsASecondAfterTheLastFollower(t *testing.T) {
	inCluster(t, 1, Options{}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		n := nodes[0]
		subscriptions := n.link.made("Subscribe")
		c := n.follower(t, "ann", "cat")
		for range 5 { // a page that is loaded again and again
			n.Disconnect("ann", c)
			<-time.After(leaveDelay / 2)
			c = n.follower(t, "ann", "cat")
			<-time.After(2 * leaveDelay)
		}
		if more := n.link.made("Subscribe") - subscriptions; more != 1 {
			t.Errorf("subscribed %d times, want once", more)
		}
		if left := n.link.made("Unsubscribe"); left != 0 {
			t.Errorf("left %d times while there were followers", left)
		}
		n.Disconnect("ann", c)
		<-time.After(leaveDelay - time.Millisecond)
		synctest.Wait()
		if left := n.link.made("Unsubscribe"); left != 0 {
			t.Error("left too early")
		}
		<-time.After(2 * time.Millisecond)
		synctest.Wait()
		if left := n.link.made("Unsubscribe"); left != 1 {
			t.Errorf("left %d times, want once", left)
		}
		if s := n.Stats(); s.Uploads != 0 {
			t.Errorf("%d uploads are left", s.Uploads)
		}
	})
}

// Many uploads that come and go cost no call of the broker each.
func TestFollow_SubscribesInBatches(t *testing.T) {
	inCluster(t, 1, Options{MaxSubscriptionsPerUser: -1}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		n := nodes[0]
		const uploads = 5_000
		since := make(map[string]Position, uploads)
		for i := range uploads {
			since[fmt.Sprint("upload-", i)] = Position{}
		}
		c := connect(t, n.Manager, "ann")
		before := n.link.made("Subscribe")
		if _, err := n.Resume(t.Context(), "ann", c, since); err != nil {
			t.Fatal(err)
		}
		if calls := n.link.made("Subscribe") - before; calls > uploads/10 {
			t.Errorf("%d uploads took %d calls", uploads, calls)
		}
		n.Disconnect("ann", c)
		<-time.After(2 * leaveDelay)
		synctest.Wait()
		if s := n.Stats(); s.Uploads != 0 {
			t.Errorf("%d uploads are left", s.Uploads)
		}
	})
}

func TestCluster_WithoutTheBroker(t *testing.T) {
	inCluster(t, 2, Options{}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		n := nodes[0]
		c := n.follower(t, "ann", "cat")
		n.link.cut()
		if err := n.Ready(); err == nil {
			t.Error("the node is ready without a broker")
		}
		_, err := n.Publish(t.Context(), "cat", note(t, 1))
		_, sendErr := n.SendToUser(t.Context(), "ann", note(t, 1))
		_, _, newestErr := n.Newest(t.Context(), "cat")
		_, historyErr := n.History(t.Context(), "cat", Position{})
		_, closeErr := n.DisconnectUser(t.Context(), "nobody", NormalClosure)
		_, askErr := n.Subscribers(t.Context(), "cat")
		for call, err := range map[string]error{
			"Publish": err, "SendToUser": sendErr, "Newest": newestErr, "History": historyErr, "DisconnectUser": closeErr,
			"Subscribers":     askErr,
			"SubscribeUpload": n.SubscribeUpload(t.Context(), "ann", "dog"),
		} {
			if !errors.Is(err, ErrUnavailable) {
				t.Errorf("%s returned %v, want ErrUnavailable", call, err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if err := n.SubscribeUpload(ctx, "ann", "dog"); !errors.Is(err, context.Canceled) {
			t.Errorf("a subscription that was given up returned %v", err)
		}
		publish(t, nodes[1].Manager, "cat", 3)
		if len(c.closed()) > 0 || len(c.offsets()) > 0 {
			t.Errorf("meanwhile the follower got %+v", c.received(t))
		}
		n.link.mend()
		synctest.Wait()
		wantConsecutive(t, c.offsets(), 1, 3)
		if err := n.Ready(); err != nil {
			t.Errorf("the node is not ready: %v", err)
		}
		must(t, n.SubscribeUpload(t.Context(), "ann", "dog"))
	})
}

func TestCatchUp_LostMessageIsRecoveredWithTheNext(t *testing.T) {
	inCluster(t, 2, Options{}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		c := nodes[0].follower(t, "ann", "cat")
		n := 0
		nodes[0].link.losing(func(m broker.Message) bool {
			if m.Channel != "upload:cat" {
				return false
			}
			n++
			return n%3 == 0
		})
		publish(t, nodes[1].Manager, "cat", 20)
		synctest.Wait()
		nodes[0].link.losing(nil)
		publish(t, nodes[1].Manager, "cat", 1)
		<-time.After(time.Second) // catching up may take more than one read
		wantConsecutive(t, c.offsets(), 1, 21)
	})
}

// TestCatchUp_LossBeyondTheHistoryIsAnnounced: this node cannot recover messages that the broker no longer stores, and
// notifies followers.
func TestCatchUp_LossBeyondTheHistoryIsAnnounced(t *testing.T) {
	inCluster(t, 2, Options{}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		c := nodes[0].follower(t, "ann", "cat")
		publish(t, nodes[1].Manager, "cat", 1)
		synctest.Wait()
		nodes[0].link.cut()
		publish(t, nodes[1].Manager, "cat", 100) // the broker stores 64 of them
		nodes[0].link.mend()
		synctest.Wait()
		publish(t, nodes[1].Manager, "cat", 1)
		synctest.Wait()
		got := c.received(t)
		if len(got) != 5 || got[2].Action != "subscribed" || got[2].Recovered || got[2].Offset != 101 {
			t.Fatalf("received %+v, want a new beginning", got)
		}
		if got := c.offsets(); !slices.Equal(got, []uint64{1, 101, 102}) {
			t.Errorf("received %v", got)
		}
	})
}

func TestClose_AnnouncesTheDeparture(t *testing.T) {
	inCluster(t, 2, Options{}, func(t *testing.T, hub *broker.Memory, nodes []member) {
		third := openMember(t, hub, Options{})
		<-time.After(2 * time.Second)
		if stats, _, err := nodes[0].NodeStats(t.Context()); err != nil || len(stats) != 3 {
			t.Fatalf("there are %d nodes, %v", len(stats), err)
		}
		must(t, third.Close(t.Context()))
		synctest.Wait()
		stats, missing, err := nodes[0].NodeStats(t.Context())
		if err != nil || len(stats) != 2 || len(missing) != 0 {
			t.Errorf("%d nodes answered, %v are missing, %v", len(stats), missing, err)
		}
	})
}

// TestStateRate_ConflatesBetweenNodes: nodes exchange a bounded number of states of an upload per second, and always the
// newest state and the end.
func TestStateRate_ConflatesBetweenNodes(t *testing.T) {
	inCluster(t, 2, Options{StateRate: 10}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		c := nodes[1].follower(t, "ann", "cat")
		state := UploadProgress{Status: StatusAnalyzing, Stage: StageIndexing}
		for i := range 50 {
			state.Percent = float64(i)
			_, err := nodes[0].Publish(t.Context(), "cat", state)
			must(t, err)
			<-time.After(10 * time.Millisecond)
		}
		_, err := nodes[0].Publish(t.Context(), "cat", UploadCompleted{AuditScore: 1})
		must(t, err)
		synctest.Wait()
		got := c.received(t)
		if n := len(got); n < 7 || n > 9 {
			t.Fatalf("%d messages came, want the answer, five or six states and the end", n)
		}
		end, last := got[len(got)-1], got[len(got)-2]
		if end.Action != "upload_completed" || !strings.Contains(last.published, `"progress_percent":49`) {
			t.Errorf("in the end came %+v and %+v", last, end)
		}
		if s := nodes[0].Stats(); s.Broker.Conflated+uint64(len(got)-2) != 50 || s.Published != 51 {
			t.Errorf("counts are %+v, %+v", s, s.Broker)
		}
	})
}

// TestClose_SendsDelayedStates: Close sends the states that the rate limit held back.
func TestClose_SendsDelayedStates(t *testing.T) {
	inCluster(t, 1, Options{}, func(t *testing.T, hub *broker.Memory, nodes []member) {
		c := nodes[0].follower(t, "ann", "cat")
		other := openMember(t, hub, Options{StateRate: 0.01})
		for range 2 {
			_, err := other.Publish(t.Context(), "cat", UploadProgress{Status: StatusPending, Stage: StageQueued})
			must(t, err)
		}
		must(t, other.Close(t.Context()))
		synctest.Wait()
		wantConsecutive(t, c.offsets(), 1, 2)
		if _, err := other.Publish(t.Context(), "cat", note(t, 1)); !errors.Is(err, ErrClosed) {
			t.Errorf("publishing on a closed node returned %v", err)
		}
	})
}

// TestStateRate_LostConfirmationRepeatsNothing: a delayed state that was stored, although its confirmation was lost, is not
// stored again; one that was not stored is, also if its text is that of an earlier message.
func TestStateRate_LostConfirmationRepeatsNothing(t *testing.T) {
	for name, stored := range map[string]bool{"stored": true, "not stored": false} {
		t.Run(name, func(t *testing.T) {
			inCluster(t, 2, Options{StateRate: 1}, func(t *testing.T, _ *broker.Memory, nodes []member) {
				c := nodes[1].follower(t, "ann", "cat")
				failed := false
				fail := func(_ context.Context, call string) error {
					if call != "Store" || failed {
						return nil
					}
					failed = true
					return broker.ErrUnavailable
				}
				state := UploadProgress{Status: StatusPending, Stage: StageQueued}
				for _, e := range []Message{state, note(t, 1), state} { // the last one is delayed
					_, err := nodes[0].Publish(t.Context(), "cat", e)
					must(t, err)
				}
				if stored {
					nodes[0].link.meddle(nil, fail)
				} else {
					nodes[0].link.meddle(fail, nil)
				}
				<-time.After(10 * time.Second)
				wantConsecutive(t, c.offsets(), 1, 3)
				if s := nodes[0].Stats().Broker; s.DelayedStateFailures != 1 {
					t.Errorf("%d attempts failed, want 1", s.DelayedStateFailures)
				}
			})
		})
	}
}
