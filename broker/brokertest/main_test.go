package brokertest_test

import (
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/broker/brokertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMemory(t *testing.T) {
	const ttl = 500 * time.Millisecond
	lasting := broker.NewMemory(broker.MemoryOptions{TTL: time.Hour})
	expiring := broker.NewMemory(broker.MemoryOptions{TTL: ttl})
	brokertest.Run(t, brokertest.Config{
		Node:     func(testing.TB) broker.Keeper { return lasting.Node() },
		Expiring: func(testing.TB) broker.Keeper { return expiring.Node() },
		Messages: 64,
		TTL:      ttl,
	})
}
