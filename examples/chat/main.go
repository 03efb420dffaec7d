// Command chat is a chat: rooms are uploads, and all messages are the application's own.
//
//	go run ./examples/chat -addr 127.0.0.1:8080
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:8080", "address to listen on")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ln, err := net.Listen("tcp", *addr)
	if err == nil {
		err = run(ctx, ln)
	}
	if err != nil {
		log.Fatal("chat: ", err)
	}
}

// say is a message of a client: {"action":"say","room":"…","text":"…"}.
type say struct {
	Action string `json:"action"`
	Room   string `json:"room"`
	Text   string `json:"text"`
}

// said is the message that all clients in the room get.
type said struct {
	From string `json:"from"`
	Text string `json:"text"`
}

// presence tells a room that a user came or left.
type presence struct {
	User string `json:"user"`
}

// chat publishes the messages of clients.
type chat struct{ manager *manager.Manager }

// run serves until ctx ends.
func run(ctx context.Context, ln net.Listener) error {
	m, err := manager.New(manager.Options{})
	if err != nil {
		return err
	}
	c := &chat{m}
	s, err := server.New(server.Options{
		Manager:   m,
		Identify:  identify,
		Authorize: server.AuthorizeOpen,
		OnMessage: c.onMessage,
		OnSubscribe: func(client *server.Client, room server.Subscription) {
			if !room.UserFollows {
				c.publish(client.Context(), room.UploadID, "joined", presence{client.UserID()})
			}
		},
		OnUnsubscribe: func(client *server.Client, room server.Subscription) {
			if !room.UserFollows { // the connection may have ended, and its context with it
				c.publish(context.Background(), room.UploadID, "left", presence{client.UserID()})
			}
		},
	})
	if err != nil {
		return errors.Join(err, m.Close(context.Background()))
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(ln) }() // an HTTP server with limits for public networks
	select {
	case err = <-served:
	case <-ctx.Done():
	}
	closing, cancel := context.WithTimeout(context.Background(), 8*time.Second)
	defer cancel()
	return errors.Join(err, s.Close(closing), m.Close(closing))
}

// identify trusts a header, which a proxy that authenticates users has to set.
func identify(r *http.Request) (server.Identity, error) {
	user := r.Header.Get("X-User")
	if user == "" {
		return server.Identity{}, &server.TokenError{Message: "not logged in"}
	}
	return server.Identity{UserID: user}, nil
}

// maxText bounds one message of a user.
const maxText = 2000

// onMessage handles the messages of a client. It reports false for one that it does not know.
func (c *chat) onMessage(client *server.Client, incoming server.Incoming) bool {
	var message say
	if !incoming.Text || json.Unmarshal(incoming.Data, &message) != nil || message.Action != "say" {
		return false
	}
	if utf8.RuneCountInString(message.Text) > maxText {
		client.SendText([]byte(`{"action":"refused","message":"too long"}`))
		return true
	}
	c.publish(client.Context(), message.Room, "said", said{client.UserID(), message.Text})
	return true
}

// publish sends a message of the application to all clients that follow a room.
func (c *chat) publish(ctx context.Context, room, action string, message any) {
	event, err := manager.NewEvent(action, message)
	if err == nil {
		_, err = c.manager.Publish(ctx, room, event)
	}
	if err != nil && !errors.Is(err, manager.ErrClosed) {
		log.Print("chat: ", err)
	}
}
