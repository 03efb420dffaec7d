package redisbroker_test

import (
	"testing"
	"time"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/broker/brokertest"
	"github.com/shoal-go/shoal/broker/redisbroker"
	"github.com/shoal-go/shoal/broker/redisbroker/internal/redistest"
)

func TestSingleServerKeepsTheContract(t *testing.T) {
	keepTheContract(t, "redis://"+redistest.Start(t).Addr)
}

func TestClusterKeepsTheContract(t *testing.T) {
	keepTheContract(t, "redis+cluster://"+redistest.Cluster(t, 3, 0)[0].Addr)
}

// keepTheContract tries the suite that all brokers pass.
func keepTheContract(t *testing.T, url string) {
	const ttl = 500 * time.Millisecond
	node := func(ttl time.Duration) func(testing.TB) broker.Keeper {
		return func(t testing.TB) broker.Keeper {
			b, err := redisbroker.New(redisbroker.Options{URL: url, Messages: 64, TTL: ttl})
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
	}
	brokertest.Run(t, brokertest.Config{Node: node(time.Hour), Expiring: node(ttl), Messages: 64, TTL: ttl})
}
