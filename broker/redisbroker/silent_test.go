package redisbroker_test

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/shoal-go/shoal/broker/redisbroker"
	"github.com/shoal-go/shoal/broker/redisbroker/internal/redistest"
	"github.com/shoal-go/shoal/internal/testlog"
)

// silencer is a proxy between a broker and a server. While it is silent, no message comes through on a connection
// with subscriptions, although that answers every command, and other connections work.
type silencer struct {
	net.Listener
	server string
	silent atomic.Bool
	// answers delays the answers on connections without subscriptions while it is locked.
	answers sync.RWMutex
	all     sync.WaitGroup
}

func newSilencer(t *testing.T, server string) *silencer {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := &silencer{Listener: listener, server: server}
	m.all.Go(m.accept)
	t.Cleanup(func() {
		_ = m.Close()
		m.all.Wait()
	})
	return m
}

func (m *silencer) accept() {
	for {
		client, err := m.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", m.server)
		if err != nil {
			_ = client.Close()
			continue
		}
		var subscribed atomic.Bool
		m.all.Go(func() {
			pipe(server, client, func(said []byte) bool {
				if bytes.Contains(said, []byte("SUBSCRIBE")) {
					subscribed.Store(true)
				}
				return true
			})
		})
		m.all.Go(func() {
			pipe(client, server, func(said []byte) bool {
				if !subscribed.Load() {
					m.answers.RLock()
					defer m.answers.RUnlock()
					return true
				}
				return !m.silent.Load() || !bytes.Contains(said, []byte("message"))
			})
		})
	}
}

// pipe copies bytes from one connection to another, except for filtered ones, until either is gone.
func pipe(to, from net.Conn, pass func([]byte) bool) {
	defer to.Close()
	defer from.Close()
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		if pass(buffer[:n]) {
			if _, err := io.Copy(to, bytes.NewReader(buffer[:n])); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// joinBehind runs a node that reaches a server through a silencer, and subscribes an upload.
func joinBehind(t *testing.T, server *redistest.Server) (*node, *silencer) {
	t.Helper()
	between := newSilencer(t, server.Addr)
	opt := options(server)
	opt.URL = "redis://" + between.Addr().String()
	n := join(t, opt)
	subscribe(t, n, "upload:x")
	return n, between
}

// A subscription connection that receives nothing, while everything else works, is detected and replaced.
func TestBroker_SilentSubscriptionIsUnhealthy(t *testing.T) {
	server := redistest.Start(t)
	n, between := joinBehind(t, server)
	between.silent.Store(true)
	redistest.Eventually(t, "the node is unhealthy", func() bool {
		err := n.Fault()
		return err != nil
	})
	between.silent.Store(false)
	awaitReconnect(t, n, 0)
	store(t, n, "upload:x", "one")
	redistest.Eventually(t, "the subscription is restored", func() bool { return n.last("upload:x") == "one" })
	n.stop()
}

// TestBroker_UnansweredCommandsAreUnhealthy: a node whose commands are not answered in time, such as over a congested
// network, is not healthy although messages arrive, and keeps its subscriptions.
func TestBroker_UnansweredCommandsAreUnhealthy(t *testing.T) {
	server := redistest.Start(t)
	n, between := joinBehind(t, server)
	before := n.Interruptions()
	between.answers.Lock()
	release := sync.OnceFunc(between.answers.Unlock)
	t.Cleanup(release)
	n.Await(t, "bad health that names the reason", func() bool {
		return n.Fault() != nil && strings.Contains(n.Fault().Error(), "no answer in time")
	})
	store(t, join(t, options(server)), "upload:x", "one")
	n.Await(t, "the message", func() bool { return n.last("upload:x") == "one" })
	release()
	n.Await(t, "good health", n.Healthy)
	if after := n.Interruptions(); len(after) != len(before) {
		t.Errorf("the interruptions are %v, were %v", after, before)
	}
}

// TestBroker_ServerThatWantsTLSIsExplained: a server that closes connections without TLS is a fault with the remedy. It
// is logged once although the ports of the connections differ.
func TestBroker_ServerThatWantsTLSIsExplained(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var attempts atomic.Int64
	var accepting sync.WaitGroup
	accepting.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Read(make([]byte, 1)) // the rest is unread, so that the close is a reset
			_ = conn.Close()
			attempts.Add(1)
		}
	})
	defer accepting.Wait()
	defer listener.Close()
	var log testlog.Buffer
	n := start(t, redisbroker.Options{
		URL: "redis://" + listener.Addr().String(), Logger: slog.New(slog.NewTextHandler(&log, nil)),
	})
	redistest.Eventually(t, "several attempts", func() bool { return attempts.Load() > 5 })
	if err := n.Fault(); err == nil || !strings.Contains(err.Error(), "begin Options.URL with rediss") {
		t.Errorf("the fault is %v, want it to name the remedy", err)
	}
	n.stop()
	const most = 3 // a closed connection shows as its end, its reset or a broken pipe
	if count := log.Count("not connected"); count > most {
		t.Errorf("the fault was logged %d times in %d attempts, want once", count, attempts.Load())
	}
}
