package manager

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/internal/testlog"
)

// TestCompare_UnreadableUploadDelaysNoOther: after an interruption all uploads catch up except the one whose position the
// broker refuses to tell, and the node stays ready. That one catches up as soon as it can be read.
func TestCompare_UnreadableUploadDelaysNoOther(t *testing.T) {
	inCluster(t, 2, Options{MaxSubscriptionsPerUser: -1}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		const uploads = positionBatch + 200
		n := nodes[0]
		conns := make([]*fakeConn, uploads)
		for i := range uploads {
			conns[i] = n.follower(t, fmt.Sprint("user-", i), fmt.Sprint("upload-", i))
		}
		n.link.losing(func(m broker.Message) bool { return m.Offset > 0 })
		for i := range uploads {
			publish(t, nodes[1].Manager, fmt.Sprint("upload-", i), 1)
		}
		n.link.losing(nil)
		n.link.damage("upload:upload-7")
		n.link.handler.Interrupted()
		<-time.After(2 * maxBehind)
		must(t, n.Ready())
		for i, c := range conns {
			if got := c.offsets(); i != 7 && !slices.Equal(got, []uint64{1}) {
				t.Fatalf("of upload %d came %v, want the message that was missed", i, got)
			}
		}
		if calls := n.link.made("Positions"); calls > 2+2*11 {
			t.Errorf("%d questions about positions, want two for each halving of a batch", calls)
		}
		n.link.damage("")
		<-time.After(2 * maxPause)
		wantConsecutive(t, conns[7].offsets(), 1, 1)
	})
}

// TestCompare_ManyUnreadableUploadsDelayNoOther: a pass that finds unreadable uploads only, because they come first,
// gives up, and a later one reaches the readable upload.
func TestCompare_ManyUnreadableUploadsDelayNoOther(t *testing.T) {
	inCluster(t, 2, Options{MaxSubscriptionsPerUser: -1}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		n := nodes[0]
		for i := range 20 {
			must(t, n.SubscribeUpload(t.Context(), "ann", fmt.Sprint("bad-", i)))
		}
		c := n.follower(t, "bob", "good")
		n.link.losing(func(m broker.Message) bool { return m.Offset > 0 })
		publish(t, nodes[1].Manager, "good", 1)
		n.link.losing(nil)
		n.link.damage("upload:bad*")
		n.link.handler.Interrupted()
		<-time.After(time.Minute) // some thirty passes
		wantConsecutive(t, c.offsets(), 1, 1)
	})
}

// TestCompare_UnreadableUploadIsNamed: the log tells which upload cannot be read.
func TestCompare_UnreadableUploadIsNamed(t *testing.T) {
	var log strings.Builder
	inCluster(t, 1, Options{Logger: slog.New(slog.NewTextHandler(&log, nil))}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		n := nodes[0]
		n.follower(t, "ann", "bad")
		n.link.damage("upload:bad")
		n.link.handler.Interrupted()
		<-time.After(time.Minute)
	})
	if got := strings.Count(log.String(), `error="upload \"bad\": WRONGTYPE`); got < 2 {
		t.Errorf("the upload is named %d times in the log:\n%s", got, log.String())
	}
}

// TestCompare_FailureOfTheBrokerCostsFewQuestions: a broker that does not answer, or that refuses everything, is not asked
// for each upload, and the node is not ready.
func TestCompare_FailureOfTheBrokerCostsFewQuestions(t *testing.T) {
	for name, test := range map[string]struct {
		err  error
		most int // questions per pass
	}{"out of reach": {broker.ErrUnavailable, 1}, "refused": {errNoPermission, 32}} {
		t.Run(name, func(t *testing.T) {
			inCluster(t, 2, Options{MaxSubscriptionsPerUser: -1}, func(t *testing.T, _ *broker.Memory, nodes []member) {
				n := nodes[0]
				for i := range positionBatch {
					must(t, n.SubscribeUpload(t.Context(), "ann", fmt.Sprint("upload-", i)))
				}
				reads := n.link.made("Kept")
				n.link.meddle(only("Positions", test.err), nil)
				n.link.handler.Interrupted()
				<-time.After(minPause / 2)
				if calls := n.link.made("Positions"); calls > test.most {
					t.Errorf("%d questions about positions, want at most %d", calls, test.most)
				}
				<-time.After(2 * maxBehind)
				if n.Ready() == nil {
					t.Error("the node is ready")
				}
				if more := n.link.made("Kept") - reads; more != 0 {
					t.Errorf("%d uploads were read", more)
				}
				n.link.meddle(nil, nil)
				<-time.After(2 * maxPause)
				must(t, n.Ready())
			})
		})
	}
}

// forgetful is a broker that returns no positions.
type forgetful struct{ *faulty }

func (f forgetful) Positions(context.Context, ...string) ([]broker.Position, error) { return nil, nil }

// TestCompare_MissingPositionsAreNamed: the log names the fault of a broker that returns too few positions.
func TestCompare_MissingPositionsAreNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log testlog.Buffer
		link := newLink(broker.NewMemory(broker.MemoryOptions{}))
		m := open(t, Options{Broker: forgetful{link}, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		synctest.Wait()
		member{m, link}.follower(t, "ann", "cat")
		link.Interrupted()
		synctest.Wait()
		if text := log.String(); !strings.Contains(text, "Positions returned 0 positions of 1") {
			t.Errorf("logged: %.300s", text)
		}
	})
}
