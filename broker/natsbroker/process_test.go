//go:build unix

package natsbroker_test

import (
	"net"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/broker/brokertest"
	"github.com/shoal-go/shoal/broker/natsbroker"
)

// TestFaults lets a server that is a process of its own, and the ways to it, fail in the middle of traffic.
func TestFaults(t *testing.T) {
	const messages = 64
	brokertest.Faults(t, brokertest.FaultConfig{
		Engine: serverProcess,
		Node: func(t testing.TB, addr string) broker.HistoryBroker {
			return newBroker(t, natsbroker.Options{
				URL: "nats://" + addr, Messages: messages, TTL: time.Hour, File: true,
				ProbeInterval: 200 * time.Millisecond, ConnectTimeout: 500 * time.Millisecond,
			})
		},
		Messages: messages,
		Durable:  true,
	})
}

// serverProcess starts a server as a process of its own, which keeps messages in files.
func serverProcess(t testing.TB) brokertest.Engine {
	t.Helper()
	addr := brokertest.FreeAddr(t)
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	folder := ""
	return brokertest.StartProcess(t, addr, func(keep bool) *exec.Cmd {
		if !keep {
			folder = t.TempDir()
		}
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), serverPort+"="+port, serverFolder+"="+folder)
		return cmd
	})
}
