package main

import (
	"context"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/shoal-go/shoal/examples/internal/try"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A message that is published on one node reaches the clients of the other.
func TestNodes(t *testing.T) {
	listeners := []net.Listener{try.Listen(t), try.Listen(t)}
	first, second := listeners[0].Addr().String(), listeners[1].Addr().String()
	try.Run(t, func(ctx context.Context) error { return run(ctx, listeners) })
	c := try.Dial(t, first+"/ws/uploads", try.As("ann"))
	c.Send(`{"action":"subscribe_upload","upload_id":"cat"}`)
	for m := c.Next(); m["action"] != "subscribed"; m = c.Next() {
		if m["code"] != "internal" { // the nodes are still connecting to the broker
			t.Fatalf("received %v", m)
		}
		<-time.After(10 * time.Millisecond)
		c.Send(`{"action":"subscribe_upload","upload_id":"cat"}`)
	}
	for status := 0; status != http.StatusAccepted; {
		request, err := http.NewRequest(http.MethodPost, "http://"+second+"/v1/uploads/cat/messages",
			strings.NewReader(`{"action":"note","text":"hello"}`))
		request.Header.Set("Authorization", "Bearer "+apiKey)
		request.Header.Set("Content-Type", "application/json")
		if status = try.Do(t, request, err); status != http.StatusAccepted && status != http.StatusServiceUnavailable {
			t.Fatalf("publishing: %d", status)
		}
	}
	if m := c.Want("note"); m["text"] != "hello" {
		t.Errorf("received %v", m)
	}
}
