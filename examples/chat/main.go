// Command chat is a chat: rooms are uploads, and all messages are the application's own.
//
//	go run ./examples/chat -addr 127.0.0.1:8080
//	curl -N -H "X-User: ann" http://127.0.0.1:8080/events/uploads/kitchen
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"log"
	"math"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"sync"
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
		log.Printf("chat: http://%s", ln.Addr())
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

// chat publishes the messages of clients, and who is in a room.
type chat struct {
	manager *manager.Manager
	mu      sync.Mutex          // protects rooms
	rooms   map[string][]string // that a user has joined and not left
}

// run serves until ctx ends.
func run(ctx context.Context, ln net.Listener) error {
	m, err := manager.New(manager.Options{})
	if err != nil {
		return err
	}
	c := &chat{manager: m, rooms: map[string][]string{}}
	s, err := server.New(server.Options{
		Manager:   m,
		Identify:  identify,
		Authorize: server.AuthorizeOpen,
		OnMessage: c.onMessage,
		OnSubscribe: func(client *server.Client, room server.Subscription) {
			if !room.UserFollows {
				c.join(client.UserID(), room.UploadID)
			}
		},
		// The claim of a connection that ends passes to the user while another connection is left. Then it belongs to no
		// connection, and ends without OnUnsubscribe, so OnDisconnect looks too.
		OnUnsubscribe: func(client *server.Client, _ server.Subscription) { c.leave(client.UserID()) },
		OnDisconnect:  func(client *server.Client, _ manager.CloseReason) { c.leave(client.UserID()) },
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

// join tells a room of a user who is new there.
func (c *chat) join(user, room string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !slices.Contains(c.rooms[user], room) {
		c.rooms[user] = append(c.rooms[user], room)
		c.publish(context.Background(), room, "joined", presence{user})
	}
}

// leave tells the rooms that a user no longer follows.
func (c *chat) leave(user string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	followed, _ := c.manager.UserUploads(user, math.MaxInt)
	c.rooms[user] = slices.DeleteFunc(c.rooms[user], func(room string) bool {
		left := !slices.Contains(followed, room)
		if left {
			c.publish(context.Background(), room, "left", presence{user})
		}
		return left
	})
	if len(c.rooms[user]) == 0 {
		delete(c.rooms, user)
	}
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
