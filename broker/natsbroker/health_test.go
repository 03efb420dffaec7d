package natsbroker_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
)

// TestBroker_FullStorageIsHealthyOnlyWithRoom: a node whose server had no room is healthy again only after the server has
// accepted ten probes in a row.
func TestBroker_FullStorageIsHealthyOnlyWithRoom(t *testing.T) {
	s := serve(t, func(o *server.Options) { o.JetStreamMaxMemory = 1 << 20 })
	opt := quick(s)
	opt.ProbeInterval = 50 * time.Millisecond
	n := join(t, opt)
	payload := []byte(strings.Repeat("x", 1000))
	var err error
	for i := 0; err == nil && i < 2000; i++ {
		_, err = n.Store(t.Context(), fmt.Sprint("upload:", i), payload)
	}
	n.awaitHealth(t, false)
	conn := client(t, s)
	stream := streamOf(t, jetStreamOn(t, conn))
	full := streamState(t, conn).LastSeq // only a message that the server accepts has a sequence
	if err := stream.Purge(t.Context(), jetstream.WithPurgeSubject("upload.>")); err != nil {
		t.Fatal(err)
	}
	n.awaitHealth(t, true)
	if accepted := streamState(t, conn).LastSeq - full; accepted < 10 {
		t.Errorf("the node was healthy after %d accepted probes, want 10 at least", accepted)
	}
	n.store(t, "upload:x", "1")
}
