package manager

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/shoal/broker"
)

// While a call of the broker is under way, whichever it is, the upload it is about goes on: no lock is held.
func TestInvariant4NoLockIsHeldWhileTheBrokerIsCalled(t *testing.T) {
	for _, call := range []string{"Subscribe", "Unsubscribe", "Kept", "Store", "Publish"} {
		t.Run(call, func(t *testing.T) {
			inCluster(t, 2, Options{}, func(t *testing.T, _ *broker.Memory, nodes []member) {
				n := nodes[0]
				c := n.follower(t, "ann", "cat")
				publish(t, nodes[1].Manager, "cat", 1)
				release := n.link.stop(call)
				defer release()
				for _, work := range map[string]func(){
					"Subscribe":   func() { _ = n.SubscribeUpload(t.Context(), "bob", "dog") },
					"Unsubscribe": func() { n.Disconnect("ann", c) },
					"Kept":        func() { _, _, _ = n.Newest(t.Context(), "cat") },
					"Store":       func() { _, _ = n.Publish(t.Context(), "cat", note(t, 1)) },
					"Publish":     func() { _, _ = n.SendToUser(t.Context(), "ann", note(t, 1)) },
				} {
					go work() // operations blocked in the stopped call time out
				}
				n.link.handler.Interrupted()
				<-time.After(leaveDelay + time.Second)
				if n.link.stopped() == 0 {
					t.Fatal("the call was not made")
				}
				start := time.Now()
				for _, upload := range []string{"cat", "dog"} {
					_, err := n.SendToUploadSubscribers(upload, note(t, 2))
					must(t, err)
					n.UploadSubscriberIDs(upload)
					n.UnsubscribeUpload("bob", upload)
					n.cluster.arrived(queued{Message: broker.Message{Channel: uploadChannel + upload, Payload: note(t, 3).Payload()}})
					n.cluster.Interrupted(uploadChannel + upload)
				}
				n.Disconnect("bob", connect(t, n.Manager, "bob"))
				_ = n.Stats()
				if took := time.Since(start); took > 0 {
					t.Errorf("other work on the uploads took %v", took)
				}
			})
		})
	}
}

// A connection that does not return from Send, which it must not do, stops its upload but not the broker.
func TestCluster_BrokerDoesNotWaitForAConnection(t *testing.T) {
	inCluster(t, 1, Options{}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		n := nodes[0]
		stop, stuck := make(chan struct{}), make(chan struct{}, 1)
		c := &fakeConn{onSend: func(f *Frame) Outcome {
			if f.Offset() == 1 {
				stuck <- struct{}{}
				<-stop
			}
			return Queued
		}}
		must(t, n.Connect("ann", c))
		must(t, n.SubscribeUpload(t.Context(), "ann", "cat"))
		publish(t, n.Manager, "cat", 1)
		<-stuck
		publish(t, n.Manager, "cat", 1000) // the broker hands each of them over before this returns
		must(t, n.Ready())
		close(stop)
		synctest.Wait()
		offsets := c.offsets()
		wantConsecutive(t, offsets, 1, 1001)
	})
}

// TestInvariant1AcrossNodes subscribes repeatedly while the node is about to unsubscribe, unsubscribing, or
// resubscribing: every message that another node publishes after SubscribeUpload returned must arrive.
func TestInvariant1AcrossNodes(t *testing.T) {
	for seed := range uint64(10) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			inCluster(t, 2, Options{}, func(t *testing.T, _ *broker.Memory, nodes []member) {
				n, random := nodes[0], rand.New(rand.NewPCG(seed, 3))
				slow := rand.New(rand.NewPCG(seed, 4))
				n.link.slow(func() (time.Duration, bool) {
					return time.Duration(slow.IntN(4)*slow.IntN(150)) * time.Millisecond, slow.IntN(5) == 0
				})
				for round := range 60 {
					ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
					user := fmt.Sprint("user-", round)
					c := connect(t, n.Manager, user)
					must(t, n.SubscribeUpload(ctx, user, "cat"))
					cancel()
					want := publish(t, nodes[1].Manager, "cat", 1)
					for waited := 0; !slices.Contains(c.offsets(), want.Offset); waited++ {
						if waited == 60 {
							t.Fatalf("in round %d came %v, want %d at last", round, c.offsets(), want.Offset)
						}
						<-time.After(time.Second)
					}
					n.Disconnect(user, c)
					<-time.After(leaveDelay + time.Duration(random.IntN(400)-200)*time.Millisecond)
				}
			})
		})
	}
}

// slow makes each call take as long as often says, on its way there or back, and fail if that says so.
func (f *faulty) slow(often func() (time.Duration, bool)) {
	hook := func(ctx context.Context, _ string) error {
		f.mu.Lock()
		pause, fails := often()
		f.mu.Unlock()
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
		if fails {
			return broker.ErrUnavailable
		}
		return nil
	}
	f.meddle(hook, hook)
}

// late is a broker that ignores the end of Run's context, and of its calls' while deaf is set, until release is closed.
type late struct {
	*broker.MemoryNode
	release chan struct{}
	calls   bool
}

func (l *late) Run(ctx context.Context, h broker.Handler) error {
	err := l.MemoryNode.Run(ctx, h)
	<-l.release
	return err
}

func (l *late) History(ctx context.Context, channel string, since broker.Position) (broker.Snapshot, error) {
	if l.calls {
		<-l.release
	}
	return l.MemoryNode.History(ctx, channel, since)
}

func (l *late) Newest(ctx context.Context, channel string) (broker.Snapshot, error) {
	if l.calls {
		<-l.release
	}
	return l.MemoryNode.Newest(ctx, channel)
}

func (l *late) Store(ctx context.Context, channel string, payload []byte) (broker.Position, error) {
	if l.calls {
		<-l.release
	}
	return l.MemoryNode.Store(ctx, channel, payload)
}

// TestClose_ReturnsWithItsContextWhateverTheBrokerDoes: the error names the parts that have not ended, which end
// with the broker.
func TestClose_ReturnsWithItsContextWhateverTheBrokerDoes(t *testing.T) {
	for name, want := range map[string][]string{
		"Run":       {"Options.Broker: Run has not returned"},
		"all calls": {"Run has not returned", "History or Newest has not returned"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &late{broker.NewMemory(broker.MemoryOptions{}).Node(), make(chan struct{}), name == "all calls"}
				m, err := New(Options{Broker: b, StateRate: 1})
				must(t, err)
				synctest.Wait()
				for range 2 {
					go func() {
						_, _ = m.Publish(t.Context(), "cat", UploadProgress{Status: StatusPending, Stage: StageQueued})
					}()
					go func() { _ = m.SubscribeUpload(t.Context(), "ann", "cat") }()
					synctest.Wait()
				}
				ctx, cancel := context.WithTimeout(t.Context(), 700*time.Millisecond)
				defer cancel()
				begin := time.Now()
				err = m.Close(ctx)
				if took := time.Since(begin); took > 700*time.Millisecond+endGrace {
					t.Errorf("closing took %v", took)
				}
				for _, text := range want {
					if err == nil || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), text) {
						t.Errorf("closing returned %v, want an error with %q", err, text)
					}
				}
				close(b.release) // the bubble verifies that nothing is left
			})
		})
	}
}
