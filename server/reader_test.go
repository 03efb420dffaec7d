package server_test

import (
	"context"
	"fmt"
	"net"
	"sync"
	"testing"

	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"
)

// A client may stop anywhere in a message, while others come and go between its pieces.
func TestReader_MessagesInPieces(t *testing.T) {
	n := start(t)
	other := n.raw(t, v1Header())
	other.enter("other")
	chat := func() {
		t.Helper()
		other.write(0x81, `{"action":"x"}`)
		other.want(unknownAnswer)
	}
	message := `{"action":"no action that is known"}`
	t.Run("frames", func(t *testing.T) {
		c := n.raw(t, v1Header())
		c.enter("u")
		c.write(0x01, message[:5])
		for at := 5; at < 15; at++ {
			c.write(0x89, "are you there?")
			if first, payload := c.read(); first != 0x8A || payload != "are you there?" {
				t.Fatalf("got %#x %q, want a pong", first, payload)
			}
			chat()
			c.write(0x00, message[at:at+1])
		}
		c.write(0x80, message[15:])
		c.want(unknownAnswer)
	})
	t.Run("bytes", func(t *testing.T) {
		c := n.raw(t, v1Header())
		c.enter("u")
		frame := append([]byte{0x81, 0x80 | byte(len(message)), 0, 0, 0, 0}, message...)
		for i := range frame {
			if _, err := c.conn.Write(frame[i : i+1]); err != nil {
				t.Fatal(err)
			}
			chat()
		}
		c.want(unknownAnswer)
	})
}

// Clients whose messages are being handled for long keep nobody else waiting, however many they are.
func TestReaderPool_SlowHooksDelayNoOtherClient(t *testing.T) {
	release := make(chan struct{})
	slow := func(_ context.Context, _ server.Identity, uploadID string) error {
		if uploadID == "slow" {
			<-release
		}
		return nil
	}
	n := start(t, func(_ *manager.Options, o *server.Options) { o.Authorize = slow })
	const many = 50
	for i := range many {
		c := n.login(fmt.Sprintf("u%d", i), "shoal.v1")
		c.send(`{"action":"subscribe_upload","upload_id":"slow"}`)
	}
	c := n.login("quick", "shoal.v1")
	c.send(`{"action":"subscribe_upload","upload_id":"quick"}`)
	if got := c.object()["action"]; got != "subscribed" {
		t.Errorf("got %v, want subscribed", got)
	}
	close(release)
	waitFor(t, func() bool { return len(n.manager.UploadSubscriberIDs("slow")) == many })
}

// The last messages of a client are handled and its end is noticed, also when both arrive together.
func TestReaderPool_LastMessagesOfManyClients(t *testing.T) {
	var mu sync.Mutex
	heard := 0
	n := start(t, func(_ *manager.Options, o *server.Options) {
		o.OnMessage = func(*server.Client, server.Incoming) bool {
			mu.Lock()
			defer mu.Unlock()
			heard++
			return true
		}
	})
	const many = 200
	for range many {
		c := n.raw(t, "")
		c.enter("u")
		c.write(0x81, `{"action":"last words"}`)
		if err := c.conn.(*net.TCPConn).CloseWrite(); err != nil { // start listens on TCP
			t.Fatal(err)
		}
	}
	waitFor(t, func() bool { return n.server.Stats().Open == 0 })
	mu.Lock()
	defer mu.Unlock()
	if heard != many {
		t.Errorf("%d of %d last words were heard", heard, many)
	}
}

// Connections that are cut off by the server, while nothing comes from their clients, end as well.
func TestReaderPool_SilentConnectionsThatAreCutOff(t *testing.T) {
	var mu sync.Mutex
	var clients []*server.Client
	n := start(t, func(_ *manager.Options, o *server.Options) {
		o.OnConnect = func(c *server.Client) {
			mu.Lock()
			defer mu.Unlock()
			clients = append(clients, c)
		}
	})
	const many = 20
	for range many {
		n.raw(t, "").enter("u")
	}
	waitFor(t, func() bool { // a client is greeted before it is said to be connected
		mu.Lock()
		defer mu.Unlock()
		return len(clients) == many
	})
	for _, c := range clients {
		c.Abort()
	}
	waitFor(t, func() bool { return n.server.Stats().Open == 0 })
}
