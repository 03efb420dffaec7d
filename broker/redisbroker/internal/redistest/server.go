// Package redistest starts real Redis servers for tests: one, a cluster, or a group with sentinels. Each listens on
// a port of its own on the loopback interface, keeps its files in a folder of the test, and ends with the test.
package redistest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/shoal-go/shoal/broker/brokertest"
)

// patience is how long a server may take to answer. The machine may be busy.
const patience = 30 * time.Second

// Server is one server. Its methods are for the test's own goroutine.
type Server struct {
	// Addr is where it listens.
	Addr string

	t       testing.TB
	dir     string
	args    []string
	process *brokertest.Process // nil until it is started
}

// Start starts a server without persistence, and returns when it answers. args are settings in the form of
// redis-server's command line, such as "--requirepass", "secret".
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	s := reserve(t)
	s.args = append(settings(s.Addr, s.dir), args...)
	if slices.Contains(args, "--cluster-enabled") { // by default a port that any connection of this machine may have
		s.args = append(s.args, "--cluster-port", otherPort(t))
	}
	s.Restart()
	return s
}

// settings are those of a server without persistence that listens at addr and keeps its files in dir.
func settings(addr, dir string) []string {
	host, port, _ := net.SplitHostPort(addr)
	return []string{
		"--bind", host, "--port", port, "--dir", dir, "--save", "", "--appendonly", "no",
		"--daemonize", "no", "--repl-diskless-sync-delay", "0",
	}
}

// Command returns the command that runs a server at addr, host:port, which keeps its files in dir. args are like
// those of Start.
func Command(t testing.TB, addr, dir string, args ...string) *exec.Cmd {
	t.Helper()
	return command(t, append(settings(addr, dir), args...))
}

// command returns the command that runs a server, which ends with the test's process at the latest.
func command(t testing.TB, args []string) *exec.Cmd {
	t.Helper()
	c := exec.Command(binary(t), args...) // the test chooses the program
	endWithParent(c)
	return c
}

// reserve returns a server at a free port that is not started yet.
func reserve(t testing.TB) *Server {
	t.Helper()
	return &Server{Addr: brokertest.FreeAddr(t), t: t, dir: t.TempDir()}
}

// Port returns the port of Addr.
func (s *Server) Port() string {
	_, port, _ := net.SplitHostPort(s.Addr)
	return port
}

// binary returns the path of redis-server, or ends the test with the remedy.
func binary(t testing.TB) string {
	t.Helper()
	name := os.Getenv("SHOAL_REDIS_SERVER")
	if name == "" {
		name = "redis-server"
	}
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("these tests need Redis 7.0 or newer, and %s is not found: install it (Debian: apt-get install "+
			"redis-server), or set SHOAL_REDIS_SERVER to its path", name)
	}
	return path
}

// Restart starts the server again after Kill, with the data that it has saved.
func (s *Server) Restart() {
	s.t.Helper()
	if s.process == nil {
		s.process = brokertest.StartProcess(s.t, s.Addr, func(bool) *exec.Cmd { return command(s.t, s.args) })
	} else {
		s.process.Restart(true)
	}
	Eventually(s.t, "the server at "+s.Addr+" answers", s.answers)
}

// answers reports whether the server answers, be it that it wants a password.
func (s *Server) answers() bool {
	conn, err := net.DialTimeout("tcp", s.Addr, time.Second)
	if err != nil {
		return false
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	_, _ = conn.Write([]byte("PING\r\n"))
	answer := make([]byte, 64)
	n, _ := conn.Read(answer)
	return strings.HasPrefix(string(answer[:n]), "+PONG") || strings.HasPrefix(string(answer[:n]), "-NOAUTH")
}

// Kill kills the server, as if its machine had lost power. Unsaved data is lost.
func (s *Server) Kill() { s.process.Kill() }

// Pause stops the server until Resume; its connections stay.
func (s *Server) Pause() { s.process.Pause() }

// Resume ends Pause.
func (s *Server) Resume() { s.process.Resume() }

// Client returns a plain client to the server, which ends with the test.
func (s *Server) Client(t testing.TB) rueidis.Client {
	t.Helper()
	client, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress: []string{s.Addr}, ForceSingleClient: true, DisableCache: true, DisableRetry: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// Do sends a command to the server on a connection of its own, and returns the answer as text. An error ends the test.
func (s *Server) Do(words ...string) string {
	s.t.Helper()
	text, err := s.Try(words...)
	if err != nil {
		s.t.Fatalf("%s: %v", strings.Join(words, " "), err)
	}
	return text
}

// Try is Do for a command that may fail.
func (s *Server) Try(words ...string) (string, error) {
	client, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress: []string{s.Addr}, ForceSingleClient: true, DisableCache: true, DisableRetry: true,
	})
	if err != nil {
		return "", err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	value, err := client.Do(ctx, client.B().Arbitrary(words...).Build()).ToAny()
	return fmt.Sprint(value), err
}

// errWaiting is the result of a condition that does not hold yet.
var errWaiting = errors.New("not yet")

// Eventually returns when the condition holds, and ends the test after 30 seconds.
func Eventually(t testing.TB, event string, condition func() bool) {
	t.Helper()
	brokertest.Eventually(t, event, func() error {
		if condition() {
			return nil
		}
		return errWaiting
	})
}

// otherPort returns a free port that is not the server's.
func otherPort(t testing.TB) string {
	_, port, _ := net.SplitHostPort(brokertest.FreeAddr(t))
	return port
}

// Cluster starts a cluster with a number of masters, each with a number of replicas, and returns when all of them
// agree. The masters come first, and then replica i belongs to master i modulo masters.
func Cluster(t testing.TB, masters, replicas int) []*Server {
	t.Helper()
	var servers []*Server
	for range masters * (1 + replicas) {
		servers = append(servers, Start(t, "--cluster-enabled", "yes", "--cluster-node-timeout", "1500",
			"--cluster-replica-validity-factor", "0", "--repl-ping-replica-period", "1"))
	}
	for i, s := range servers {
		s.Do("CLUSTER", "SET-CONFIG-EPOCH", fmt.Sprint(i+1))
		if i < masters {
			s.Do("CLUSTER", "ADDSLOTSRANGE", fmt.Sprint(16384*i/masters), fmt.Sprint(16384*(i+1)/masters-1))
		}
		if i > 0 {
			servers[0].Do("CLUSTER", "MEET", "127.0.0.1", s.Port(), busPort(s))
		}
	}
	for _, s := range servers {
		Eventually(t, "all nodes of the cluster know each other", func() bool {
			return strings.Count(s.Do("CLUSTER", "NODES"), " connected") == len(servers)
		})
	}
	for i, s := range servers[masters:] {
		id := servers[i%masters].Do("CLUSTER", "MYID")
		Eventually(t, "a node has become a replica", func() bool {
			_, err := s.Try("CLUSTER", "REPLICATE", id)
			return err == nil
		})
	}
	for i, s := range servers {
		Eventually(t, "the cluster is complete", func() bool {
			return strings.Contains(s.Do("CLUSTER", "INFO"), "cluster_state:ok") &&
				(i < masters || strings.Contains(s.Do("INFO", "replication"), "master_link_status:up"))
		})
	}
	return servers
}

// busPort returns the port on which the nodes of a cluster reach a server.
func busPort(s *Server) string {
	for i, word := range s.args {
		if word == "--cluster-port" {
			return s.args[i+1]
		}
	}
	return ""
}

// Group is a master named "main" with replicas, and sentinels that watch them.
type Group struct {
	// Servers are the master, first, and its replicas.
	Servers []*Server
	// Sentinels promote a replica when the master is gone for a second.
	Sentinels []*Server
}

// Sentinel starts a group of a master, a replica and three sentinels, and returns when they know each other.
func Sentinel(t testing.TB) Group {
	t.Helper()
	master := Start(t)
	replica := Start(t, "--replicaof", "127.0.0.1 "+master.Port(), "--repl-ping-replica-period", "1")
	g := Group{Servers: []*Server{master, replica}}
	Eventually(t, "the replica follows", func() bool {
		return strings.Contains(replica.Do("INFO", "replication"), "master_link_status:up")
	})
	for range 3 {
		s := reserve(t)
		config := filepath.Join(s.dir, "sentinel.conf")
		text := fmt.Sprintf("bind 127.0.0.1\nport %s\ndir %s\nsentinel monitor main 127.0.0.1 %s 2\n"+
			"sentinel down-after-milliseconds main 1000\nsentinel failover-timeout main 5000\n", s.Port(), s.dir, master.Port())
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		s.args = []string{config, "--sentinel"}
		s.Restart()
		g.Sentinels = append(g.Sentinels, s)
	}
	for _, s := range g.Sentinels {
		Eventually(t, "the sentinels know each other", func() bool {
			info := s.Do("INFO", "sentinel")
			return strings.Contains(info, "status=ok") && strings.Contains(info, "slaves=1,sentinels=3")
		})
	}
	return g
}
