package embedded_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/broker/brokertest"
	"github.com/shoal-go/shoal/broker/natsbroker"
	"github.com/shoal-go/shoal/broker/natsbroker/embedded"
)

// streamOf returns a server's stream.
func streamOf(t *testing.T, s *embedded.Server) jetstream.Stream {
	t.Helper()
	conn, err := nats.Connect("", nats.InProcessServer(s))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), "SHOAL")
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

// awaitReplicas returns when the stream has two current followers.
func awaitReplicas(t *testing.T, stream jetstream.Stream) {
	t.Helper()
	brokertest.Eventually(t, "two current followers", func() error {
		info, err := stream.Info(t.Context())
		if err == nil && (info.Cluster == nil || len(info.Cluster.Replicas) < 2 ||
			slices.ContainsFunc(info.Cluster.Replicas, func(p *jetstream.PeerInfo) bool { return !p.Current })) {
			err = errors.New("not yet so")
		}
		return err
	})
}

// TestServer_MoreReplicasWhileRunning: a node that wants more replicas adds them while nodes run that have asked for
// one, and have not checked the stream since. Histories include all messages that were stored before, from any server
// that responds.
func TestServer_MoreReplicasWhileRunning(t *testing.T) {
	const size, rounds = 3, 50
	addrs := freeAddrs(t, size)
	var servers []*embedded.Server
	var nodes []*node
	for i := range size {
		servers = append(servers, start(t, cluster(addrs, i, "secret")))
	}
	join(t, natsbroker.Options{Server: servers[0], Replicas: 1}).awaitHealthy(t)
	for i := range size {
		n := join(t, natsbroker.Options{Server: servers[i], Replicas: 1, ProbeInterval: time.Hour})
		store(t, n, "upload:first", "1")
		nodes = append(nodes, n)
	}
	join(t, natsbroker.Options{Server: servers[0], Replicas: size}).awaitHealthy(t)
	stream := streamOf(t, servers[0])
	awaitReplicas(t, stream)
	ctx, cancel := context.WithCancel(t.Context())
	var busy sync.WaitGroup
	for _, n := range nodes { // so that the followers lag behind
		for range 5 {
			busy.Go(func() {
				for ctx.Err() == nil {
					_, _ = n.Store(ctx, "upload:busy", make([]byte, 4<<10))
				}
			})
		}
	}
	defer busy.Wait()
	defer cancel()
	for k := range rounds {
		channel := fmt.Sprint("upload:", k)
		pos := store(t, nodes[k%size], channel, "1")
		for i, n := range nodes {
			h, err := n.History(t.Context(), channel, broker.Position{})
			if err != nil || h.Offset != pos.Offset {
				t.Fatalf("node %d: the history is at %+v, error %v, want %+v", i, h.Position, err, pos)
			}
		}
	}
}

// TestServer_ReadyWithAllThatWasStored: a server that restarts with nothing is ready once it has every message that was
// stored before, although others are stored all the time.
func TestServer_ReadyWithAllThatWasStored(t *testing.T) {
	const size, before = 3, 1000
	addrs := freeAddrs(t, size)
	var servers []*embedded.Server
	for i := range size {
		servers = append(servers, start(t, cluster(addrs, i, "secret")))
	}
	for _, s := range servers {
		brokertest.Eventually(t, "Ready", s.Ready)
	}
	writer := join(t, natsbroker.Options{Server: servers[0], Replicas: size})
	writer.awaitHealthy(t)
	var busy sync.WaitGroup
	for i := range 10 {
		busy.Go(func() {
			for range before / 10 {
				_, _ = writer.Store(t.Context(), fmt.Sprint("upload:", i), make([]byte, 1<<10))
			}
		})
	}
	busy.Wait()
	ctx, cancel := context.WithCancel(t.Context())
	busy.Go(func() {
		pace := time.NewTicker(2 * time.Millisecond)
		defer pace.Stop()
		for ctx.Err() == nil {
			_, _ = writer.Store(ctx, "upload:busy", make([]byte, 1<<10))
			<-pace.C
		}
	})
	defer busy.Wait()
	defer cancel()
	for i := 1; i < size; i++ {
		if err := servers[i].Close(); err != nil {
			t.Fatal(err)
		}
		pos := store(t, writer, "upload:x", fmt.Sprint(i))
		servers[i] = start(t, cluster(addrs, i, "secret"))
		brokertest.Eventually(t, "Ready after the restart", servers[i].Ready)
		have, err := embedded.LastSequences(servers[i])
		if err != nil || have["SHOAL"] < pos.Offset {
			t.Errorf("server %d is ready with the messages up to %d, %v, want %d at least", i, have["SHOAL"], err, pos.Offset)
		}
	}
}
