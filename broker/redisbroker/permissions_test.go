package redisbroker_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/broker/redisbroker"
	"github.com/shoal-go/shoal/broker/redisbroker/internal/redistest"
	"github.com/shoal-go/shoal/internal/testlog"
)

// TestPermissions_AreEnoughAndEachIsNeeded: with the rule everything works; without one of its parts the start fails
// with an error that names it.
func TestPermissions_AreEnoughAndEachIsNeeded(t *testing.T) {
	server := redistest.Start(t)
	all := strings.Fields(redisbroker.Permissions(""))
	with := func(user string, rules []string) redisbroker.Options {
		server.Do(append([]string{"ACL", "SETUSER", user, "on", ">secret", "resetchannels"}, rules...)...)
		opt := options(server)
		opt.URL = "redis://" + user + ":secret@" + server.Addr
		return opt
	}
	n := join(t, with("enough", all))
	subscribe(t, n, "upload:x", "shoal:all")
	store(t, n, "upload:x", "one")
	err := errors.Join(n.Publish(t.Context(), "shoal:all", []byte("hello")), n.Forget(t.Context(), "upload:x"))
	_, _, onceErr := n.StoreOnce(t.Context(), "upload:x", []byte("two"), broker.Once{Key: "key", Digest: "two"})
	_, readErr := n.Positions(t.Context(), "upload:y")
	if err := errors.Join(err, onceErr, readErr, n.Unsubscribe(t.Context(), "upload:x")); err != nil {
		t.Errorf("with all permissions: %v", err)
	}
	for i, rule := range all {
		t.Run(rule, func(t *testing.T) {
			err := runError(t, with("narrow", append([]string{"reset", "on", ">secret"}, slices.Delete(slices.Clone(all), i, i+1)...)))
			if errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), strings.Trim(rule, "+~&*")) {
				t.Errorf("Run returned %v, want it to name %s", err, rule)
			}
		})
	}
}

// TestPermissions_RenamedCommandEndsRun: a server without a command that only some scripts need, because it was renamed
// or disabled, ends the start with an error that names it.
func TestPermissions_RenamedCommandEndsRun(t *testing.T) {
	for _, command := range []string{"XRANGE", "DEL", "GET", "SET"} {
		server := redistest.Start(t, "--rename-command", command, "")
		if err := runError(t, options(server)); !strings.Contains(err.Error(), "the command "+strings.ToLower(command)) {
			t.Errorf("without %s Run returned %v", command, err)
		}
	}
}

// TestPermissions_AreDocumented: the page for operators has the rule.
func TestPermissions_AreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/scaling.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(page), "\n"+redisbroker.Permissions("")+"\n") {
		t.Errorf("docs/scaling.md does not contain the line\n%s", redisbroker.Permissions(""))
	}
}

// TestBroker_FullMemoryShowsInHealth: a server that cannot store messages is reported although all else works, until it
// has memory again.
func TestBroker_FullMemoryShowsInHealth(t *testing.T) {
	server := redistest.Start(t)
	n := join(t, options(server))
	server.Do("CONFIG", "SET", "maxmemory", "1")
	redistest.Eventually(t, "Health names the full memory", func() bool {
		err := n.Fault()
		return err != nil && errors.Is(err, broker.ErrUnavailable) && strings.Contains(err.Error(), "no memory left")
	})
	server.Do("CONFIG", "SET", "maxmemory", "0")
	redistest.Eventually(t, "the node is healthy again", n.Healthy)
}

// TestBroker_FullServerIsNamed: a node that a server refuses beyond its maxclients says so, and names the remedy, until
// it is let in.
func TestBroker_FullServerIsNamed(t *testing.T) {
	server := redistest.Start(t)
	n := join(t, options(server))
	operator, err := net.Dial("tcp", server.Addr) // the one connection that is left
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = operator.Close() }()
	do := func(command string) {
		if _, err := fmt.Fprintf(operator, "%s\r\n", command); err != nil {
			t.Fatal(err)
		}
	}
	do("CONFIG SET maxclients 1")
	do("CLIENT KILL TYPE normal SKIPME yes")
	do("CLIENT KILL TYPE pubsub SKIPME yes")
	redistest.Eventually(t, "Health names the limit", func() bool {
		err := n.Fault()
		return err != nil && errors.Is(err, broker.ErrUnavailable) && strings.Contains(err.Error(), "raise its maxclients")
	})
	do("CONFIG SET maxclients 1000")
	redistest.Eventually(t, "the node is healthy again", n.Healthy)
}

// TestBroker_FullMemoryIsHealthyOnlyWithRoom: near maxmemory, where some messages are stored and others refused, a
// server stays unhealthy.
func TestBroker_FullMemoryIsHealthyOnlyWithRoom(t *testing.T) {
	server := redistest.Start(t)
	server.Do("SETRANGE", "ballast", "20000000", "x")
	opt := options(server)
	opt.ProbeInterval = 20 * time.Millisecond
	n := join(t, opt)
	server.Do("CONFIG", "SET", "maxmemory", "1")
	redistest.Eventually(t, "the node is unhealthy", func() bool { return !n.Healthy() })
	used, err := strconv.Atoi(infoField(server.Do("INFO", "memory"), "used_memory"))
	if err != nil {
		t.Fatal(err)
	}
	before := scriptCalls(t, server)
	server.Do("CONFIG", "SET", "maxmemory", strconv.Itoa(used+used/50))
	redistest.Eventually(t, "the node is healthy again", n.Healthy)
	if accepted := scriptCalls(t, server) - before; accepted < 10 {
		t.Errorf("the node was healthy after %d probes, want 10 at least", accepted)
	}
}

// scriptCalls returns how many scripts the server has run.
func scriptCalls(t *testing.T, server *redistest.Server) int {
	t.Helper()
	calls, _, _ := strings.Cut(strings.TrimPrefix(infoField(server.Do("INFO", "commandstats"), "cmdstat_evalsha"), "calls="), ",")
	n, err := strconv.Atoi(calls)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// infoField returns a field of the answer of INFO.
func infoField(info, name string) string {
	_, rest, _ := strings.Cut(info, name+":")
	value, _, _ := strings.Cut(rest, "\r\n")
	return value
}

// TestBroker_StartsWithFullMemory: a node that starts while the server cannot store messages is unhealthy, delivers
// messages that are not stored, and is healthy once there is memory.
func TestBroker_StartsWithFullMemory(t *testing.T) {
	server := redistest.Start(t, "--maxmemory", "1")
	n := start(t, options(server))
	redistest.Eventually(t, "Health names the full memory", func() bool {
		err := n.Fault()
		return err != nil && strings.Contains(err.Error(), "no memory left")
	})
	subscribe(t, n, "upload:x")
	if err := n.Publish(t.Context(), "upload:x", []byte("live")); err != nil {
		t.Fatal(err)
	}
	redistest.Eventually(t, "the message arrives", func() bool { return n.last("upload:x") == "live" })
	server.Do("CONFIG", "SET", "maxmemory", "0")
	redistest.Eventually(t, "the node is healthy", n.Healthy)
}

// TestBroker_RefusedWritesAreUnhealthy: a server that refuses to store messages, but does all else, is unhealthy, and
// the health names its reason.
func TestBroker_RefusedWritesAreUnhealthy(t *testing.T) {
	server := redistest.Start(t)
	server.Do("ACL", "SETUSER", "node", "on", ">secret", "~*", "&*", "+@all")
	opt := options(server)
	opt.URL = "redis://node:secret@" + server.Addr
	n := join(t, opt)
	for reason, command := range map[string][2][]string{
		"NOREPLICAS":           {{"CONFIG", "SET", "min-replicas-to-write", "1"}, {"CONFIG", "SET", "min-replicas-to-write", "0"}},
		"evalsha":              {{"ACL", "SETUSER", "node", "-evalsha"}, {"ACL", "SETUSER", "node", "+evalsha"}},
		"xadd":                 {{"ACL", "SETUSER", "node", "-xadd"}, {"ACL", "SETUSER", "node", "+xadd"}},
		"run time in a script": {{"ACL", "SETUSER", "node", "-time"}, {"ACL", "SETUSER", "node", "+time"}},
		"run info":             {{"ACL", "SETUSER", "node", "-info"}, {"ACL", "SETUSER", "node", "+info"}},
	} {
		server.Do(command[0]...)
		n.Await(t, "bad health that names "+reason, func() bool {
			return n.Fault() != nil && strings.Contains(n.Fault().Error(), reason)
		})
		if text := n.Fault().Error(); command[0][0] == "ACL" && !strings.Contains(text, redisbroker.Permissions("")) {
			t.Errorf("the health is %q, want it to name all permissions", text)
		}
		server.Do(command[1]...)
		n.Await(t, "good health after "+reason, n.Healthy)
	}
}

// TestBroker_FlushedScriptsAreLoadedAgain: scripts that were flushed are loaded again, also by a node that only
// receives, which needs them to keep the epochs of its channels.
func TestBroker_FlushedScriptsAreLoadedAgain(t *testing.T) {
	server := redistest.Start(t)
	n := join(t, options(server))
	subscribe(t, n, "upload:x")
	server.Do("SCRIPT", "FLUSH")
	redistest.Eventually(t, "the scripts are loaded", func() bool {
		return infoField(server.Do("INFO", "memory"), "number_of_cached_scripts") != "0"
	})
	store(t, n, "upload:x", "1")
	n.Await(t, "the message", func() bool { return n.last("upload:x") == "1" })
}

// TestBroker_FlushedDataBeginsAnEpoch: after FLUSHALL the next message begins an epoch, on every node.
func TestBroker_FlushedDataBeginsAnEpoch(t *testing.T) {
	server := redistest.Start(t)
	a, b := join(t, options(server)), join(t, options(server))
	subscribe(t, a, "upload:x")
	before := store(t, b, "upload:x", "1")
	server.Do("FLUSHALL")
	after := store(t, b, "upload:x", "2")
	a.Await(t, "the message", func() bool { return a.last("upload:x") == "2" })
	messages := a.Messages("upload:x")
	if newest := messages[len(messages)-1]; after.Epoch == before.Epoch || newest.Position != after || newest.Prev != 0 {
		t.Errorf("after FLUSHALL %+v was received, want %+v in an epoch other than %q", newest, after, before.Epoch)
	}
	if k := history(t, a, "upload:x"); k.Position != after || len(k.Messages) != 1 {
		t.Errorf("the history is %+v, want one message at %+v", k, after)
	}
}

// TestBroker_FrozenServerIsNoticedWhileCallsWait: calls that wait for a server that has stopped do not delay Health.
func TestBroker_FrozenServerIsNoticedWhileCallsWait(t *testing.T) {
	server := redistest.Start(t)
	n := join(t, options(server))
	server.Pause()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			_ = n.Subscribe(ctx, "upload:x")
		}
	}()
	redistest.Eventually(t, "the node is unhealthy", func() bool {
		err := n.Fault()
		return err != nil
	})
	cancel()
	<-ended
	server.Resume()
	redistest.Eventually(t, "the node is healthy again", n.Healthy)
}

// TestPermissions_TakenFromAConnectedNode: a node whose user loses its channels names all permissions that it needs.
func TestPermissions_TakenFromAConnectedNode(t *testing.T) {
	server := redistest.Start(t)
	server.Do("ACL", "SETUSER", "node", "on", ">secret", "~*", "&*", "+@all")
	opt := options(server)
	opt.URL = "redis://node:secret@" + server.Addr
	n := join(t, opt)
	subscribe(t, n, "upload:x")
	server.Do("ACL", "SETUSER", "node", "resetchannels")
	n.Await(t, "bad health that names all permissions", func() bool {
		return n.Fault() != nil && strings.Contains(n.Fault().Error(), redisbroker.Permissions(""))
	})
	server.Do("ACL", "SETUSER", "node", "&*")
	n.Await(t, "good health", n.Healthy)
}

// TestPermissions_OfADatabase: a URL with a database needs one permission more, which the error names.
func TestPermissions_OfADatabase(t *testing.T) {
	server := redistest.Start(t)
	rules := append([]string{"ACL", "SETUSER", "node", "on", ">secret"}, strings.Fields(redisbroker.Permissions(""))...)
	server.Do(rules...)
	opt := options(server)
	opt.URL = "redis://node:secret@" + server.Addr + "/1"
	if err := runError(t, opt); !strings.Contains(err.Error(), redisbroker.Permissions("")+" +select") {
		t.Errorf("without +select Run returned %v, want it to name all permissions", err)
	}
	server.Do("ACL", "SETUSER", "node", "+select")
	store(t, join(t, opt), "upload:x", "1")
}

// TestPermissions_OfAPrefix: a deployment with a prefix needs no permission for the channels of others.
func TestPermissions_OfAPrefix(t *testing.T) {
	server := redistest.Start(t)
	rules := strings.Fields(redisbroker.Permissions("staging"))
	server.Do(append([]string{"ACL", "SETUSER", "staging", "on", ">secret", "resetchannels"}, rules...)...)
	opt := options(server)
	opt.URL = "redis://staging:secret@" + server.Addr
	if err := runError(t, opt); !strings.Contains(err.Error(), "upload:") {
		t.Errorf("without ChannelPrefix Run returned %v, want it to name the channels", err)
	}
	opt.ChannelPrefix = "staging"
	n := join(t, opt)
	subscribe(t, n, "staging.upload:x", "staging.shoal:all")
	store(t, n, "staging.upload:x", "one")
	if err := n.Publish(t.Context(), "staging.shoal:all", nil); err != nil {
		t.Error(err)
	}
}

// A server that evicts keys under a memory limit loses accepted messages without an error: only the log can say so.
func TestBroker_WarnsOfServersThatEvict(t *testing.T) {
	for name, c := range map[string]struct {
		policy, limit string
		want          int
	}{
		"evicts":   {"volatile-lru", "1gb", 1},
		"refuses":  {"noeviction", "1gb", 0},
		"no limit": {"allkeys-lru", "0", 0},
	} {
		server := redistest.Start(t, "--maxmemory", c.limit, "--maxmemory-policy", c.policy)
		var log bytes.Buffer
		opt := options(server)
		opt.Logger = slog.New(slog.NewTextHandler(&log, nil))
		join(t, opt).stop()
		text := log.String()
		if got := strings.Count(text, "level=WARN"); got != c.want {
			t.Errorf("%s: %d warnings, want %d:\n%s", name, got, c.want, text)
		}
		if c.want > 0 && !strings.Contains(text, "maxmemory_policy="+c.policy) {
			t.Errorf("%s: the warning does not name the policy:\n%s", name, text)
		}
	}
}

// TestServer_WarnsOfEvictionThatBegins: an operator may change the policy, or set a limit, while nodes are connected.
func TestServer_WarnsOfEvictionThatBegins(t *testing.T) {
	server := redistest.Start(t, "--maxmemory-policy", "allkeys-lru")
	var log testlog.Buffer
	opt := options(server)
	opt.Logger = slog.New(slog.NewTextHandler(&log, nil))
	join(t, opt)
	for i, setting := range [][2]string{{"maxmemory", "1gb"}, {"maxmemory-policy", "volatile-ttl"}} {
		if n := log.Count("may evict"); n != i {
			t.Fatalf("%d warnings before %s is set, want %d", n, setting[0], i)
		}
		server.Do("CONFIG", "SET", setting[0], setting[1])
		redistest.Eventually(t, "a warning", func() bool { return log.Count("may evict") > i })
	}
	if log.Count("maxmemory_policy=volatile-ttl") != 1 {
		t.Errorf("the second warning does not name the policy once")
	}
}
