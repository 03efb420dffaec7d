package natsbroker_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/broker/brokertest"
)

// TestBroker_BacklogOfLostStreamIsNotOfTheNewEpoch: messages of a stream that was deleted, which are queued in a node when
// it learns the epoch of the next stream, are not of that epoch, and do not make the node begin another one.
func TestBroker_BacklogOfLostStreamIsNotOfTheNewEpoch(t *testing.T) {
	s := serve(t)
	r, gate := brokertest.NewRecorder(), make(chan struct{})
	r.OnReceive = func(broker.Message) { <-gate }
	n := start(t, quick(s), r)
	n.awaitHealth(t, true)
	n.subscribe(t, "upload:x")
	before := n.history(t, "upload:x")
	conn, js := client(t, s), jetStream(t, s)
	const backlog = 200
	for i := range backlog {
		if err := conn.Publish("upload.x", fmt.Append(nil, "old-", i)); err != nil {
			t.Fatal(err)
		}
	}
	brokertest.Eventually(t, "the messages", func() error {
		if streamInfo(t, js).State.LastSeq < backlog {
			return errNotYet
		}
		return nil
	})
	if err := js.DeleteStream(t.Context(), "SHOAL"); err != nil {
		t.Fatal(err)
	}
	var after broker.Snapshot
	brokertest.Eventually(t, "another epoch", func() (err error) {
		if after, err = n.Newest(t.Context(), "upload:x"); err == nil && after.Epoch == before.Epoch {
			err = errNotYet
		}
		return err
	})
	close(gate)
	brokertest.Eventually(t, "a message of the next stream", func() error {
		_, err := n.Store(t.Context(), "upload:x", []byte("new"))
		return err
	})
	n.Await(t, "the message", func() bool {
		all := n.Payloads("upload:x")
		return len(all) > backlog && all[len(all)-1] == "new"
	})
	awaitChecks(t, js)
	for _, m := range n.Messages("upload:x") {
		if strings.HasPrefix(string(m.Payload), "old-") && m.Epoch == after.Epoch {
			t.Fatalf("%s, of the stream before, is at %+v", m.Payload, m.Position)
		}
	}
	if now := n.history(t, "upload:x"); now.Epoch != after.Epoch {
		t.Errorf("the epoch is %q, want still %q", now.Epoch, after.Epoch)
	}
}
