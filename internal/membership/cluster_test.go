package membership

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/shoal/broker"
)

// cluster is some nodes in one synctest bubble, joined by a broker.Memory.
type cluster struct {
	t   *testing.T
	hub *broker.Memory
}

func inCluster(t *testing.T, test func(t *testing.T, c *cluster)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, &cluster{t, broker.NewMemory(broker.MemoryOptions{})}) })
}

// member is one node of a cluster, and the handler of its broker.
type member struct {
	*Membership
	wire *broker.MemoryNode
	logs *bytes.Buffer

	stopRun, stopBroker context.CancelFunc
	ended, cut          chan struct{}

	mu   sync.Mutex
	deaf bool
}

func (n *member) Receive(m broker.Message) {
	n.mu.Lock()
	deaf := n.deaf
	n.mu.Unlock()
	if !deaf {
		n.Membership.Receive(m)
	}
}
func (n *member) Interrupted(...string) {}
func (n *member) Health(error)          {}

func (n *member) setDeaf(deaf bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.deaf = deaf
}

// configure returns a node that does not run yet. By default it answers every question with the kind, its own
// name and the body.
func (c *cluster) configure(cfg Config) *member {
	c.t.Helper()
	n := &member{wire: c.hub.Node(), logs: new(bytes.Buffer), ended: make(chan struct{}), cut: make(chan struct{})}
	n.stopRun, n.stopBroker = func() {}, func() {}
	if cfg.Broker == nil {
		cfg.Broker = n.wire
	}
	if cfg.Answer == nil {
		cfg.Answer = func(kind string, body []byte) ([]byte, error) {
			return fmt.Appendf(nil, "%s %s %s", kind, cfg.Name, body), nil
		}
	}
	cfg.Logger = slog.New(slog.NewTextHandler(n.logs, nil))
	p, err := New(cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	n.Membership = p
	return n
}

func (n *member) connect() {
	ctx, stop := context.WithCancel(context.Background())
	n.stopBroker = stop
	go func() {
		defer close(n.cut)
		_ = n.wire.Run(ctx, n)
	}()
}

func (n *member) run() {
	ctx, stop := context.WithCancel(context.Background())
	n.stopRun = stop
	go func() {
		defer close(n.ended)
		n.Run(ctx, context.WithoutCancel(ctx))
	}()
}

// start returns a node that takes part, and that leaves at the end of the test if it has not before.
func (c *cluster) start(cfg Config) *member {
	c.t.Helper()
	n := c.configure(cfg)
	n.connect()
	synctest.Wait()
	n.run()
	synctest.Wait()
	c.t.Cleanup(n.leave)
	return n
}

// leave ends the node as it should be ended.
func (n *member) leave() {
	n.stopRun()
	<-n.ended
	n.stopBroker()
	<-n.cut
}

// vanish closes the node's connection first, so that no other node receives its bye.
func (n *member) vanish() {
	n.stopBroker()
	<-n.cut
	n.leave()
}

// pass lets time pass, until nothing is left to be done.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func (c *cluster) members(of *member, want ...string) {
	c.t.Helper()
	if got := of.Members(); !slices.Equal(got, want) {
		c.t.Errorf("%s knows %q, want %q", of.Name(), got, want)
	}
}

// ask asks, and wants answers of exactly these nodes, as configure makes them, and exactly these missing.
func (c *cluster) ask(of *member, answers, missing []string) {
	c.t.Helper()
	got, gone, err := of.Ask(context.Background(), "who", []byte("body"))
	if err != nil {
		c.t.Errorf("asking from %s: %v", of.Name(), err)
	}
	if len(got) != len(answers) {
		c.t.Errorf("%s got %d answers, want %d", of.Name(), len(got), len(answers))
	}
	for _, name := range answers {
		if want := "who " + name + " body"; string(got[name].Body) != want {
			c.t.Errorf("the answer of %s is %.100q, want %q", name, got[name].Body, want)
		}
	}
	if !slices.Equal(gone, missing) {
		c.t.Errorf("%s is missing %q, want %q", of.Name(), gone, missing)
	}
}

func TestMembership_NodesJoinAtOnce(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a := c.start(Config{Name: "a"})
		c.members(a, "a")
		b, d := c.start(Config{Name: "b"}), c.start(Config{Name: "d"})
		for _, n := range []*member{a, b, d} {
			c.members(n, "a", "b", "d")
		}
		pass(time.Minute)
		for _, n := range []*member{a, b, d} {
			c.members(n, "a", "b", "d")
			c.ask(n, []string{"a", "b", "d"}, nil)
			if counts := n.Counts(); counts != (Counts{}) {
				t.Errorf("%s dropped %+v", n.Name(), counts)
			}
		}
	})
}

func TestMembership_LeavingNodeIsGoneAtOnce(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a, b := c.start(Config{Name: "a"}), c.start(Config{Name: "b"})
		b.leave()
		synctest.Wait()
		c.members(a, "a")
		c.ask(a, []string{"a"}, nil)
		again := c.start(Config{Name: "b"})
		c.members(a, "a", "b")
		c.members(again, "a", "b")
	})
}

func TestMembership_LostNodeIsMissingThenForgotten(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a, b, d := c.start(Config{Name: "a"}), c.start(Config{Name: "b"}), c.start(Config{Name: "d"})
		b.vanish()
		began := time.Now()
		c.ask(a, []string{"a", "d"}, []string{"b"})
		if waited := time.Since(began); waited != 2*time.Second {
			t.Errorf("the question took %v, want the two seconds of patience", waited)
		}
		pass(1500 * time.Millisecond)
		c.members(d, "a", "b", "d")
		pass(600 * time.Millisecond)
		c.members(a, "a", "d")
		c.members(d, "a", "d")
		c.ask(a, []string{"a", "d"}, nil)
	})
}

func TestAsk_EndsWithContext(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a, b := c.start(Config{Name: "a"}), c.start(Config{Name: "b"})
		b.setDeaf(true)
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		began := time.Now()
		_, missing, err := a.Ask(ctx, "who", nil)
		if err != nil || !slices.Equal(missing, []string{"b"}) || time.Since(began) != 100*time.Millisecond {
			t.Errorf("after %v missing %q, %v; want b after 100ms", time.Since(began), missing, err)
		}
	})
}

func TestAsk_BrokerOutOfReach(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a := c.configure(Config{Name: "a"})
		a.run()
		t.Cleanup(a.leave)
		pass(10 * time.Second)
		answers, _, err := a.Ask(context.Background(), "who", nil)
		if !errors.Is(err, broker.ErrUnavailable) || string(answers["a"].Body) != "who a " {
			t.Errorf("asking: %q, %v; want the own answer and ErrUnavailable", answers, err)
		}
		a.connect()
		b := c.start(Config{Name: "b"})
		pass(time.Second)
		c.members(a, "a", "b")
		c.ask(b, []string{"a", "b"}, nil)
	})
}
