package natsbroker_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"go.uber.org/goleak"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/broker/brokertest"
	"github.com/shoal-go/shoal/broker/natsbroker"
)

// Environment variables that make a process of these tests a server, which keeps its messages in a folder, or is set up
// by a file that it reads again at SIGHUP.
const (
	serverPort   = "NATSBROKER_SERVER_PORT"
	serverFolder = "NATSBROKER_SERVER_FOLDER"
	serverConfig = "NATSBROKER_SERVER_CONFIG"
)

// TestMain runs the tests, or the server that one of them has started.
func TestMain(m *testing.M) {
	if port := os.Getenv(serverPort); port != "" {
		fmt.Fprintln(os.Stderr, serveUntilKilled(port, os.Getenv(serverFolder)))
		os.Exit(1)
	}
	if file := os.Getenv(serverConfig); file != "" {
		fmt.Fprintln(os.Stderr, serveConfigured(file))
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, brokertest.LeftByLinks()...)
}

// serveUntilKilled runs a server. As it is alone, it tells its clients of no address beside the one they came by.
func serveUntilKilled(port, folder string) error {
	opt := &server.Options{Host: "127.0.0.1", NoLog: true, NoSigs: true, JetStream: true, StoreDir: folder}
	if _, err := fmt.Sscan(port, &opt.Port); err != nil {
		return err
	}
	return serveWith(opt)
}

// serveConfigured runs the server of a file.
func serveConfigured(file string) error {
	opt, err := server.ProcessConfigFile(file)
	if err != nil {
		return err
	}
	return serveWith(opt)
}

func serveWith(opt *server.Options) error {
	s, err := server.NewServer(opt)
	if err != nil {
		return err
	}
	s.Start()
	s.WaitForShutdown()
	return server.ErrServerNotRunning
}

func TestConformance(t *testing.T) {
	lasting, expiring := serve(t), serve(t)
	const messages, ttl = 16, 500 * time.Millisecond
	brokertest.Run(t, brokertest.Config{
		Node: func(t testing.TB) broker.HistoryBroker {
			return newBroker(t, natsbroker.Options{URL: lasting.ClientURL(), Messages: messages, TTL: time.Hour})
		},
		Expiring: func(t testing.TB) broker.HistoryBroker {
			return newBroker(t, natsbroker.Options{URL: expiring.ClientURL(), Messages: messages, TTL: ttl})
		},
		Messages: messages,
		TTL:      ttl,
	})
}

func newBroker(t testing.TB, opt natsbroker.Options) *natsbroker.Broker {
	t.Helper()
	b, err := natsbroker.New(opt)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
