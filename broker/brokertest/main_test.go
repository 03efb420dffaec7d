package brokertest_test

import (
	"fmt"
	"net"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/broker/brokertest"
)

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
