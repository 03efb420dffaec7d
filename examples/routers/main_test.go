package main

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/shoal-go/shoal/examples/internal/try"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Every router upgrades, publishes through the API and drains.
func TestRouters(t *testing.T) {
	for name := range routers {
		t.Run(name, func(t *testing.T) {
			ln := try.Listen(t)
			stop := try.Run(t, func(ctx context.Context) error { return run(ctx, ln, name) })
			host := ln.Addr().String()
			c := try.Dial(t, host+"/rt/live", try.As("ann"))
			c.Subscribe("cat")
			request, err := http.NewRequest(http.MethodPost, "http://"+host+"/rt/v1/uploads/cat/messages",
				strings.NewReader(`{"action":"note","text":"hello"}`))
			request.Header.Set("Authorization", "Bearer "+apiKey)
			request.Header.Set("Content-Type", "application/json")
			if status := try.Do(t, request, err); status != http.StatusAccepted {
				t.Fatalf("publishing: %d", status)
			}
			if m := c.Want("note"); m["text"] != "hello" {
				t.Errorf("received %v", m)
			}
			go stop()
			c.WantClose(1012)
		})
	}
}
