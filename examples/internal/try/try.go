// Package try runs the examples for their tests, and is their client.
package try

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// patience bounds a test that would otherwise hang.
const patience = 30 * time.Second

// Listen returns a listener on a free port.
func Listen(t *testing.T) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// Run starts an example. stop, which is called at the end of the test at the latest, interrupts it and checks that it
// ends without an error.
func Run(t *testing.T, run func(ctx context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil && !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("the example ended with %v", err)
		}
		http.DefaultClient.CloseIdleConnections()
	})
	t.Cleanup(stop)
	return stop
}

// Client is a WebSocket client.
type Client struct {
	t    *testing.T
	conn *websocket.Conn
	ctx  context.Context // bounds the test
}

// Dial opens a WebSocket on shoal.v1.
func Dial(t *testing.T, address string, header http.Header) *Client {
	t.Helper()
	c, status := DialStatus(t, address, header)
	if c == nil {
		t.Fatalf("%s answered %d", address, status)
	}
	return c
}

// DialStatus is like Dial, and returns the status if the server refuses the upgrade.
func DialStatus(t *testing.T, address string, header http.Header) (c *Client, status int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	conn, answer, err := websocket.Dial(ctx, "ws://"+address, &websocket.DialOptions{
		HTTPHeader: header, Subprotocols: []string{"shoal.v1"},
	})
	if err != nil {
		if answer == nil {
			t.Fatal(err)
		}
		return nil, answer.StatusCode
	}
	t.Cleanup(func() { _ = conn.CloseNow() })
	return &Client{t, conn, ctx}, 0
}

// Send sends a message.
func (c *Client) Send(text string) {
	c.t.Helper()
	if err := c.conn.Write(c.ctx, websocket.MessageText, []byte(text)); err != nil {
		c.t.Fatal(err)
	}
}

// Next returns the next message that is not a ping.
func (c *Client) Next() map[string]any {
	c.t.Helper()
	for {
		_, text, err := c.conn.Read(c.ctx)
		if err != nil {
			c.t.Fatal(err)
		}
		var message map[string]any
		if err := json.Unmarshal(text, &message); err != nil {
			c.t.Fatalf("%s: %v", text, err)
		}
		if message["action"] != "ping" {
			return message
		}
	}
}

// Want reads messages until one with an action comes, and returns it.
func (c *Client) Want(action string) map[string]any {
	c.t.Helper()
	for {
		if message := c.Next(); message["action"] == action {
			return message
		}
	}
}

// WantClose reads until the connection is closed, which must be with a code.
func (c *Client) WantClose(code int) {
	c.t.Helper()
	for {
		if _, _, err := c.conn.Read(c.ctx); err != nil {
			if got := websocket.CloseStatus(err); int(got) != code {
				c.t.Errorf("closed with %v, want %d", err, code)
			}
			return
		}
	}
}

// Close ends the connection.
func (c *Client) Close() { _ = c.conn.CloseNow() }

// As returns the header of a user, for the examples that trust it.
func As(user string) http.Header { return http.Header{"X-User": {user}} }

// Subscribe follows an upload and waits for the acknowledgement.
func (c *Client) Subscribe(uploadID string) {
	c.t.Helper()
	c.Send(`{"action":"subscribe_upload","upload_id":"` + uploadID + `"}`)
	c.Want("subscribed")
}

// Do sends a request and returns its status.
func Do(t *testing.T, request *http.Request, err error) (status int) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	_ = answer.Body.Close()
	return answer.StatusCode
}
