package natsbroker_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/broker/brokertest"
)

// storeMany stores more messages than the stream holds, and returns the position of an early one.
func storeMany(t *testing.T, n *node, channel string) (early broker.Position) {
	t.Helper()
	n.subscribe(t, channel)
	n.history(t, channel)
	for i := range 20 {
		pos, err := n.Store(t.Context(), channel, fmt.Append(nil, i))
		if err != nil {
			t.Fatal(err)
		}
		if i == 2 {
			early = pos
		}
	}
	return early
}

// wantLoss checks that a reader at a position does not take the history for complete.
func wantLoss(t *testing.T, n *node, channel string, early broker.Position) {
	t.Helper()
	h, err := n.History(t.Context(), channel, early)
	if err != nil {
		t.Fatal(err)
	}
	if h.Epoch == early.Epoch && h.Floor <= early.Offset {
		t.Errorf("a reader at %+v gets %d messages above the floor %d of the same epoch", early, len(h.Messages), h.Floor)
	}
}

// TestBroker_RaisedNumberOfMessagesBeginsEpoch: a stream that held fewer messages of a channel has dropped some, which
// does not show once it holds more. All nodes agree on a new epoch then, whether a node or an operator has raised the
// number, and nodes that want as many or fewer leave it.
func TestBroker_RaisedNumberOfMessagesBeginsEpoch(t *testing.T) {
	for name, raise := range map[string]func(*testing.T, jetstream.JetStream){
		"by the node": func(*testing.T, jetstream.JetStream) {},
		"by an operator before": func(t *testing.T, js jetstream.JetStream) {
			change(t, js, func(c *jetstream.StreamConfig) { c.MaxMsgsPerSubject = 65 })
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t)
			opt := quick(s)
			opt.Messages = 4
			old := join(t, opt)
			early := storeMany(t, old, "upload:x")
			wantLoss(t, old, "upload:x", early)
			raise(t, jetStream(t, s))
			opt.Messages = 64
			fresh := join(t, opt)
			wantLoss(t, fresh, "upload:x", early)
			is := fresh.history(t, "upload:x")
			opt.Messages = 16
			join(t, opt)
			for _, n := range []*node{old, fresh} {
				n.Await(t, "the epoch", func() bool { return n.history(t, "upload:x").Epoch == is.Epoch })
			}
			awaitChecks(t, jetStream(t, s))
			if now := fresh.history(t, "upload:x"); now.Epoch != is.Epoch {
				t.Errorf("the epoch is %q, want still %q", now.Epoch, is.Epoch)
			}
			for i := range 32 {
				old.store(t, "upload:x", fmt.Sprint("later-", i))
			}
			if h, err := fresh.History(t.Context(), "upload:x", is.Position); err != nil || len(h.Messages) != 32 ||
				h.Epoch != is.Epoch || h.Floor > is.Offset {
				t.Errorf("a reader at %+v gets %d messages above %d of %q, %v, want 32", is.Position, len(h.Messages), h.Floor,
					h.Epoch, err)
			}
		})
	}
}

// TestBroker_LoweredNumberOfMessagesBeginsEpoch: nodes raise a number again that an operator has lowered.
func TestBroker_LoweredNumberOfMessagesBeginsEpoch(t *testing.T) {
	s := serve(t)
	n, js := join(t, quick(s)), jetStream(t, s)
	early := storeMany(t, n, "upload:x")
	change(t, js, func(c *jetstream.StreamConfig) { c.MaxMsgsPerSubject = 5 })
	brokertest.Eventually(t, "the number of messages is raised again", func() error {
		if streamInfo(t, js).Config.MaxMsgsPerSubject < 65 {
			return errNotYet
		}
		return nil
	})
	n.Await(t, "another epoch", func() bool { return n.history(t, "upload:x").Epoch != early.Epoch })
}

// TestBroker_EpochOfEarlierVersionTellsLimitBeforeItIsRaised: such an epoch goes on, but ends before a node raises the
// number of messages. If that node fails after that, the next one notices.
func TestBroker_EpochOfEarlierVersionTellsLimitBeforeItIsRaised(t *testing.T) {
	as := serveLimited(t)
	js := jetStreamAt(t, as("operator").URL)
	if _, err := js.PublishMsg(t.Context(), &nats.Msg{
		Subject: "epoch.stream", Data: []byte("earlier"), Header: nats.Header{"Nats-Rollup": {"sub"}},
	}); err != nil {
		t.Fatal(err)
	}
	epoch := func() string {
		stream, err := js.Stream(t.Context(), "SHOAL")
		if err != nil {
			t.Fatal(err)
		}
		m, err := stream.GetLastMsgForSubject(t.Context(), "epoch.stream")
		if err != nil {
			t.Fatal(err)
		}
		return string(m.Data)
	}
	n := join(t, as("operator"))
	awaitChecks(t, js)
	n.stop()
	if is := epoch(); is != "earlier" {
		t.Fatalf("the epoch is %q, want still that of the earlier version", is)
	}
	opt := as("limited")
	opt.Messages, opt.CallTimeout = 100, time.Second
	wantError(t, permanent(t, opt), "STREAM.UPDATE")
	if is := epoch(); !strings.HasSuffix(is, "_65") {
		t.Errorf("the epoch is %q, want one that tells the number of messages", is)
	}
}
