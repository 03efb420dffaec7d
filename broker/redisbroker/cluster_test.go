package redisbroker_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/broker/redisbroker"
	"github.com/shoal-go/shoal/broker/redisbroker/internal/redistest"
)

// clusterOptions are those for a test with a cluster.
func clusterOptions(servers []*redistest.Server) redisbroker.Options {
	return redisbroker.Options{
		URL:           fmt.Sprintf("redis+cluster://%s,%s", servers[0].Addr, servers[1].Addr),
		ProbeInterval: 200 * time.Millisecond,
		Timeout:       2 * time.Second,
		Logger:        slog.New(slog.DiscardHandler),
	}
}

// channelsOf returns the names of a number of channels, spread over the slots.
func channelsOf(count int) []string {
	channels := make([]string, count)
	for i := range channels {
		channels[i] = fmt.Sprintf("upload:%d", i)
	}
	return channels
}

// exchange stores and publishes a message on each channel as soon as that works, through other, and returns
// when a has received them. The interruption must be reported.
func exchange(t *testing.T, a, other *node, channels []string, word string) {
	t.Helper()
	for _, channel := range channels {
		payload := word + " on " + channel
		redistest.Eventually(t, "a message can be stored on "+channel, func() bool {
			_, err := other.Store(t.Context(), channel, []byte(payload))
			if err != nil && !errors.Is(err, broker.ErrUnavailable) {
				t.Fatalf("Store: %v", err)
			}
			return err == nil
		})
	}
	for _, channel := range channels {
		redistest.Eventually(t, "the message on "+channel+" has come", func() bool {
			return slices.ContainsFunc(a.Messages(channel), func(m broker.Message) bool {
				return string(m.Payload) == word+" on "+channel
			})
		})
	}
}

func TestCluster_ForeignMessageArrivesOnce(t *testing.T) {
	servers := redistest.Cluster(t, 3, 0)
	n := join(t, clusterOptions(servers))
	channels := channelsOf(20)
	subscribe(t, n, channels...)
	for _, channel := range channels {
		for i, server := range servers {
			server.Do("PUBLISH", channel, fmt.Sprint(i))
		}
		store(t, n, channel, "ours")
	}
	for _, channel := range channels {
		redistest.Eventually(t, "all messages have come", func() bool { return len(n.Messages(channel)) >= 4 })
	}
	for _, channel := range channels {
		store(t, n, channel, "end")
		redistest.Eventually(t, "the end has come", func() bool { return n.last(channel) == "end" })
		stored := 0
		for _, m := range n.Messages(channel) {
			if m.Offset > 0 {
				stored++
			}
		}
		if got := n.Messages(channel); len(got) != 5 || stored != 2 {
			t.Errorf("on %s came %d messages, %d of them stored, want 5 and 2", channel, len(got), stored)
		}
	}
}

// TestBroker_FullMemoryOfAnyMasterShowsInHealth: each master of a cluster has its own memory.
func TestBroker_FullMemoryOfAnyMasterShowsInHealth(t *testing.T) {
	servers := redistest.Cluster(t, 3, 0)
	n := join(t, clusterOptions(servers))
	for _, server := range servers {
		server.Do("CONFIG", "SET", "maxmemory", "1")
		redistest.Eventually(t, "Health names the full memory of "+server.Addr, func() bool {
			err := n.Fault()
			return err != nil && strings.Contains(err.Error(), "no memory left") && strings.Contains(err.Error(), server.Addr)
		})
		server.Do("CONFIG", "SET", "maxmemory", "0")
		redistest.Eventually(t, "the node is healthy again", n.Healthy)
	}
}

func TestCluster_Failover(t *testing.T) {
	servers := redistest.Cluster(t, 3, 1)
	a, other := join(t, clusterOptions(servers)), join(t, clusterOptions(servers))
	channels := channelsOf(30)
	subscribe(t, a, channels...)
	exchange(t, a, other, channels, "before")
	servers[2].Kill()
	redistest.Eventually(t, "Health says that a server is gone", func() bool { return !a.Healthy() })
	redistest.Eventually(t, "the nodes have found its replica", func() bool { return a.Healthy() && other.Healthy() })
	exchange(t, a, other, channels, "after")
	if len(a.Interruptions()) == 0 {
		t.Errorf("nobody said that messages may be lost")
	}
	for _, interruption := range a.Interruptions() {
		if len(interruption) == 0 || len(interruption) >= len(channels) {
			t.Errorf("messages may be lost on %d channels, want only those of one server", len(interruption))
		}
	}
}

// While slots move from one server to another with their keys, nothing is lost that is not announced, and nothing
// comes twice.
func TestCluster_MovedSlots(t *testing.T) {
	servers := redistest.Cluster(t, 3, 0)
	a, other := join(t, clusterOptions(servers)), join(t, clusterOptions(servers))
	channels := channelsOf(6)
	subscribe(t, a, channels...)
	exchange(t, a, other, channels, "before")
	stop := make(chan struct{})
	var talking sync.WaitGroup
	talking.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			_, err := other.Store(t.Context(), channels[i%len(channels)], []byte(fmt.Sprint(i)))
			if err != nil && !errors.Is(err, broker.ErrUnavailable) {
				t.Errorf("Store: %v", err)
			}
		}
	})
	for _, channel := range channels {
		move(t, servers, channel)
	}
	close(stop)
	talking.Wait()
	awaitSubscribed(t, servers, channels)
	exchange(t, a, other, channels, "after")
	for _, channel := range channels {
		checkOnce(t, a, channel)
		foreign := len(a.Messages(channel))
		servers[0].Do("PUBLISH", channel, "foreign")
		store(t, other, channel, "end")
		redistest.Eventually(t, "the end has come", func() bool { return len(a.Messages(channel)) >= foreign+2 })
	}
	for _, channel := range channels {
		count := 0
		for _, m := range a.Messages(channel) {
			if string(m.Payload) == "foreign" {
				count++
			}
		}
		if count != 1 {
			t.Errorf("a foreign message came %d times on %s, want once", count, channel)
		}
	}
}

// awaitSubscribed returns when the servers that have the channels have a subscriber to each.
func awaitSubscribed(t *testing.T, servers []*redistest.Server, channels []string) {
	t.Helper()
	for _, channel := range channels {
		redistest.Eventually(t, channel+" is subscribed to at the server that has it", func() bool {
			return slices.ContainsFunc(servers, func(s *redistest.Server) bool {
				_, err := s.Try("EXISTS", channel)
				return err == nil && strings.Contains(s.Do("PUBSUB", "SHARDNUMSUB", channel), " 1")
			})
		})
	}
}

// checkOnce complains of a stored message that came twice, or after a later one of its epoch.
func checkOnce(t *testing.T, n *node, channel string) {
	t.Helper()
	last := make(map[string]uint64)
	for _, m := range n.Messages(channel) {
		if m.Payload == nil || m.Offset == 0 {
			continue
		}
		if m.Offset <= last[m.Epoch] {
			t.Errorf("on %s offset %d came after %d", channel, m.Offset, last[m.Epoch])
		}
		last[m.Epoch] = m.Offset
	}
}

// move moves the slot of a channel to the next server.
func move(t *testing.T, servers []*redistest.Server, channel string) {
	t.Helper()
	slot := servers[0].Do("CLUSTER", "KEYSLOT", channel)
	from := slices.IndexFunc(servers, func(s *redistest.Server) bool {
		_, err := s.Try("EXISTS", channel) // answers MOVED unless the slot is the server's
		return err == nil
	})
	source, target := servers[from], servers[(from+1)%len(servers)]
	sourceID, targetID := source.Do("CLUSTER", "MYID"), target.Do("CLUSTER", "MYID")
	target.Do("CLUSTER", "SETSLOT", slot, "IMPORTING", sourceID)
	source.Do("CLUSTER", "SETSLOT", slot, "MIGRATING", targetID)
	for {
		keys := strings.Fields(strings.Trim(source.Do("CLUSTER", "GETKEYSINSLOT", slot, "10"), "[]"))
		if len(keys) == 0 {
			break
		}
		for _, key := range keys {
			source.Do("MIGRATE", "127.0.0.1", target.Port(), key, "0", "5000")
		}
	}
	for _, s := range []*redistest.Server{target, source} {
		s.Do("CLUSTER", "SETSLOT", slot, "NODE", targetID)
	}
}

func TestSentinel_Failover(t *testing.T) {
	group := redistest.Sentinel(t)
	opt := redisbroker.Options{
		URL:           fmt.Sprintf("redis+sentinel://%s,%s/main", group.Sentinels[0].Addr, group.Sentinels[1].Addr),
		ProbeInterval: 200 * time.Millisecond, Timeout: 2 * time.Second,
		Logger: slog.New(slog.DiscardHandler),
	}
	a, other := join(t, opt), join(t, opt)
	channels := channelsOf(5)
	subscribe(t, a, channels...)
	exchange(t, a, other, channels, "before")
	before := history(t, a, channels[0])
	group.Servers[0].Kill()
	redistest.Eventually(t, "Health says that the master is gone", func() bool { return !a.Healthy() })
	redistest.Eventually(t, "the nodes have found the new master", func() bool { return a.Healthy() && other.Healthy() })
	exchange(t, a, other, channels, "after")
	if after := history(t, a, channels[0]); after.Epoch == before.Epoch {
		t.Errorf("the new master goes on in epoch %q", before.Epoch)
	}
	if len(a.Interruptions()) == 0 {
		t.Errorf("nobody said that messages may be lost")
	}
}

// TestSentinel_FrozenOneIsNotAskedAgain: a sentinel that accepts connections and says nothing delays one discovery, and
// not each that follows, which would hold up the health as well.
func TestSentinel_FrozenOneIsNotAskedAgain(t *testing.T) {
	group := redistest.Sentinel(t)
	frozen, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var asked atomic.Int64
	var accepting sync.WaitGroup
	accepting.Go(func() {
		for {
			conn, err := frozen.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			asked.Add(1)
		}
	})
	t.Cleanup(func() {
		_ = frozen.Close()
		accepting.Wait()
	})
	n := join(t, redisbroker.Options{
		URL:           fmt.Sprintf("redis+sentinel://%s,%s/main", frozen.Addr(), group.Sentinels[0].Addr),
		ProbeInterval: 200 * time.Millisecond, Timeout: time.Second,
	})
	other := group.Sentinels[0].Client(t) // of one connection, which does not count
	discoveries := func() int {
		info, err := other.Do(t.Context(), other.B().Info().Section("stats").Build()).ToString()
		count, notNumber := strconv.Atoi(infoField(info, "total_connections_received"))
		if err := errors.Join(err, notNumber); err != nil {
			t.Fatal(err)
		}
		return count
	}
	before := discoveries()
	group.Servers[0].Kill()
	group.Servers[1].Kill()
	redistest.Eventually(t, "ten discoveries", func() bool { return discoveries() >= before+10 })
	if count := asked.Load(); count > 3 { // more than once only if the other sentinel was late
		t.Errorf("the frozen sentinel was asked %d times, want once", count)
	}
	n.stop()
}

// TestPermissions_OfEachServerOfACluster: each server of a cluster has users of its own. With the rule on all of them
// everything works; where a part is missing on one, the start fails with an error that names both.
func TestPermissions_OfEachServerOfACluster(t *testing.T) {
	const ofClusters = "+ssubscribe +sunsubscribe +spublish +cluster|slots"
	page, err := os.ReadFile("../../docs/scaling.md")
	if err != nil || !strings.Contains(string(page), "`"+ofClusters+"`") {
		t.Errorf("docs/scaling.md does not contain %s, %v", ofClusters, err)
	}
	servers := redistest.Cluster(t, 3, 0)
	all := strings.Fields(redisbroker.Permissions("") + " " + ofClusters)
	with := func(missing string, on int) redisbroker.Options {
		for i, server := range servers {
			server.Do(append([]string{"ACL", "SETUSER", "node", "reset", "on", ">secret"}, slices.DeleteFunc(slices.Clone(all),
				func(part string) bool { return i == on && part == missing })...)...)
		}
		opt := clusterOptions(servers)
		opt.URL = strings.Replace(opt.URL, "//", "//node:secret@", 1)
		return opt
	}
	a, b := join(t, with("", 0)), join(t, with("", 0))
	channels := channelsOf(6)
	subscribe(t, a, channels...)
	exchange(t, a, b, channels, "permitted")
	if err := errors.Join(b.Forget(t.Context(), channels[0]), a.Unsubscribe(t.Context(), channels...)); err != nil {
		t.Errorf("with all permissions: %v", err)
	}
	a.stop()
	b.stop()
	for i, part := range []string{
		"&shoal:*", "&shoal:*", "&shoal:*", "~shoal:*", "&upload:*", "+xadd", "+ssubscribe", "+sunsubscribe", "+spublish",
	} {
		on := i % len(servers)
		err := runError(t, with(part, on))
		if errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), servers[on].Addr) ||
			!strings.Contains(err.Error(), strings.Trim(part, "+~&*")) || !strings.Contains(err.Error(), ofClusters) {
			t.Errorf("without %s on %s Run returned %v", part, servers[on].Addr, err)
		}
	}
}
