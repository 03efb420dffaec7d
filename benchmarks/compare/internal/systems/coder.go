package systems

import (
	"context"
	"net/http"
	"time"

	"github.com/coder/websocket"
)

// coderSystem is coder/websocket in the form of its chat example: the handler's goroutine writes messages from a Go
// channel, CloseRead handles the client's messages. The settings:
//
//   - 256 messages in the channel, so that a burst fits in (the example has 16); a connection whose channel is full is
//     closed, as in the example;
//   - 5 seconds for a write, as in the example;
//   - no compression, the default.
//
// The library has no encoded message that several connections could share: each write frames it again.
type coderSystem struct{ hub[*coderClient] }

type coderClient struct {
	conn   *websocket.Conn
	send   chan []byte
	cutOff context.CancelFunc // ends the connection
}

func newCoder() (System, error) {
	s := &coderSystem{}
	s.serve = func(w http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			return // it has been answered
		}
		defer conn.CloseNow() //nolint:errcheck // the connection ends either way
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		c := &coderClient{conn, make(chan []byte, 256), cancel}
		defer s.leave(c)
		if s.talk(ctx, c) != nil {
			return
		}
		ctx = conn.CloseRead(ctx)
		for err == nil && ctx.Err() == nil {
			select {
			case payload := <-c.send:
				err = c.write(ctx, payload)
			case <-ctx.Done():
			}
		}
	}
	s.deliver = func(to []*coderClient, payload []byte) error {
		for _, c := range to {
			select {
			case c.send <- payload:
			default:
				c.cutOff()
			}
		}
		return nil
	}
	return s, nil
}

// talk has the conversation with a client until it has subscribed.
func (s *coderSystem) talk(ctx context.Context, c *coderClient) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		_, data, err := c.conn.Read(ctx)
		if err != nil {
			return err
		}
		reply, subscribed, err := s.answer(c, data)
		if err == nil {
			err = c.write(ctx, reply)
		}
		if err != nil || subscribed {
			return err
		}
	}
}

// write writes one message.
func (c *coderClient) write(ctx context.Context, payload []byte) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return c.conn.Write(ctx, websocket.MessageText, payload)
}
