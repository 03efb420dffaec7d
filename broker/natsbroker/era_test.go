package natsbroker_test

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/broker/brokertest"
	"github.com/shoal-go/shoal/broker/natsbroker"
)

// agedServer is a server with messages in files, which can return with an older copy of them.
type agedServer struct {
	*server.Server
	t            *testing.T
	folder, copy string
	port         func(*server.Options)
}

func serveAged(t *testing.T) *agedServer {
	t.Helper()
	a := &agedServer{t: t, folder: t.TempDir()}
	a.Server = serve(t, a.files)
	a.port = onPort(t, a.Server)
	return a
}

func (a *agedServer) files(o *server.Options) { o.StoreDir = a.folder }

// save copies the files, and runs the server again with them.
func (a *agedServer) save() {
	a.t.Helper()
	stop(a.Server)
	a.copy = a.t.TempDir()
	if err := os.CopyFS(a.copy, os.DirFS(a.folder)); err != nil {
		a.t.Fatal(err)
	}
	a.Server = serve(a.t, a.files, a.port)
}

// restore stops the server, which returns with the copy when start is called.
func (a *agedServer) restore() (start func(change ...func(*server.Options))) {
	a.t.Helper()
	stop(a.Server)
	err := os.RemoveAll(a.folder)
	if err = errors.Join(err, os.CopyFS(a.folder, os.DirFS(a.copy))); err != nil {
		a.t.Fatal(err)
	}
	return func(change ...func(*server.Options)) {
		a.t.Helper()
		a.Server = serve(a.t, append(change, a.files, a.port)...)
	}
}

// inFiles are quick options for a server with files.
func inFiles(s *server.Server) natsbroker.Options {
	opt := quick(s)
	opt.File = true
	return opt
}

// TestBroker_StreamWithoutItsNewestMessagesBeginsEpoch: a stream that returns without its newest messages uses their
// sequences again. All nodes that have seen more of it agree on one new epoch, whether they store messages or receive
// them, and every message since is of that epoch.
func TestBroker_StreamWithoutItsNewestMessagesBeginsEpoch(t *testing.T) {
	s := serveAged(t)
	storing, following, idle := join(t, inFiles(s.Server)), join(t, inFiles(s.Server)), join(t, inFiles(s.Server))
	following.subscribe(t, "upload:x", "upload:silent")
	storing.store(t, "upload:x", "kept")
	silent := following.history(t, "upload:silent")
	storing.forget(t, "upload:forgotten")
	before, forgotten := following.history(t, "upload:x"), idle.history(t, "upload:forgotten")
	nodes := []*node{storing, following, idle}
	s.save()
	awaitAllHealthy(t, nodes)
	payloads := []string{"kept"}
	for i := range 10 {
		payloads = append(payloads, fmt.Sprint("lost-", i))
		storing.store(t, "upload:x", payloads[1+i])
	}
	following.awaitPayloads(t, "upload:x", payloads...)
	interruptions := len(following.Interruptions())

	s.restore()()
	awaitAllHealthy(t, nodes)
	following.Await(t, "an interruption", func() bool { return len(following.Interruptions()) > interruptions })
	after := following.history(t, "upload:x")
	if after.Epoch == before.Epoch || len(after.Messages) != 1 {
		t.Fatalf("the history is %+v, want one message of an epoch other than %q", after, before.Epoch)
	}
	for channel, was := range map[string]string{"upload:forgotten": forgotten.Epoch, "upload:silent": silent.Epoch} {
		if is := storing.history(t, channel); is.Epoch == was || is.Offset != 0 {
			t.Errorf("%s is at %+v, want offset 0 of an epoch other than %q", channel, is.Position, was)
		}
	}
	for i := range 5 {
		payloads = append(payloads, fmt.Sprint("new-", i))
		pos, err := nodes[i%3].Store(t.Context(), "upload:x", []byte(payloads[11+i]))
		if err != nil || pos.Epoch != after.Epoch {
			t.Errorf("Store returned %+v, %v, want epoch %q", pos, err, after.Epoch)
		}
	}
	for _, m := range following.awaitPayloads(t, "upload:x", payloads...)[11:] {
		if m.Epoch != after.Epoch {
			t.Errorf("a new message has epoch %q, want %q", m.Epoch, after.Epoch)
		}
	}
	for _, n := range nodes {
		if is := n.history(t, "upload:x"); is.Epoch != after.Epoch || len(is.Messages) != 6 {
			t.Errorf("one node reads %d messages of epoch %q, want 6 of %q", len(is.Messages), is.Epoch, after.Epoch)
		}
	}
}

func awaitAllHealthy(t *testing.T, nodes []*node) {
	t.Helper()
	for _, n := range nodes {
		n.awaitHealth(t, false)
	}
	for _, n := range nodes {
		n.awaitHealth(t, true)
	}
}

// TestBroker_StreamThatHasCaughtUpWithItsLossBeginsEpoch: the loss is noticed, too, if others have stored as many
// messages as were lost before the node is back.
func TestBroker_StreamThatHasCaughtUpWithItsLossBeginsEpoch(t *testing.T) {
	s := serveAged(t)
	n := join(t, inFiles(s.Server))
	n.subscribe(t, "upload:x")
	n.store(t, "upload:x", "kept")
	before := n.history(t, "upload:x")
	s.save()
	awaitAllHealthy(t, []*node{n})
	n.store(t, "upload:x", "lost")
	n.awaitPayloads(t, "upload:x", "kept", "lost")
	start := s.restore()
	elsewhere := s.port
	s.port = func(*server.Options) {}
	start() // where the node does not find it
	conn := client(t, s.Server)
	for i := range 30 {
		if err := conn.Publish("upload.x", []byte(fmt.Sprint("foreign-", i))); err != nil {
			t.Fatal(err)
		}
	}
	brokertest.Eventually(t, "the messages", func() error {
		if streamState(t, conn).LastSeq < 30 {
			return errNotYet
		}
		return nil
	})
	stop(s.Server)
	s.Server = serve(t, s.files, elsewhere)
	n.awaitHealth(t, true)
	n.Await(t, "an interruption", func() bool { return len(n.Interruptions()) > 1 })
	if after := n.history(t, "upload:x"); after.Epoch == before.Epoch {
		t.Errorf("the epoch is still %q", after.Epoch)
	}
}

// TestBroker_RestartWithAllMessagesKeepsEpoch: a server that returns with everything goes on in the same epoch.
func TestBroker_RestartWithAllMessagesKeepsEpoch(t *testing.T) {
	s := serveAged(t)
	n := join(t, inFiles(s.Server))
	n.subscribe(t, "upload:x")
	n.store(t, "upload:x", "1")
	before := n.history(t, "upload:x")
	for range 3 {
		s.save()
		awaitAllHealthy(t, []*node{n})
	}
	after := n.history(t, "upload:x")
	if after.Position != before.Position || !slices.EqualFunc(after.Messages, before.Messages, sameStored) {
		t.Errorf("the history is %+v, want %+v", after, before)
	}
}

func sameStored(a, b broker.Stored) bool {
	return a.Offset == b.Offset && string(a.Payload) == string(b.Payload)
}
