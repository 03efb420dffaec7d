package embedded_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/broker/brokertest"
	"github.com/shoal-go/shoal/broker/natsbroker"
	"github.com/shoal-go/shoal/broker/natsbroker/embedded"
)

// patience bounds how long a test waits for an event.
const patience = 30 * time.Second

func start(t *testing.T, opt embedded.Options) *embedded.Server {
	t.Helper()
	s, err := embedded.Start(opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

// node is a broker that runs.
type node struct {
	*natsbroker.Broker
	*brokertest.Recorder
}

// join runs a broker until the test ends. It does not wait for it to connect.
func join(t *testing.T, opt natsbroker.Options) *node {
	t.Helper()
	opt.ProbeInterval = cmp.Or(opt.ProbeInterval, 300*time.Millisecond)
	b, err := natsbroker.New(opt)
	if err != nil {
		t.Fatal(err)
	}
	n := &node{b, brokertest.NewRecorder()}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx, n.Recorder) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run returned %v, want nil", err)
		}
	})
	return n
}

func (n *node) awaitHealthy(t *testing.T) {
	t.Helper()
	n.Await(t, "good health", n.Healthy)
}

func TestServer_AloneListensNowhere(t *testing.T) {
	folders := func() []string {
		found, err := filepath.Glob(filepath.Join(os.TempDir(), "shoal-nats-*"))
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	t.Setenv("TMPDIR", t.TempDir())
	s := start(t, embedded.Options{})
	if s.Addr() != nil || s.ClusterAddr() != nil {
		t.Errorf("a server that is to be reached from within only listens at %v and %v", s.Addr(), s.ClusterAddr())
	}
	a, b := join(t, natsbroker.Options{Server: s}), join(t, natsbroker.Options{Server: s})
	a.awaitHealthy(t)
	b.awaitHealthy(t)
	if err := b.Subscribe(t.Context(), "upload:x"); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Store(t.Context(), "upload:x", []byte("1")); err != nil {
		t.Fatal(err)
	}
	b.Await(t, "the message", func() bool { return len(b.Payloads("upload:x")) == 1 })
	if len(folders()) != 1 {
		t.Errorf("the server's folders are %q, want one", folders())
	}
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Errorf("Close: %v", err)
	}
	if left := folders(); len(left) > 0 {
		t.Errorf("Close left %q", left)
	}
}

// freeAddrs returns loopback addresses at which nothing listens.
func freeAddrs(t *testing.T, count int) []string {
	t.Helper()
	var addrs []string
	for range 100 * count {
		// Systems give ports from 32768 on to outgoing connections and to listeners on port 0: one of those may be taken by
		// the time that the server listens on it.
		l, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", 20_000+rand.N(12_000)))
		if err != nil {
			continue
		}
		defer l.Close()
		if addrs = append(addrs, l.Addr().String()); len(addrs) == count {
			return addrs
		}
	}
	t.Fatal("no ports are free")
	return nil
}

func cluster(addrs []string, i int, secret string) embedded.Options {
	return embedded.Options{
		Name: fmt.Sprint("node-", i), ClusterAddr: addrs[i], ClusterRoutes: addrs, ClusterSecret: secret,
	}
}

// store stores a message, trying again for as long as the cluster has no leader.
func store(t *testing.T, n *node, channel, payload string) broker.Position {
	t.Helper()
	var pos broker.Position
	brokertest.Eventually(t, "Store", func() (err error) {
		pos, err = n.Store(t.Context(), channel, []byte(payload))
		return err
	})
	return pos
}

func TestServer_ThreeLoseOne(t *testing.T) {
	const size = 3
	addrs := freeAddrs(t, size)
	var servers []*embedded.Server
	var nodes []*node
	for i := range size {
		servers = append(servers, start(t, cluster(addrs, i, "secret")))
		nodes = append(nodes, join(t, natsbroker.Options{Server: servers[i], Replicas: size}))
	}
	for _, n := range nodes {
		n.awaitHealthy(t)
	}
	// The guarantee of Subscribe has to hold for new channels, with any server as the stream's leader.
	const rounds = 30
	for i := range rounds {
		channel := fmt.Sprint("upload:", i)
		reader, writer := nodes[i%size], nodes[(i+1)%size]
		if err := reader.Subscribe(t.Context(), channel); err != nil {
			t.Fatal(err)
		}
		pos := store(t, writer, channel, "1")
		reader.Await(t, "the message", func() bool { return len(reader.Payloads(channel)) == 1 })
		for _, n := range nodes {
			k, err := n.History(t.Context(), channel, broker.Position{})
			if err != nil || k.Offset != pos.Offset || len(k.Messages) != 1 {
				t.Fatalf("kept is %+v, error %v, want what was just stored, at %d", k, err, pos.Offset)
			}
		}
	}
	before, err := nodes[1].History(t.Context(), "upload:0", broker.Position{})
	if err != nil {
		t.Fatal(err)
	}
	if err := servers[0].Close(); err != nil {
		t.Fatal(err)
	}
	brokertest.Eventually(t, "Subscribe", func() error { return nodes[1].Subscribe(t.Context(), "upload:1") })
	store(t, nodes[2], "upload:1", "2")
	nodes[1].Await(t, "the message", func() bool {
		received := nodes[1].Payloads("upload:1")
		return len(received) > 0 && received[len(received)-1] == "2"
	})
	brokertest.Eventually(t, "History", func() error {
		after, err := nodes[2].History(t.Context(), "upload:0", broker.Position{})
		if err == nil && (after.Epoch != before.Epoch || after.Offset != before.Offset) {
			t.Errorf("after the loss of a node kept is %+v, want %+v", after.Position, before.Position)
		}
		return err
	})
}

// Keys hold on every node of a cluster, for concurrent calls too, and after the loss of a server.
func TestServer_ThreeRecogniseRepetitions(t *testing.T) {
	const size, rounds, callers = 3, 10, 9
	addrs := freeAddrs(t, size)
	var servers []*embedded.Server
	var nodes []*node
	for i := range size {
		servers = append(servers, start(t, cluster(addrs, i, "secret")))
		nodes = append(nodes, join(t, natsbroker.Options{Server: servers[i], Replicas: size}))
	}
	for _, n := range nodes {
		n.awaitHealthy(t)
	}
	store(t, nodes[0], "upload:first", "1")
	once := func(n *node, channel string) (at broker.Position, replayed bool) {
		brokertest.Eventually(t, "StoreOnce", func() (err error) {
			at, replayed, err = n.StoreOnce(t.Context(), channel, []byte("1"), broker.Once{Key: "key", Digest: "one"})
			return err
		})
		return at, replayed
	}
	for i := range rounds {
		channel := fmt.Sprint("upload:", i)
		positions, running := make([]broker.Position, callers), sync.WaitGroup{}
		for c := range callers {
			running.Go(func() { positions[c], _ = once(nodes[c%size], channel) })
		}
		running.Wait()
		k, err := nodes[i%size].History(t.Context(), channel, broker.Position{})
		if err != nil || len(k.Messages) != 1 {
			t.Fatalf("kept is %+v, error %v, want one message", k, err)
		}
		for _, at := range positions {
			if at != k.Position {
				t.Fatalf("StoreOnce returned %+v, want %+v", at, k.Position)
			}
		}
		for _, n := range nodes {
			other := broker.Once{Key: "key", Digest: "another"}
			if err := n.CheckOnce(t.Context(), channel, other); !errors.Is(err, broker.ErrKeyReused) {
				t.Errorf("CheckOnce returned %v", err)
			}
			other.Key = "other"
			if err := n.CheckOnce(t.Context(), channel, other); err != nil {
				t.Errorf("CheckOnce of another key returned %v", err)
			}
		}
	}
	if err := servers[0].Close(); err != nil {
		t.Fatal(err)
	}
	for i := range rounds {
		if at, replayed := once(nodes[1+i%2], fmt.Sprint("upload:", i)); !replayed {
			t.Errorf("after the loss of a node StoreOnce stored again, at %+v", at)
		}
	}
}

func TestServer_WrongSecretDoesNotJoin(t *testing.T) {
	addrs := freeAddrs(t, 2)
	a := start(t, cluster(addrs, 0, "secret"))
	b := start(t, cluster(addrs, 1, "another"))
	n := join(t, natsbroker.Options{Server: b})
	n.Await(t, "bad health", func() bool { return n.Fault() != nil })
	if _, err := nats.Connect("nats://" + a.Addr().String()); !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("connecting from outside returned %v, want ErrAuthorization", err)
	}
}

func TestStart_NamesAllInvalidOptions(t *testing.T) {
	_, err := embedded.Start(embedded.Options{
		Name: "a b", Addr: "nowhere", ClusterRoutes: []string{"x"}, MaxMemory: -1, StartTimeout: -1,
	})
	if err == nil {
		t.Fatal("Start returned nil, want an error")
	}
	for _, field := range []string{"Name", "Addr", "ClusterRoutes[0]", "ClusterAddr", "MaxMemory", "StartTimeout"} {
		if !strings.Contains(err.Error(), "Options."+field) {
			t.Errorf("the error %q does not name %s", err, field)
		}
	}
	if _, err := embedded.Start(embedded.Options{ClusterAddr: "0.0.0.0:0"}); err == nil {
		t.Error("a cluster without a secret is open to strangers")
	}
}

func TestStart_NamesADirectoryThatCannotBeUsed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := embedded.Start(embedded.Options{StoreDir: filepath.Join(file, "store")})
	if err == nil || !strings.Contains(err.Error(), "Options.StoreDir") || !strings.Contains(err.Error(), file) {
		t.Errorf("Start returned %v, want an error with the option and the path", err)
	}
	folder := filepath.Join(t.TempDir(), "made", "on demand")
	s := start(t, embedded.Options{StoreDir: folder})
	// Two servers would store different messages under the same positions.
	_, err = embedded.Start(embedded.Options{StoreDir: folder})
	if err == nil || !strings.Contains(err.Error(), "Options.StoreDir must be a directory of this server alone") {
		t.Errorf("a second server in the same folder: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	start(t, embedded.Options{StoreDir: folder}) // which the first one has released
	if left, err := filepath.Glob(filepath.Join(folder, ".probe-*")); err != nil || len(left) > 0 {
		t.Errorf("Start left %q, %v", left, err)
	}
}

// TestServer_RenamedMemberIsTheSameMember: a server that returns under another name, with nothing on disk, does not
// make the cluster larger: one of three may still fail afterwards.
func TestServer_RenamedMemberIsTheSameMember(t *testing.T) {
	const size = 3
	addrs := freeAddrs(t, size)
	var servers []*embedded.Server
	for i := range size {
		servers = append(servers, start(t, cluster(addrs, i, "secret")))
	}
	first := join(t, natsbroker.Options{Server: servers[0], Replicas: size})
	store(t, first, "upload:x", "1")
	for _, name := range []string{"node-1-renamed", "node-1-renamed-again", "node-1-once-more"} {
		if err := servers[1].Close(); err != nil {
			t.Fatal(err)
		}
		opt := cluster(addrs, 1, "secret")
		opt.Name = name
		servers[1] = start(t, opt)
		brokertest.Eventually(t, "Ready of the renamed member", servers[1].Ready)
	}
	if err := servers[2].Close(); err != nil {
		t.Fatal(err)
	}
	store(t, first, "upload:x", "2")
	brokertest.Eventually(t, "Ready with two of three", servers[0].Ready)
	if err := servers[1].Close(); err != nil {
		t.Fatal(err)
	}
	brokertest.Eventually(t, "Ready that names the missing members", func() error {
		err := servers[0].Ready()
		if err != nil && errors.Is(err, embedded.ErrBehind) && strings.Contains(err.Error(), "1 of 3") &&
			strings.Contains(err.Error(), addrs[1]) && strings.Contains(err.Error(), addrs[2]) {
			return nil
		}
		return fmt.Errorf("Ready returned %w", err)
	})
}

// TestServer_FullMemoryDropsOldest: the stream of an embedded server is bounded below the server's own limit, so that
// a full memory drops old messages instead of refusing new ones.
func TestServer_FullMemoryDropsOldest(t *testing.T) {
	n := join(t, natsbroker.Options{Server: start(t, embedded.Options{MaxMemory: 16 << 20})})
	n.awaitHealthy(t)
	payload := strings.Repeat("x", 60<<10)
	for i := range 600 {
		if _, err := n.Store(t.Context(), fmt.Sprint("upload:", i%300), []byte(payload)); err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
	}
	if err := n.Subscribe(t.Context(), "upload:new"); err != nil {
		t.Errorf("Subscribe: %v", err)
	}
}

func TestOptions_ClusterSizeCountsEachServerOnce(t *testing.T) {
	for _, c := range []struct {
		addr   string
		routes []string
		want   int
	}{
		{"127.0.0.1:7001", nil, 1},
		{"127.0.0.1:7001", []string{"127.0.0.1:7001", "127.0.0.1:7001"}, 1},
		{"127.0.0.1:7001", []string{"127.0.0.1:7001", "127.0.0.1:7002"}, 2},
		{"127.0.0.1:7001", []string{"127.0.0.1:7002", "127.0.0.1:7003"}, 3},
		{":7001", []string{"127.0.0.1:7001", "198.51.100.2:7001"}, 2},
		{":7001", []string{"198.51.100.1:7001", "198.51.100.2:7001"}, 3},
	} {
		opt := embedded.Options{ClusterAddr: c.addr, ClusterRoutes: c.routes}
		if got := opt.ClusterSize(); got != c.want {
			t.Errorf("%s with the routes %q: %d servers, want %d", c.addr, c.routes, got, c.want)
		}
	}
}
