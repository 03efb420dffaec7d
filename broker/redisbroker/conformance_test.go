package redisbroker_test

import (
	"log/slog"
	"os/exec"
	"testing"
	"time"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/broker/brokertest"
	"github.com/shoal-go/shoal/broker/redisbroker"
	"github.com/shoal-go/shoal/broker/redisbroker/internal/redistest"
)

func TestConformance_SingleServer(t *testing.T) {
	conformance(t, "redis://"+redistest.Start(t).Addr)
}

func TestConformance_Cluster(t *testing.T) {
	conformance(t, "redis+cluster://"+redistest.Cluster(t, 3, 0)[0].Addr)
}

// conformance tries the suite that all brokers pass.
func conformance(t *testing.T, url string) {
	const ttl = 500 * time.Millisecond
	node := func(ttl time.Duration) func(testing.TB) broker.HistoryBroker {
		return func(t testing.TB) broker.HistoryBroker {
			b, err := redisbroker.New(redisbroker.Options{URL: url, Messages: 64, TTL: ttl})
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
	}
	brokertest.Run(t, brokertest.Config{Node: node(time.Hour), Expiring: node(ttl), Messages: 64, TTL: ttl})
}

// A server that restarts with all its data continues with them in a new epoch, as it cannot be distinguished from a server
// that restarts with a part of them.
func TestFaults_SingleServer(t *testing.T) {
	const messages = 64
	brokertest.Faults(t, brokertest.FaultConfig{
		Engine: func(t testing.TB) brokertest.Engine {
			addr, dir := brokertest.FreeAddr(t), ""
			return brokertest.StartProcess(t, addr, func(keep bool) *exec.Cmd {
				if !keep {
					dir = t.TempDir()
				}
				return redistest.Command(t, addr, dir, "--appendonly", "yes")
			})
		},
		Node: func(t testing.TB, addr string) broker.HistoryBroker {
			b, err := redisbroker.New(redisbroker.Options{
				URL: "redis://" + addr, Messages: messages, TTL: time.Hour,
				ProbeInterval: 200 * time.Millisecond, Timeout: time.Second, Logger: slog.New(slog.DiscardHandler),
			})
			if err != nil {
				t.Fatal(err)
			}
			return b
		},
		Messages: messages,
		Durable:  true,
		Renews:   true,
	})
}
