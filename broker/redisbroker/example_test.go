package redisbroker_test

import (
	"context"
	"log"

	"github.com/shoal-go/shoal/broker/redisbroker"
	"github.com/shoal-go/shoal/manager"
)

// Nodes of a service share messages through a Redis server, which also stores the histories.
func ExampleNew() {
	b, err := redisbroker.New(redisbroker.Options{URL: "redis://127.0.0.1:6379"})
	if err != nil {
		log.Fatal(err)
	}
	m, err := manager.New(manager.Options{Broker: b, NodeName: "node-1"})
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	if err := m.WaitReady(ctx); err != nil {
		log.Fatal(err)
	}
	event, err := manager.NewEvent("note", map[string]string{"text": "to the followers on all nodes"})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := m.Publish(ctx, "upload-1", event); err != nil {
		log.Fatal(err)
	}
	if err := m.Close(ctx); err != nil {
		log.Fatal(err)
	}
}
