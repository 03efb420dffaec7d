package redisbroker_test

import (
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/broker/redisbroker/internal/redistest"
)

// attachReplica asks a server for its data as a replica does, and returns when the server treats it as one. The
// returned function ends that.
func attachReplica(t *testing.T, server *redistest.Server) (leave func()) {
	t.Helper()
	before := infoField(server.Do("INFO", "replication"), "master_replid")
	conn, err := net.Dial("tcp", server.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if _, err := conn.Write([]byte("SYNC\r\n")); err != nil {
		t.Fatal(err)
	}
	redistest.Eventually(t, "the server has a replica and another replication id", func() bool {
		info := server.Do("INFO", "replication")
		return infoField(info, "connected_slaves") == "1" && infoField(info, "master_replid") != before
	})
	return func() { _ = conn.Close() }
}

// TestTerm_ReplicaThatAttachesOrLeavesKeepsEpochs: a server that never was a replica loses nothing when its first
// replica attaches, or its last one has left for long, although its replication id changes.
func TestTerm_ReplicaThatAttachesOrLeavesKeepsEpochs(t *testing.T) {
	server := redistest.Start(t, "--repl-backlog-ttl", "1")
	opt := options(server)
	opt.ProbeInterval = time.Minute // no probe shall renew a node in between
	a := join(t, opt)
	subscribe(t, a, "upload:x")
	first := store(t, a, "upload:x", "before")
	leave := attachReplica(t, server)
	b := join(t, opt)
	attached := infoField(server.Do("INFO", "replication"), "master_replid")
	for i, n := range []*node{a, b, a, b} {
		if at := store(t, n, "upload:x", "attached"); at.Epoch != first.Epoch || at.Offset != uint64(i)+2 {
			t.Errorf("with a replica, message %d is at %v, want it to continue %v", i, at, first)
		}
	}
	leave()
	redistest.Eventually(t, "the replication id has changed", func() bool {
		return infoField(server.Do("INFO", "replication"), "master_replid") != attached
	})
	c := join(t, opt)
	for i, n := range []*node{c, a, c} {
		if at := store(t, n, "upload:x", "left"); at.Epoch != first.Epoch || at.Offset != uint64(i)+6 {
			t.Errorf("without a replica, message %d is at %v, want it to continue %v", i, at, first)
		}
	}
}

// promote makes a server the replica of another one, until it has the data, and a master again.
func promote(t *testing.T, server, of *redistest.Server) {
	t.Helper()
	server.Do("REPLICAOF", "127.0.0.1", of.Port())
	redistest.Eventually(t, "the replica follows", func() bool {
		return strings.Contains(server.Do("INFO", "replication"), "master_link_status:up")
	})
	server.Do("REPLICAOF", "NO", "ONE")
}

// TestTerm_OldNodesAndNewOnesAgree: when a term begins that a node has not noticed yet, it neither returns a channel to
// the old term nor replaces an epoch of the new one, however they take turns.
func TestTerm_OldNodesAndNewOnesAgree(t *testing.T) {
	for name, begin := range map[string]func(*testing.T, *redistest.Server){
		"promoted": func(t *testing.T, s *redistest.Server) { promote(t, s, redistest.Start(t)) },
		"promoted, and long without a replica": func(t *testing.T, s *redistest.Server) {
			promote(t, s, redistest.Start(t))
			s.Do("CONFIG", "SET", "repl-backlog-ttl", "1")
			redistest.Eventually(t, "the server forgets its promotion", func() bool {
				return strings.Trim(infoField(s.Do("INFO", "replication"), "master_replid2"), "0") == ""
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			server := redistest.Start(t)
			opt := options(server)
			opt.ProbeInterval = time.Minute
			old := join(t, opt)
			before := store(t, old, "upload:other", "before")
			begin(t, server)
			renewed := join(t, opt)
			var epochs []string
			for _, n := range []*node{renewed, old, renewed, old} {
				epochs = append(epochs, store(t, n, "upload:x", "after").Epoch)
				if k := history(t, n, "upload:x"); k.Epoch != epochs[0] {
					t.Errorf("a read finds epoch %q, want %q", k.Epoch, epochs[0])
				}
			}
			if len(slices.Compact(epochs)) != 1 || epochs[0] == before.Epoch {
				t.Errorf("the messages are of the epochs %q, want one, other than %q", epochs, before.Epoch)
			}
		})
	}
}

// TestTerm_LostMessagesBeginAnEpoch: a server whose data were replaced by older ones uses no position again, although
// its process is the same and does not show any more that it was a replica.
func TestTerm_LostMessagesBeginAnEpoch(t *testing.T) {
	for name, hide := range map[string]func(*redistest.Server){
		"forgotten":        func(*redistest.Server) {},
		"statistics reset": func(s *redistest.Server) { s.Do("CONFIG", "RESETSTAT") },
	} {
		t.Run(name, func(t *testing.T) { testLostMessages(t, hide) })
	}
}

func testLostMessages(t *testing.T, hide func(*redistest.Server)) {
	t.Helper()
	server, replica := redistest.Start(t), redistest.Start(t)
	opt := options(server)
	n := join(t, opt)
	subscribe(t, n, "upload:x")
	store(t, n, "upload:x", "one")
	promote(t, replica, server)
	lost := store(t, n, "upload:x", "lost")
	server.Do("CONFIG", "SET", "repl-backlog-ttl", "1")
	interruptions := len(n.Interruptions())
	promote(t, server, replica)
	redistest.Eventually(t, "the server forgets its promotion", func() bool {
		return strings.Trim(infoField(server.Do("INFO", "replication"), "master_replid2"), "0") == ""
	})
	hide(server)
	n.Await(t, "an interruption", func() bool {
		return n.Healthy() && len(n.Interruptions()) > interruptions
	})
	after := store(t, n, "upload:x", "two")
	if after.Epoch == lost.Epoch || after.Offset != 2 {
		t.Errorf("after the loss of %v a message is at %v, want offset 2 of another epoch", lost, after)
	}
	if k, err := n.History(t.Context(), "upload:x", lost); err != nil || describe(k) != "2 above 0: 1=one 2=two" {
		t.Errorf("a reader at %v gets %s, %v, want all", lost, describe(k), err)
	}
	if k := history(t, n, "upload:x"); k.Position != (broker.Position{Epoch: after.Epoch, Offset: 2}) {
		t.Errorf("the history is at %v, want %v", k.Position, after)
	}
}
