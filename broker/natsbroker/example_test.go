package natsbroker_test

import (
	"context"
	"fmt"
	"log"

	"github.com/shoal-go/shoal/broker/natsbroker"
	"github.com/shoal-go/shoal/broker/natsbroker/embedded"
	"github.com/shoal-go/shoal/manager"
)

// Nodes of a service share messages through a NATS server, here one within the process. Options.URL names another.
func ExampleNew() {
	nats, err := embedded.Start(embedded.Options{})
	if err != nil {
		log.Fatal(err)
	}
	b, err := natsbroker.New(natsbroker.Options{Server: nats})
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
	newest, _, err := m.Newest(ctx, "upload-1")
	fmt.Println(string(newest.Payload), err)
	if err := m.Close(ctx); err != nil {
		log.Fatal(err)
	}
	if err := nats.Close(); err != nil {
		log.Fatal(err)
	}
	// Output: {"action":"note","text":"to the followers on all nodes"} <nil>
}
