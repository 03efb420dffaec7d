package natsbroker_test

import (
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/shoal-go/shoal/broker/brokertest"
)

// foreignEpoch is a message of another program on the subject of the stream's epoch.
const foreignEpoch = `{"of":"another program"}`

// sendForeignEpoch returns the sequence of the message.
func sendForeignEpoch(t *testing.T, s *server.Server) uint64 {
	t.Helper()
	ack, err := jetStream(t, s).Publish(t.Context(), "epoch.stream", []byte(foreignEpoch))
	if err != nil {
		t.Fatal(err)
	}
	return ack.Sequence
}

// TestRefresh_RemovesAForeignEpoch: a message of another program on the subject of the stream's epoch is not refreshed in
// its place, and the epoch stays.
func TestRefresh_RemovesAForeignEpoch(t *testing.T) {
	s := serve(t)
	opt := quick(s)
	opt.TTL = 2 * time.Second
	n := join(t, opt)
	n.subscribe(t, "upload:x")
	before := n.history(t, "upload:x")
	sent, stream := sendForeignEpoch(t, s), streamOf(t, jetStream(t, s))
	brokertest.Eventually(t, "the end of the foreign message", func() error {
		m, err := stream.GetLastMsgForSubject(t.Context(), "epoch.stream")
		switch {
		case err != nil:
			return err
		case m.Sequence == sent:
			return errNotYet
		case string(m.Data) != before.Epoch:
			t.Fatalf("it was replaced by %q, want the epoch %q", m.Data, before.Epoch)
		}
		return nil
	})
	if after := n.history(t, "upload:x"); after.Epoch != before.Epoch {
		t.Errorf("the epoch is %q, was %q", after.Epoch, before.Epoch)
	}
}

// TestBroker_StartsWithAForeignEpoch: a stream that holds a message of another program in place of its epoch gets one.
func TestBroker_StartsWithAForeignEpoch(t *testing.T) {
	s := serve(t)
	join(t, quick(s)).stop()
	if err := streamOf(t, jetStream(t, s)).Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	sendForeignEpoch(t, s)
	n := join(t, quick(s))
	at := n.store(t, "upload:x", "1")
	if k := n.history(t, "upload:x"); k.Epoch == "" || k.Offset != at {
		t.Errorf("the history is %+v, want the message at %d", k, at)
	}
}
