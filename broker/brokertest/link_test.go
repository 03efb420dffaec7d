package brokertest_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/broker/brokertest"
)

// echo answers each line with itself, at the address that it returns, until the test ends.
func echo(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			})
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		running.Wait()
	})
	return listener.Addr().String()
}

// dial connects through a link.
func dial(t *testing.T, l *brokertest.Link) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", l.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// ask sends a line and returns the answer.
func ask(conn net.Conn, line string) (string, error) {
	if _, err := io.WriteString(conn, line+"\n"); err != nil {
		return "", err
	}
	answer, err := bufio.NewReader(conn).ReadString('\n')
	return strings.TrimSpace(answer), err
}

func TestLink_CutAndRestored(t *testing.T) {
	l := brokertest.NewLink(t, echo(t))
	conn := dial(t, l)
	if answer, err := ask(conn, "hello"); answer != "hello" {
		t.Fatalf("a good link answered %q, %v", answer, err)
	}
	l.Cut()
	if answer, err := ask(conn, "hello"); err == nil {
		t.Errorf("a connection over a cut link answered %q", answer)
	}
	if refused, err := net.Dial("tcp", l.Addr()); err == nil {
		_ = refused.Close()
		t.Error("a cut link accepted a connection")
	}
	l.Mend()
	if answer, err := ask(dial(t, l), "hello"); answer != "hello" {
		t.Errorf("a mended link answered %q, %v", answer, err)
	}
}

func TestLink_SilencedAndRestored(t *testing.T) {
	l := brokertest.NewLink(t, echo(t))
	conn := dial(t, l)
	if answer, err := ask(conn, "hello"); answer != "hello" {
		t.Fatalf("a good link answered %q, %v", answer, err)
	}
	l.Silence()
	_ = conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if answer, err := ask(conn, "hello"); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a silent link answered %q, %v, want it to let the reader wait", answer, err)
	}
	l.Mend()
	if answer, err := ask(dial(t, l), "hello"); answer != "hello" {
		t.Errorf("a mended link answered %q, %v", answer, err)
	}
}

func TestLink_Slowed(t *testing.T) {
	const latency = 40 * time.Millisecond
	l := brokertest.NewLink(t, echo(t))
	conn := dial(t, l)
	l.Slow(latency, 0)
	l.Limit(1_000_000)
	began := time.Now()
	if answer, err := ask(conn, "hello"); answer != "hello" {
		t.Fatalf("a slow link answered %q, %v", answer, err)
	}
	if took := time.Since(began); took < 2*latency {
		t.Errorf("there and back took %v, want twice %v at least", took, latency)
	}
	l.Mend()
	if answer, err := ask(conn, "hello"); answer != "hello" {
		t.Errorf("a connection over a slow link answered %q, %v once that was mended", answer, err)
	}
}

// listenAt is the environment variable that makes a process of these tests an engine.
const listenAt = "BROKERTEST_LISTEN_AT"

// serve is an engine: it greets each connection with a variable of its environment, until it is killed.
func serve(addr string) error {
	listener, err := net.Listen("tcp", addr)
	for err == nil {
		var conn net.Conn
		if conn, err = listener.Accept(); err == nil {
			_, _ = conn.Write([]byte(os.Getenv("GREETING")))
			_ = conn.Close()
		}
	}
	return err
}

// TestMain runs the tests, or the engine that one of them has started.
func TestMain(m *testing.M) {
	if addr := os.Getenv(listenAt); addr != "" {
		fmt.Fprintln(os.Stderr, serve(addr))
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, brokertest.LeftByLinks()...)
}

func TestMemory(t *testing.T) {
	const ttl = 500 * time.Millisecond
	lasting := broker.NewMemory(broker.MemoryOptions{TTL: time.Hour})
	expiring := broker.NewMemory(broker.MemoryOptions{TTL: ttl})
	brokertest.Run(t, brokertest.Config{
		Node:     func(testing.TB) broker.HistoryBroker { return lasting.Node() },
		Expiring: func(testing.TB) broker.HistoryBroker { return expiring.Node() },
		Messages: 64,
		TTL:      ttl,
	})
}
