package manager

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/shoal/broker"
)

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
