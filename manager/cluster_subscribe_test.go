package manager

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/shoal/broker"
)

// only returns a hook that fails the calls of one name.
func only(name string, err error) func(context.Context, string) error {
	return func(_ context.Context, call string) error {
		if call == name {
			return err
		}
		return nil
	}
}

// TestFollow_FollowerAfterAFailedUnsubscribe: after a failed Unsubscribe the state of the subscription is
// unknown.
func TestFollow_FollowerAfterAFailedUnsubscribe(t *testing.T) {
	inCluster(t, 2, Options{}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		n := nodes[0]
		c := n.follower(t, "ann", "cat")
		n.link.meddle(nil, only("Unsubscribe", broker.ErrUnavailable)) // it has happened all the same
		n.Disconnect("ann", c)
		<-time.After(leaveDelay)
		synctest.Wait()
		if n.link.made("Unsubscribe") == 0 {
			t.Fatal("the node has not left")
		}
		c = n.follower(t, "ann", "cat")
		publish(t, nodes[1].Manager, "cat", 3)
		synctest.Wait()
		wantConsecutive(t, c.offsets(), 1, 3)
	})
}

// TestFollow_WaitsForTheSubscription: a pending read for earlier followers must not make the upload ready for
// a new follower.
func TestFollow_WaitsForTheSubscription(t *testing.T) {
	inCluster(t, 2, Options{}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		n := nodes[0]
		n.link.meddle(only("Kept", broker.ErrUnavailable), nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := n.SubscribeUpload(ctx, "ann", "cat"); !errors.Is(err, ErrUnavailable) {
			t.Fatalf("without an answer about what is kept, subscribing returned %v", err)
		}
		<-time.After(leaveDelay) // and the node has left
		synctest.Wait()
		n.link.meddle(only("Subscribe", broker.ErrUnavailable), nil)
		if err := n.SubscribeUpload(t.Context(), "ann", "cat"); !errors.Is(err, ErrUnavailable) {
			t.Fatalf("without a subscription at the broker, subscribing returned %v", err)
		}
	})
}

// The second after which a node leaves begins with the last follower, not with one before.
func TestFollow_LeaveDelayRestarts(t *testing.T) {
	inCluster(t, 1, Options{}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		n := nodes[0]
		for range 20 {
			c := n.follower(t, "ann", "cat")
			<-time.After(leaveDelay / 10)
			n.Disconnect("ann", c)
			<-time.After(leaveDelay * 6 / 10)
		}
		if left := n.link.made("Unsubscribe"); left != 0 {
			t.Errorf("left %d times within a second of the last follower", left)
		}
		<-time.After(leaveDelay)
		synctest.Wait()
		if s := n.Stats(); s.Uploads != 0 {
			t.Errorf("%d uploads are left", s.Uploads)
		}
	})
}

// Who waits for the broker is let go when the node closes.
func TestClose_EndsWaitingSubscribers(t *testing.T) {
	inCluster(t, 1, Options{}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		n := nodes[0]
		n.link.cut()
		start := time.Now()
		result := make(chan error)
		go func() { result <- n.SubscribeUpload(t.Context(), "ann", "cat") }()
		synctest.Wait()
		must(t, n.Close(t.Context()))
		if err := <-result; !errors.Is(err, ErrClosed) || time.Since(start) > 0 {
			t.Errorf("returned %v after %v, want ErrClosed at once", err, time.Since(start))
		}
	})
}

// Nor must an answer for followers of before that is still on its way.
func TestFollow_LateReadIsNotForTheNextFollower(t *testing.T) {
	inCluster(t, 1, Options{}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		n := nodes[0]
		arrive := n.link.delay("Kept")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := n.SubscribeUpload(ctx, "ann", "cat"); !errors.Is(err, ErrUnavailable) {
			t.Fatalf("without an answer about what is kept, subscribing returned %v", err)
		}
		<-time.After(leaveDelay) // and the node has left
		synctest.Wait()
		n.link.meddle(only("Subscribe", broker.ErrUnavailable), nil)
		time.AfterFunc(time.Second, arrive)
		if err := n.SubscribeUpload(t.Context(), "ann", "cat"); !errors.Is(err, ErrUnavailable) {
			t.Fatalf("without a subscription at the broker, subscribing returned %v", err)
		}
	})
}

// TestCatchUp_InvalidStoredMessageCounts: the position that a follower or reader receives includes invalid messages, and
// the newest message is a valid one.
func TestCatchUp_InvalidStoredMessageCounts(t *testing.T) {
	inCluster(t, 2, Options{}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		publish(t, nodes[1].Manager, "cat", 1)
		_, err := nodes[1].link.Store(t.Context(), "upload:cat", []byte("no JSON"))
		must(t, err)
		c := nodes[0].follower(t, "ann", "cat")
		if got := c.received(t); len(got) != 2 || got[0].Offset != 2 || got[1].Offset != 1 {
			t.Errorf("received %+v, want to be told offset 2, and the newest that will do", got)
		}
		if s, pos, _ := newest(nodes[0].Manager, "cat"); s.Offset != 1 || len(s.Payload) == 0 || pos.Offset != 2 {
			t.Errorf("the newest message is %+v at %v, want the valid one, and offset 2", s, pos)
		}
	})
}

func TestStoredAt_IsTheBrokersUnlessItsClockIsAhead(t *testing.T) {
	now := time.Now()
	for _, test := range []struct{ at, want time.Time }{
		{time.Time{}, now}, {now.Add(time.Hour), now}, {now.Add(-time.Minute), now.Add(-time.Minute)},
	} {
		if got := storedAt(broker.Stored{At: test.at}, now); !got.Equal(test.want) {
			t.Errorf("of %v became %v, want %v", test.at, got, test.want)
		}
	}
}

var errNoPermission = errors.New("NOPERM no permission for this channel")

// refusing lets a broker refuse every call of a kind.
func refusing(call string) func(context.Context, string) error {
	return only(call, errNoPermission)
}

// TestCluster_RefusalOfTheBrokerIsReturnedAtOnce: a subscriber does not wait for a refused subscription, whether the
// broker refuses the subscription or the stored messages; and subscribes once the broker allows it.
func TestCluster_RefusalOfTheBrokerIsReturnedAtOnce(t *testing.T) {
	for _, call := range []string{"Subscribe", "Kept"} {
		t.Run(call, func(t *testing.T) {
			inCluster(t, 1, Options{}, func(t *testing.T, _ *broker.Memory, nodes []member) {
				n := nodes[0]
				n.link.meddle(refusing(call), nil)
				begin := time.Now()
				for range 3 {
					err := n.SubscribeUpload(t.Context(), "ann", "cat")
					if !errors.Is(err, ErrRefused) || !errors.Is(err, errNoPermission) || errors.Is(err, ErrUnavailable) {
						t.Errorf("SubscribeUpload: %v, want ErrRefused and the reason", err)
					}
				}
				if took := time.Since(begin); took > maxPause {
					t.Errorf("the refusals took %v", took)
				}
				n.link.meddle(nil, nil)
				must(t, n.SubscribeUpload(t.Context(), "ann", "cat"))
				n.UnsubscribeUpload("ann", "cat")
				<-time.After(2 * leaveDelay)
				synctest.Wait()
				if s := n.Stats(); s.Uploads != 0 {
					t.Errorf("%d uploads are left", s.Uploads)
				}
			})
		})
	}
}

// TestResume_RefusalOfTheBrokerConcernsOneUpload: the other uploads of a resume are recovered.
func TestResume_RefusalOfTheBrokerConcernsOneUpload(t *testing.T) {
	inCluster(t, 1, Options{}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		n := nodes[0]
		n.link.refuse("upload:bad")
		c := connect(t, n.Manager, "ann")
		refused, err := n.Resume(t.Context(), "ann", c, map[string]Position{"bad": {}, "cat": {}, "dog": {}})
		must(t, err)
		if len(refused) != 1 || !errors.Is(refused["bad"], ErrRefused) {
			t.Errorf("refused are %v", refused)
		}
		publish(t, n.Manager, "cat", 1)
		synctest.Wait()
		if got := c.received(t); len(got) != 2 || len(got[0].Uploads) != 2 {
			t.Errorf("received %+v, want the answer for two uploads and a message", got)
		}
	})
}
