package membership

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/shoal/broker"
)

// wantReady fails unless the node is ready, or names a reason that contains want.
func wantReady(t *testing.T, n *member, want string) {
	t.Helper()
	switch err := n.Ready(); {
	case want == "" && err != nil:
		t.Errorf("%s is not ready: %v", n.Name(), err)
	case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
		t.Errorf("%s: ready is %v, want an error with %q", n.Name(), err, want)
	}
}

// TestMembership_NodesOfOneNameAreNotReady: two processes with one name are not ready, and neither is a third node that
// sees them, until one of them has left or fallen silent. The third node lists the name as missing.
func TestMembership_NodesOfOneNameAreNotReady(t *testing.T) {
	for name, end := range map[string]func(*member){"leaves": (*member).leave, "vanishes": (*member).vanish} {
		t.Run(name, func(t *testing.T) {
			inCluster(t, func(t *testing.T, c *cluster) {
				third := c.start(Config{Name: "c"})
				one := c.start(Config{Name: "twin"})
				pass(5 * time.Second)
				wantReady(t, one, "")
				two := c.configure(Config{Name: "twin"})
				two.connect()
				synctest.Wait()
				two.run()
				pass(time.Millisecond)
				wantReady(t, one, "several nodes have the name twin")
				wantReady(t, two, "several nodes have the name twin")
				for range 10 {
					pass(time.Second)
					for _, n := range []*member{one, two, third} {
						wantReady(t, n, "several nodes have the name twin: give each node a name of its own")
					}
				}
				_, missing, err := third.Ask(context.Background(), "who", nil)
				if err != nil || !slices.Equal(missing, []string{"twin"}) {
					t.Errorf("missing are %q, %v; want the name that is used twice", missing, err)
				}
				if n := strings.Count(third.logs.String(), "used twice"); n != 1 {
					t.Errorf("the clash was logged %d times: %s", n, third.logs)
				}
				if n := strings.Count(third.logs.String(), "node joined"); n > 2 {
					t.Errorf("the third node logged %d joins", n)
				}
				end(two)
				pass(6 * time.Second)
				for _, n := range []*member{one, third} {
					wantReady(t, n, "")
				}
				c.ask(third, []string{"c", "twin"}, nil)
			})
		})
	}
}

// TestMembership_RestartUnderOneNameIsNoClash: a process that replaces one of its name that has left or crashed does not
// make any node unready.
func TestMembership_RestartUnderOneNameIsNoClash(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		other := c.start(Config{Name: "a"})
		pass(5 * time.Second)
		for i := range 12 {
			n := c.configure(Config{Name: "b"})
			n.connect()
			synctest.Wait()
			n.run()
			pass(time.Duration(i) * 400 * time.Millisecond)
			wantReady(t, other, "")
			wantReady(t, n, "")
			if i%2 == 0 {
				n.leave()
			} else {
				n.vanish()
			}
		}
	})
}

// TestMembership_NodeThatHearsNothingIsNotReady: a node whose own hellos no longer come back is not ready.
func TestMembership_NodeThatHearsNothingIsNotReady(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a := c.start(Config{Name: "a"})
		wantReady(t, a, "")
		a.setDeaf(true)
		pass(6 * time.Second)
		wantReady(t, a, "have not come back")
		a.setDeaf(false)
		a.Connected()
		synctest.Wait()
		wantReady(t, a, "")
	})
}

// mute is a broker through which nothing leaves while silent is set.
type mute struct {
	broker.Broker
	silent atomic.Bool
}

func (m *mute) Publish(ctx context.Context, channel string, payload []byte) error {
	if m.silent.Load() {
		return broker.ErrUnavailable
	}
	return m.Broker.Publish(ctx, channel, payload)
}

// TestMembership_OtherSettingsAreNamed: nodes with different settings are not ready and name each other, until the
// others have left.
func TestMembership_OtherSettingsAreNamed(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a := c.start(Config{Name: "a", Settings: "1"})
		b := c.start(Config{Name: "b", Settings: "2"})
		third := c.start(Config{Name: "c", Settings: "1"})
		pass(2 * time.Second)
		wantReady(t, a, "other message classes than here are configured on b")
		wantReady(t, b, "configured on a, c")
		wantReady(t, third, "configured on b")
		b.leave()
		pass(time.Second)
		wantReady(t, a, "")
		wantReady(t, third, "")
	})
}

// TestMembership_HellosCarryTheAnnouncedNumber: every node learns of the number that another one announces, and both
// sides learn that they met after one has lost the other.
func TestMembership_HellosCarryTheAnnouncedNumber(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		heard := make(chan Hello, 100)
		c.start(Config{Name: "a", OnHello: func(h Hello) { heard <- h }})
		link := &mute{Broker: c.hub.Node()}
		b := c.configure(Config{Name: "b", Broker: link, Announce: func() uint64 { return 7 }})
		link.Broker = b.wire
		b.connect()
		synctest.Wait()
		b.run()
		t.Cleanup(b.leave)
		if first := <-heard; first != (Hello{b.Process(), 7, true}) {
			t.Fatalf("heard %+v", first)
		}
		if next := <-heard; next != (Hello{b.Process(), 7, false}) {
			t.Errorf("then heard %+v", next)
		}
		link.silent.Store(true)
		pass(10 * time.Second)
		for len(heard) > 0 {
			<-heard
		}
		link.silent.Store(false)
		b.Connected()
		if back := <-heard; back != (Hello{b.Process(), 7, true}) {
			t.Errorf("after the return heard %+v", back)
		}
	})
}
