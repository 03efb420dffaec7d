package redistest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Cluster starts a cluster with a number of masters, each with a number of replicas, and returns when all of them
// agree. The masters come first, and then replica i belongs to master i modulo masters.
func Cluster(t testing.TB, masters, replicas int) []*Server {
	t.Helper()
	var servers []*Server
	for range masters * (1 + replicas) {
		servers = append(servers, Start(t, "--cluster-enabled", "yes", "--cluster-node-timeout", "1500",
			"--cluster-port", otherPort(t), "--cluster-replica-validity-factor", "0", "--repl-ping-replica-period", "1"))
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
