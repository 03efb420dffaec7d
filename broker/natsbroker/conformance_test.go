package natsbroker_test

import (
	"testing"
	"time"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/broker/brokertest"
	"github.com/shoal-go/shoal/broker/natsbroker"
)

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
