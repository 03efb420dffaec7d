package systems

import (
	"context"
	"net/http"
	"time"

	"github.com/coder/websocket"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/message"
)

// coderSystem is coder/websocket in the form of its chat example: the handler's goroutine writes messages from a Go
// channel, CloseRead handles the client's messages. The settings:
//
//   - 256 messages in the channel, so that a burst fits in (the example has 16); a connection whose channel is
//     full is closed, as in the example;
//   - 5 seconds for a write, as in the example;
//   - no compression, the default.
//
// The library has no encoded message that several connections could share: each write frames it again.
type coderSystem struct {
	*topics[*coderClient]
	*goroutines
}

type coderClient struct {
	conn *websocket.Conn
	send chan []byte
	// cutOff ends the connection.
	cutOff context.CancelFunc
}

const (
	coderQueue     = 256
	coderWriteTime = 5 * time.Second
	talkTime       = 30 * time.Second
)

func coderEntry() Entry {
	return Entry{
		Name:    "coder",
		Kind:    Peer,
		Module:  "github.com/coder/websocket",
		About:   "coder/websocket, a channel and a writing goroutine per connection",
		New:     func() (System, error) { return &coderSystem{newTopics[*coderClient](), newGoroutines()}, nil },
		Dialect: plain,
	}
}

func (s *coderSystem) Handler() http.Handler {
	return s.goroutines.handler(func(w http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			return // it has been answered
		}
		defer conn.CloseNow() //nolint:errcheck // the connection ends either way
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		c := &coderClient{conn, make(chan []byte, coderQueue), cancel}
		channel, err := s.talk(ctx, c)
		defer s.topics.leave(channel, c)
		if err == nil {
			c.write(conn.CloseRead(ctx))
		}
	})
}

// talk has the conversation with a client until it has subscribed.
func (s *coderSystem) talk(ctx context.Context, c *coderClient) (channel string, err error) {
	ctx, cancel := context.WithTimeout(ctx, talkTime)
	defer cancel()
	for channel == "" {
		_, data, err := c.conn.Read(ctx)
		if err != nil {
			return "", err
		}
		var reply []byte
		if reply, channel, err = answer(data); err != nil {
			return "", err
		}
		c.send <- reply // there is room
		if channel == "" {
			continue
		}
		s.topics.join(channel, c)
	}
	return channel, nil
}

// write writes queued messages until the connection ends.
func (c *coderClient) write(ctx context.Context) {
	for {
		select {
		case payload := <-c.send:
			if c.writeOne(ctx, payload) != nil {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

func (c *coderClient) writeOne(ctx context.Context, payload []byte) error {
	ctx, cancel := context.WithTimeout(ctx, coderWriteTime)
	defer cancel()
	return c.conn.Write(ctx, websocket.MessageText, payload)
}

func (s *coderSystem) Publish(messages []message.Message) error {
	return Each(messages, func(m message.Message) error {
		payload := m.JSON()
		s.topics.with(m.Channel, func(followers []*coderClient) {
			for _, c := range followers {
				select {
				case c.send <- payload:
				default:
					c.cutOff()
				}
			}
		})
		return nil
	})
}
