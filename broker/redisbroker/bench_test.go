package redisbroker_test

import (
	"bytes"
	"context"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/broker/redisbroker"
	"github.com/shoal-go/shoal/broker/redisbroker/internal/redistest"
)

// counter is a Handler that counts.
type counter struct{ received atomic.Int64 }

func (c *counter) Receive(broker.Message) { c.received.Add(1) }
func (c *counter) Interrupted(...string)  {}
func (c *counter) Health(error)           {}

// BenchmarkStore stores on one node and receives on another, from many goroutines.
func BenchmarkStore(b *testing.B) {
	benchmark(b, func(ctx context.Context, n *redisbroker.Broker, payload []byte) error {
		_, err := n.Store(ctx, "upload:x", payload)
		return err
	})
}

// BenchmarkPublish is BenchmarkStore for messages that are not kept.
func BenchmarkPublish(b *testing.B) {
	benchmark(b, func(ctx context.Context, n *redisbroker.Broker, payload []byte) error {
		return n.Publish(ctx, "upload:x", payload)
	})
}

func benchmark(b *testing.B, say func(context.Context, *redisbroker.Broker, []byte) error) {
	server := redistest.Start(b)
	sender, receiver := join(b, options(server)), new(counter)
	listener, err := redisbroker.New(options(server))
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = listener.Run(ctx, receiver) })
	defer running.Wait()
	defer cancel()
	redistest.Eventually(b, "the listener has subscribed", func() bool {
		return listener.Subscribe(ctx, "upload:x") == nil
	})
	payload := bytes.Repeat([]byte("x"), 256)
	b.ReportAllocs()
	b.SetParallelism(32)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := say(ctx, sender.Broker, payload); err != nil {
				b.Error(err)
			}
		}
	})
	redistest.Eventually(b, "all has come", func() bool { return receiver.received.Load() == int64(b.N) })
}
