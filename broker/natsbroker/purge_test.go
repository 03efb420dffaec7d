package natsbroker_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/broker/brokertest"
)

// joinFollowing runs nodes that follow a channel and refresh its record often.
func joinFollowing(t *testing.T, s *server.Server, channel string) []*node {
	t.Helper()
	opt := quick(s)
	opt.TTL = 2 * time.Second
	nodes := []*node{join(t, opt), join(t, opt)}
	for _, n := range nodes {
		n.subscribe(t, channel)
		n.history(t, channel)
	}
	return nodes
}

func purge(t *testing.T, s *server.Server) {
	t.Helper()
	stream, err := jetStream(t, s).Stream(t.Context(), "SHOAL")
	if err == nil {
		err = stream.Purge(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
}

func awaitInterruption(t *testing.T, n *node, channel string) {
	t.Helper()
	n.Await(t, "an interruption of the channel", func() bool {
		return slices.ContainsFunc(n.Interruptions(), func(channels []string) bool {
			return slices.Equal(channels, []string{channel})
		})
	})
}

// wantAgreement stores a message: its position at the writer, at those who receive it, and in the history is of the same
// epoch, other than the one before.
func wantAgreement(t *testing.T, writer *node, nodes []*node, channel, before string) {
	t.Helper()
	var stored broker.Position
	var payload string
	attempts := 0
	brokertest.Eventually(t, "the writer knows the new epoch", func() (err error) {
		attempts++
		payload = fmt.Sprint("after, ", attempts)
		if stored, err = writer.Store(t.Context(), channel, []byte(payload)); err == nil && stored.Epoch == before {
			err = errNotYet
		}
		return err
	})
	for _, n := range nodes {
		var got broker.Message
		n.Await(t, "the message", func() bool {
			all := n.Messages(channel)
			i := slices.IndexFunc(all, func(m broker.Message) bool { return string(m.Payload) == payload })
			if i >= 0 {
				got = all[i]
			}
			return i >= 0
		})
		if newest := n.history(t, channel).Position; got.Position != stored || newest != stored {
			t.Errorf("the message is at %+v, the channel at %+v, want both at %+v", got.Position, newest, stored)
		}
	}
}

// TestBroker_PurgeIsReportedToSilentChannels: a stream that an operator has purged holds no record of a channel without
// messages. When a node writes another one, the nodes that follow it are interrupted, and all agree on the epoch.
func TestBroker_PurgeIsReportedToSilentChannels(t *testing.T) {
	s := serve(t)
	nodes := joinFollowing(t, s, "upload:x")
	writer := join(t, quick(s))
	writer.store(t, "upload:x", "before")
	before := nodes[0].history(t, "upload:x")
	purge(t, s)
	for _, n := range nodes {
		awaitInterruption(t, n, "upload:x")
	}
	wantAgreement(t, writer, nodes, "upload:x", before.Epoch)
}

// TestBroker_PurgeIsReportedAfterForget: the epoch of a channel that was forgotten is lost with its record, also if a
// message is stored before a node writes another one.
func TestBroker_PurgeIsReportedAfterForget(t *testing.T) {
	s := serve(t)
	nodes := joinFollowing(t, s, "upload:x")
	writer := join(t, quick(s))
	writer.forget(t, "upload:x")
	writer.store(t, "upload:x", "before")
	for _, n := range nodes {
		n.awaitPayloads(t, "upload:x", "", "before")
	}
	before := nodes[0].history(t, "upload:x")
	purge(t, s)
	writer.store(t, "upload:x", "unnoticed")
	for _, n := range nodes {
		awaitInterruption(t, n, "upload:x")
	}
	wantAgreement(t, writer, nodes, "upload:x", before.Epoch)
}

// TestBroker_RefreshInterruptsNobody: neither the first record of a silent channel in a stream that has dropped messages
// nor its refreshes interrupt the nodes that follow it.
func TestBroker_RefreshInterruptsNobody(t *testing.T) {
	s := serve(t)
	opt := quick(s)
	opt.TTL = 2 * time.Second
	awaitAged(t, join(t, opt))
	nodes := joinFollowing(t, s, "upload:x")
	stream, err := jetStream(t, s).Stream(t.Context(), "SHOAL")
	if err != nil {
		t.Fatal(err)
	}
	const records = 4
	seen := make(map[uint64]bool)
	brokertest.Eventually(t, "refreshes of the record", func() error {
		last, err := stream.GetLastMsgForSubject(t.Context(), "epoch.upload.x")
		if err != nil {
			return err
		}
		if seen[last.Sequence] = true; len(seen) < records {
			return errNotYet
		}
		return nil
	})
	for _, n := range nodes {
		if all := n.Interruptions(); len(all) > 0 {
			t.Errorf("refreshes interrupted %q", all)
		}
	}
}
