package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http/httptest"

	"github.com/shoal-go/shoal/client"
	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"
)

// exampleServer starts a server that takes any token for the name of a user.
func exampleServer() (url string, stop func()) {
	m, err := manager.New(manager.Options{})
	if err != nil {
		log.Fatal(err)
	}
	s, err := server.New(server.Options{
		Manager: m,
		Authenticate: func(_ context.Context, token string) (server.Identity, error) {
			return server.Identity{UserID: token}, nil
		},
		Authorize: server.AuthorizeOpen,
		APIKeys:   []string{"api-key"},
	})
	if err != nil {
		log.Fatal(err)
	}
	web := httptest.NewServer(s.Handler())
	return web.URL, func() {
		_ = errors.Join(s.Close(context.Background()), m.Close(context.Background()))
		web.Close()
	}
}

// A program that follows an upload until it has ended.
func ExampleClient_Follow() {
	url, stop := exampleServer()
	defer stop()
	ctx := context.Background()

	c, err := client.New(url, client.Options{
		Token:  func(context.Context) (string, error) { return "ann", nil },
		APIKey: "api-key",
	})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	publish := func(message string) {
		if _, err := c.Publish(ctx, "upload-1", []byte(message)); err != nil {
			log.Fatal(err)
		}
	}
	publish(`{"action":"upload_progress","payload":{"status":"analyzing","stage":"vision_analysis","progress_percent":40,"message":"Looking"}}`)

	for m, err := range c.Follow(ctx, "upload-1") {
		var gap *client.GapError
		switch {
		case errors.As(err, &gap):
			continue // the newest message is next
		case err != nil:
			log.Fatal(err)
		}
		if p, ok := m.Progress(); ok {
			fmt.Printf("%s: %v%%\n", p.Stage, p.Percent)
			publish(`{"action":"upload_completed","description":"A cat","audit_score":97}`)
		}
		if o, ok := m.Outcome(); ok {
			fmt.Printf("%s (%v)\n", o.Description, o.AuditScore)
			break
		}
	}
	// Output:
	// vision_analysis: 40%
	// A cat (97)
}

// A program that publishes messages of its own kind.
func ExampleClient_Publish() {
	url, stop := exampleServer()
	defer stop()

	c, err := client.New(url, client.Options{APIKey: "api-key"})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	type line struct {
		Action string `json:"action"`
		Text   string `json:"text"`
	}
	at, err := c.Publish(context.Background(), "build-7", line{"build_log", "go build ./..."}, line{"build_log", "ok"})
	fmt.Println(at.Offset, err)

	_, err = c.Publish(context.Background(), "build-7", line{"", "forgotten"})
	var refused *client.APIError
	if errors.As(err, &refused) {
		fmt.Println(refused.Status, refused.Field, refused.Line)
	}
	// Output:
	// 2 <nil>
	// 400 action 1
}
