package manager

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/shoal/broker"
)

// TestReady_SingleUploadThatCannotBeReadFailsAlone: it does not make the node unready, most uploads do.
func TestReady_SingleUploadThatCannotBeReadFailsAlone(t *testing.T) {
	inCluster(t, 2, Options{}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		n := nodes[0]
		for i := range 10 {
			must(t, n.SubscribeUpload(t.Context(), "ann", fmt.Sprint("upload-", i)))
		}
		n.link.meddle(only("Kept", broker.ErrUnavailable), nil)
		n.link.handler.Interrupted("upload:upload-1")
		<-time.After(2 * maxBehind)
		must(t, n.Ready())
		for i := range 10 {
			n.link.handler.Interrupted(fmt.Sprint("upload:upload-", i))
		}
		<-time.After(2 * maxBehind)
		if err := n.Ready(); err == nil || !strings.Contains(err.Error(), "could not be read") {
			t.Errorf("ready is %v", err)
		}
		n.link.meddle(only("Positions", broker.ErrUnavailable), nil)
		<-time.After(2 * maxPause) // the uploads catch up
		n.link.handler.Interrupted()
		<-time.After(2 * maxBehind)
		if err := n.Ready(); err == nil || !strings.Contains(err.Error(), "compared") {
			t.Errorf("ready is %v", err)
		}
		n.link.meddle(nil, nil)
		<-time.After(2 * maxPause)
		must(t, n.Ready())
	})
}

// endingBroker is a broker with a Run of the test.
type endingBroker struct {
	broker.Broker
	run func(ctx context.Context) error
}

func (b endingBroker) Run(ctx context.Context, h broker.Handler) error {
	h.Health(nil)
	return b.run(ctx)
}

// TestBrokerFailed_TellsEachEndButThatOfClose: a broker that ends by itself cuts the node off, with an error or without;
// one that returns the error of its context has not failed.
func TestBrokerFailed_TellsEachEndButThatOfClose(t *testing.T) {
	denied := errors.New("access denied")
	for want, run := range map[error]func(context.Context) error{
		errBrokerEnded: func(context.Context) error { return nil },
		denied:         func(context.Context) error { return denied },
		nil:            func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
	} {
		t.Run(fmt.Sprint(want), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := open(t, Options{Broker: endingBroker{broker.NewMemory(broker.MemoryOptions{}).Node(), run}})
				synctest.Wait()
				if err := m.Ready(); want != nil && !strings.Contains(fmt.Sprint(err), want.Error()) {
					t.Errorf("Ready: %v, want %v", err, want)
				}
				must(t, m.Close(context.Background()))
				select {
				case err := <-m.BrokerFailed():
					if !errors.Is(err, want) {
						t.Errorf("BrokerFailed: %v, want %v", err, want)
					}
				default:
					if want != nil {
						t.Errorf("BrokerFailed: nothing, want %v", want)
					}
				}
			})
		})
	}
}

// TestReady_OnlyUploadThatCannotBeReadFailsAlone: also if the node follows no other.
func TestReady_OnlyUploadThatCannotBeReadFailsAlone(t *testing.T) {
	inCluster(t, 2, Options{}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		n := nodes[0]
		n.follower(t, "ann", "bad")
		n.link.damage("upload:bad")
		n.link.handler.Interrupted()
		<-time.After(2 * maxBehind)
		must(t, n.Ready())
	})
}

// hanging lets calls of a kind hang until their context ends.
func hanging(name string) func(context.Context, string) error {
	return func(ctx context.Context, call string) error {
		if call != name {
			return nil
		}
		<-ctx.Done()
		return broker.ErrUnavailable
	}
}

// TestReady_HangingReads: a node whose reads of the broker hang is not ready, without a break, however often it tries and
// however often it is interrupted, until they are answered; the uploads that are being read count as catching up.
func TestReady_HangingReads(t *testing.T) {
	const uploads = 20
	for _, call := range []string{"Positions", "Kept"} {
		for name, flapping := range map[string]bool{"one interruption": false, "many interruptions": true} {
			t.Run(call+", "+name, func(t *testing.T) {
				inCluster(t, 2, Options{}, func(t *testing.T, _ *broker.Memory, nodes []member) {
					n := nodes[0]
					for i := range uploads {
						n.follower(t, fmt.Sprint("user-", i), fmt.Sprint("upload-", i))
					}
					n.link.losing(func(m broker.Message) bool { return m.Offset > 0 })
					for i := range uploads {
						publish(t, nodes[1].Manager, fmt.Sprint("upload-", i), 1)
					}
					n.link.losing(nil)
					n.link.meddle(hanging(call), nil)
					n.link.handler.Interrupted()
					<-time.After(maxBehind + brokerPatience)
					for i := range 600 {
						if n.Ready() == nil || call == "Kept" && n.Stats().Broker.CatchingUp != uploads {
							t.Fatalf("%d: ready is %v, catching up are %d", i, n.Ready(), n.Stats().Broker.CatchingUp)
						}
						if flapping && i%30 == 0 {
							n.link.handler.Interrupted()
						}
						<-time.After(100 * time.Millisecond)
					}
					n.link.meddle(nil, nil)
					<-time.After(brokerPatience + 2*maxPause)
					must(t, n.Ready())
					if left := n.Stats().Broker.CatchingUp; left != 0 {
						t.Errorf("%d uploads are still catching up", left)
					}
				})
			})
		}
	}
}
