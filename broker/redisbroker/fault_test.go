package redisbroker_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/broker/brokertest"
	"github.com/shoal-go/shoal/broker/redisbroker"
	"github.com/shoal-go/shoal/broker/redisbroker/internal/redistest"
)

// awaitUnavailable returns when the node is unhealthy.
func awaitUnavailable(t *testing.T, n *node) {
	t.Helper()
	redistest.Eventually(t, "the node is unhealthy", func() bool {
		return errors.Is(n.Fault(), broker.ErrUnavailable)
	})
	began := time.Now()
	_, storing := n.Store(t.Context(), "upload:x", []byte("lost"))
	subscribing := n.Subscribe(t.Context(), "upload:other")
	for _, err := range []error{storing, subscribing, n.Publish(t.Context(), "upload:x", []byte("lost"))} {
		if !errors.Is(err, broker.ErrUnavailable) {
			t.Errorf("a call returned %v, want ErrUnavailable", err)
		}
	}
	t.Logf("three calls took %v to fail", time.Since(began))
}

// awaitReconnect returns when the node is connected again and has reported an interruption.
func awaitReconnect(t *testing.T, n *node, interruptions int) {
	t.Helper()
	redistest.Eventually(t, "the node is connected again", n.Healthy)
	if got := len(n.Interruptions()); got <= interruptions {
		t.Errorf("%d interruptions were reported, want more than %d", got, interruptions)
	}
}

func TestBroker_RestartWithoutData(t *testing.T) {
	server := redistest.Start(t)
	n := join(t, options(server))
	x := "upload:x"
	subscribe(t, n, x)
	before := store(t, n, x, "one")
	server.Kill()
	awaitUnavailable(t, n)
	server.Restart()
	awaitReconnect(t, n, 0)
	if k := history(t, n, x); k.Epoch == before.Epoch || describe(k) != "0 above 0:" {
		t.Errorf("the history is %+v, want nothing in an epoch other than %q", k, before.Epoch)
	}
	received := len(n.Messages(x))
	store(t, n, x, "two")
	redistest.Eventually(t, "the subscription is restored", func() bool { return len(n.Messages(x)) == received+1 })
}

// A server that comes back with data saved earlier continues it in a new epoch: offsets that clients
// have seen must not name other messages.
func TestBroker_RestartWithOldData(t *testing.T) {
	server := redistest.Start(t)
	n, other := join(t, options(server)), join(t, options(server))
	x := "upload:x"
	subscribe(t, n, x)
	before := store(t, n, x, "one")
	server.Do("SAVE")
	store(t, n, x, "lost")
	server.Kill()
	awaitUnavailable(t, n)
	server.Restart()
	awaitReconnect(t, n, 0)
	redistest.Eventually(t, "the other node is connected again", other.Healthy)
	after := store(t, other, x, "two")
	if k := history(t, n, x); k.Epoch == before.Epoch || describe(k) != "2 above 0: 1=one 2=two" || k.Epoch != after.Epoch {
		t.Errorf("the history is %s in epoch %q, want one and two in an epoch other than %q", describe(k), k.Epoch, before.Epoch)
	}
	redistest.Eventually(t, "the new epoch is told, and then its message", func() bool {
		got := n.Messages(x)
		if len(got) < 2 {
			return false
		}
		news, last := got[len(got)-2], got[len(got)-1]
		return news.Payload == nil && news.Position == (broker.Position{Epoch: after.Epoch, Offset: 1}) &&
			string(last.Payload) == "two" && last.Position == after && last.Prev == 1
	})
}

// A process that restarts between two probes is noticed by the first command.
func TestBroker_CommandNoticesRestart(t *testing.T) {
	server := redistest.Start(t)
	n := join(t, options(server))
	before := store(t, n, "upload:x", "one")
	server.Do("SCRIPT", "FLUSH")
	if after := store(t, n, "upload:x", "two"); after.Epoch != before.Epoch || after.Offset != 2 {
		t.Errorf("after SCRIPT FLUSH the next message is at %v, want it right after %v", after, before)
	}
}

func TestBroker_PausedServerIsUnhealthy(t *testing.T) {
	server := redistest.Start(t)
	opt := options(server)
	opt.Timeout = time.Second
	n := join(t, opt)
	x := "upload:x"
	subscribe(t, n, x)
	server.Pause()
	awaitUnavailable(t, n)
	server.Resume()
	awaitReconnect(t, n, 0)
	store(t, n, x, "one")
	redistest.Eventually(t, "the subscription is restored", func() bool { return n.last(x) == "one" })
}

// A server that becomes a replica takes no messages, and when it is a master again its history is another.
func TestBroker_DemotedServerIsUnhealthy(t *testing.T) {
	server := redistest.Start(t)
	n := join(t, options(server))
	before := store(t, n, "upload:x", "one")
	server.Do("REPLICAOF", "127.0.0.1", "1")
	if _, err := n.Store(t.Context(), "upload:x", []byte("lost")); !errors.Is(err, broker.ErrUnavailable) {
		t.Errorf("a replica's Store returned %v, want ErrUnavailable", err)
	}
	awaitUnavailable(t, n)
	server.Do("REPLICAOF", "NO", "ONE")
	awaitReconnect(t, n, 0)
	if after := store(t, n, "upload:x", "two"); after.Epoch == before.Epoch || after.Offset != 2 {
		t.Errorf("after a promotion a message is at %v, want offset 2 of an epoch other than %q", after, before.Epoch)
	}
}

func TestBroker_SlowNodeIsInterrupted(t *testing.T) {
	server := redistest.Start(t, "--client-output-buffer-limit", "pubsub 256kb 0 0")
	opt := options(server)
	opt.ProbeInterval = time.Minute // it shall be the server that ends the connection
	b, err := redisbroker.New(opt)
	if err != nil {
		t.Fatal(err)
	}
	e, gate := brokertest.NewRecorder(), make(chan struct{})
	e.OnReceive = func(broker.Message) { <-gate }
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx, e) }()
	redistest.Eventually(t, "the broker is connected", e.Healthy)
	x := "upload:x"
	if err := b.Subscribe(t.Context(), x); err != nil {
		t.Fatal(err)
	}
	redistest.Eventually(t, "the server has given up on the slow subscriber", func() bool {
		if err := b.Publish(t.Context(), x, bytes.Repeat([]byte("x"), 64<<10)); err != nil {
			t.Fatalf("Publish: %v", err)
		}
		return strings.Contains(server.Do("PUBSUB", "NUMSUB", x), " 0")
	})
	close(gate)
	redistest.Eventually(t, "an interruption is reported", func() bool { return len(e.Interruptions()) == 1 && e.Healthy() })
	if err := b.Publish(t.Context(), x, []byte("end")); err != nil {
		t.Fatal(err)
	}
	redistest.Eventually(t, "the subscription is restored", func() bool { return lastPayload(e, x) == "end" })
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Run returned %v, want nil", err)
	}
}

func TestBroker_ConnectsToServerThatStartsLater(t *testing.T) {
	server := redistest.Start(t)
	server.Kill()
	n := start(t, options(server))
	awaitUnavailable(t, n)
	server.Restart()
	redistest.Eventually(t, "the node is connected", n.Healthy)
	if len(n.Interruptions()) != 0 {
		t.Errorf("said that messages may be lost before any could come")
	}
}

// runError returns the error of Run.
func runError(t *testing.T, opt redisbroker.Options) error {
	t.Helper()
	b, err := redisbroker.New(opt)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	err = b.Run(ctx, brokertest.NewRecorder())
	if err == nil {
		t.Fatal("Run returned nil, want an error that ends the start")
	}
	return err
}

func TestBroker_PermanentErrorsEndRun(t *testing.T) {
	const all = "+@all ~* &*"
	server := redistest.Start(t, "--requirepass", "secret-one")
	clustered := redistest.Start(t, "--cluster-enabled", "yes")
	admin := redistest.Start(t)
	for user, rules := range map[string]string{
		"nopub": all + " -publish", "nosub": all + " -subscribe", "noeval": all + " -evalsha", "noadd": all + " -xadd",
		"nokeys": "+@all ~other:* &*", "nochannels": "+@all ~* resetchannels &other:*",
	} {
		admin.Do(append([]string{"ACL", "SETUSER", user, "on", ">secret-two"}, strings.Fields(rules)...)...)
	}
	for name, c := range map[string]struct{ url, want string }{
		"wrong password": {"redis://:secret-wrong@" + server.Addr, "WRONGPASS"},
		"no password":    {"redis://" + server.Addr, "NOAUTH"},
		"no user":        {"redis://nobody:secret-two@" + admin.Addr, "WRONGPASS"},
		"cluster":        {"redis://" + clustered.Addr, "must begin with redis+cluster://"},
		"no cluster":     {"redis+cluster://" + admin.Addr, "must begin with redis://"},
		"database":       {"redis://" + admin.Addr + "/99", "DB index"},
		"publish":        {"redis://nopub:secret-two@" + admin.Addr, "publish"},
		"subscribe":      {"redis://nosub:secret-two@" + admin.Addr, "subscribe"},
		"evalsha":        {"redis://noeval:secret-two@" + admin.Addr, "evalsha"},
		"xadd":           {"redis://noadd:secret-two@" + admin.Addr, "xadd"},
		"keys":           {"redis://nokeys:secret-two@" + admin.Addr, "keys"},
		"channels":       {"redis://nochannels:secret-two@" + admin.Addr, "channels"},
	} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			err := runError(t, redisbroker.Options{URL: c.url, Logger: slog.New(slog.NewTextHandler(&log, nil))})
			if !strings.Contains(err.Error(), c.want) || errors.Is(err, broker.ErrUnavailable) {
				t.Errorf("Run returned %v, want it to name %q", err, c.want)
			}
			if all := err.Error() + log.String(); strings.Contains(all, "secret") || strings.Contains(all, "\n\n") {
				t.Errorf("a secret shows: %s", all)
			}
			t.Log(err)
		})
	}
}

// An error that ends the start does not end a node that was healthy once.
func TestBroker_RetriesAfterItWasConnected(t *testing.T) {
	server := redistest.Start(t)
	server.Do("ACL", "SETUSER", "shoal", "on", ">secret", "+@all", "~*", "&*")
	opt := options(server)
	opt.URL = "redis://shoal:secret@" + server.Addr
	n := join(t, opt)
	server.Do("ACL", "DELUSER", "shoal") // ends its connections
	redistest.Eventually(t, "Health says what is wrong", func() bool {
		err := n.Fault()
		return err != nil
	})
	if err := n.Publish(t.Context(), "upload:x", nil); !errors.Is(err, broker.ErrUnavailable) {
		t.Errorf("Publish returned %v, want ErrUnavailable", err)
	}
	server.Do("ACL", "SETUSER", "shoal", "on", ">secret", "+@all", "~*", "&*")
	redistest.Eventually(t, "the node is connected again", n.Healthy)
}
