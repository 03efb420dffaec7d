package natsbroker_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/broker/brokertest"
)

// awaitAged returns when the stream's first messages have expired.
func awaitAged(t *testing.T, n *node) {
	t.Helper()
	n.store(t, "upload:other", "1")
	brokertest.Eventually(t, "the expiry of a message", func() error {
		k, err := n.History(t.Context(), "upload:other", broker.Position{})
		if err == nil && len(k.Messages) > 0 {
			err = errNotYet
		}
		return err
	})
}

// TestBroker_UnknownChannelHasNoOffset: in a stream that has dropped messages, a channel that stores nothing is at
// offset 0, in an epoch that does not continue the stream's, and reading it writes nothing.
func TestBroker_UnknownChannelHasNoOffset(t *testing.T) {
	opt := quick(serve(t))
	opt.TTL = 400 * time.Millisecond
	n := join(t, opt)
	awaitAged(t, n)
	n.store(t, "upload:known", "1")
	known := n.history(t, "upload:known")
	newest, err := n.Newest(t.Context(), "upload:unknown")
	if err != nil {
		t.Fatal(err)
	}
	if newest.Offset != 0 || newest.Epoch == "" || newest.Epoch == known.Epoch {
		t.Errorf("the unknown channel is at %+v, want offset 0 of an epoch other than %q", newest.Position, known.Epoch)
	}
}

// TestBroker_FollowersOfSilentChannelAgree: nodes that subscribe at once to a channel without messages agree on its
// epoch, which Store returns then, even on a node that has stored there long before.
func TestBroker_FollowersOfSilentChannelAgree(t *testing.T) {
	opt := quick(serve(t))
	opt.TTL = 400 * time.Millisecond
	nodes := []*node{join(t, opt), join(t, opt), join(t, opt)}
	nodes[0].store(t, "upload:x", "long ago")
	awaitAged(t, nodes[0])
	awaitAged(t, nodes[0])
	positions := make([]broker.Position, len(nodes))
	var running sync.WaitGroup
	for i, n := range nodes {
		running.Go(func() {
			err := n.Subscribe(t.Context(), "upload:x")
			newest, failed := n.Newest(t.Context(), "upload:x")
			if err = errors.Join(err, failed); err != nil {
				t.Error(err)
			}
			positions[i] = newest.Position
		})
	}
	running.Wait()
	for _, is := range positions {
		if is != positions[0] || is.Offset != 0 {
			t.Fatalf("the nodes are at %+v, want one position without an offset", positions)
		}
	}
	brokertest.Eventually(t, "Store in the channel's epoch", func() error {
		pos, err := nodes[0].Store(t.Context(), "upload:x", []byte("1"))
		if err == nil && pos.Epoch != positions[0].Epoch {
			err = errNotYet
		}
		return err
	})
	for _, n := range nodes {
		n.Await(t, "the message", func() bool { return len(n.Messages("upload:x")) > 0 })
		if is := n.Messages("upload:x")[0]; is.Epoch != positions[0].Epoch && is.Epoch != "" || is.Prev != 0 {
			t.Errorf("the first message is %+v, want epoch %q and none before it", is, positions[0].Epoch)
		}
	}
}

// TestBroker_PositionOutlastsOldMessage: a node that subscribes shortly before a channel's last message expires keeps
// its position.
func TestBroker_PositionOutlastsOldMessage(t *testing.T) {
	opt := quick(serve(t))
	opt.TTL = 2 * time.Second
	n := join(t, opt)
	var channel string
	var before broker.Snapshot
	for i := 0; len(before.Messages) == 0; i++ { // again if this test is delayed until the message has expired
		channel = fmt.Sprint("upload:", i)
		n.store(t, channel, "1")
		<-time.After(opt.TTL * 7 / 8) // the first refresh is later than the end of the TTL
		n.subscribe(t, channel)
		before = n.history(t, channel)
	}
	awaitAged(t, n)
	if after := n.history(t, channel); after.Position != before.Position || len(after.Messages) > 0 {
		t.Errorf("the history is %+v, want nothing at %+v", after, before.Position)
	}
}
