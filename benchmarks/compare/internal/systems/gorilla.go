package systems

import (
	"net/http"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/message"
)

// gorillaSystem is gorilla/websocket in the form of its chat example: a goroutine that reads and one that
// writes for each connection, with a Go channel between the hub and the writer. The settings:
//
//   - PreparedMessage, so that a message is framed once for all receivers; a message with one receiver is
//     written as it is, since preparing costs more than framing;
//   - 256 messages in the channel, a connection whose channel is full is closed, 10 seconds for a write, a ping
//     every 54 seconds: all as in the example;
//   - a WriteBufferPool, which the documentation recommends for many connections that write seldom, and read
//     buffers of 512 bytes, as everywhere here (the example has 1024);
//   - no compression.
type gorillaSystem struct {
	upgrader *websocket.Upgrader
	*topics[*gorillaClient]
	*goroutines
}

type gorillaClient struct {
	conn *websocket.Conn
	send chan outgoing
	done chan struct{} // closed when the reader has ended
}

// outgoing is a message in one of two forms.
type outgoing struct {
	prepared *websocket.PreparedMessage
	plain    []byte // if it is not prepared
}

// The numbers of gorilla's chat example.
const (
	gorillaQueue = 256
	writeWait    = 10 * time.Second
	pongWait     = 60 * time.Second
	pingPeriod   = pongWait * 9 / 10
)

func gorillaEntry() Entry {
	return Entry{
		Name:    "gorilla",
		Kind:    Peer,
		Module:  "github.com/gorilla/websocket",
		About:   "gorilla/websocket, PreparedMessage (plain for one receiver), a writing goroutine per connection",
		New:     newGorilla,
		Dialect: plain,
	}
}

func newGorilla() (System, error) {
	return &gorillaSystem{upgrader: gorillaUpgrader(), topics: newTopics[*gorillaClient](), goroutines: newGoroutines()}, nil
}

func gorillaUpgrader() *websocket.Upgrader {
	return &websocket.Upgrader{
		ReadBufferSize:  smallReads,
		WriteBufferSize: 1024,
		WriteBufferPool: &sync.Pool{},
		CheckOrigin:     func(*http.Request) bool { return true },
	}
}

func (s *gorillaSystem) Handler() http.Handler {
	return s.goroutines.handler(func(w http.ResponseWriter, r *http.Request) {
		conn, err := s.upgrader.Upgrade(w, r, nil)
		if err != nil {
			return // it has been answered
		}
		c := &gorillaClient{conn, make(chan outgoing, gorillaQueue), make(chan struct{})}
		s.goroutines.start(c.write)
		s.goroutines.start(func() { s.read(c) })
	})
}

// read has the conversation with a client and then waits for its end.
func (s *gorillaSystem) read(c *gorillaClient) {
	var channel string
	defer func() {
		s.topics.leave(channel, c)
		close(c.done)
	}()
	c.conn.SetReadDeadline(time.Now().Add(pongWait)) //nolint:errcheck // never fails
	c.conn.SetPongHandler(func(string) error { return c.conn.SetReadDeadline(time.Now().Add(pongWait)) })
	for {
		_, data, err := c.conn.ReadMessage()
		if err != nil {
			return
		}
		reply, joins, err := answer(data)
		if err != nil {
			return
		}
		if joins != "" {
			channel = joins
			s.topics.join(channel, c)
		}
		if !c.queue(outgoing{plain: reply}) {
			return
		}
	}
}

// queue passes a message to the writer and reports false if there is no room for it.
func (c *gorillaClient) queue(m outgoing) bool {
	select {
	case c.send <- m:
		return true
	default:
		return false
	}
}

// write writes queued messages until the reader has ended.
func (c *gorillaClient) write() {
	ping := time.NewTicker(pingPeriod)
	defer ping.Stop()
	defer c.conn.Close()
	for {
		var err error
		select {
		case <-c.done:
			return
		case m := <-c.send:
			err = c.writeOne(m)
		case <-ping.C:
			err = c.conn.WriteControl(websocket.PingMessage, nil, time.Now().Add(writeWait))
		}
		if err != nil {
			return
		}
	}
}

func (c *gorillaClient) writeOne(m outgoing) error {
	c.conn.SetWriteDeadline(time.Now().Add(writeWait)) //nolint:errcheck // never fails
	if m.prepared == nil {
		return c.conn.WriteMessage(websocket.TextMessage, m.plain)
	}
	return c.conn.WritePreparedMessage(m.prepared)
}

func (s *gorillaSystem) Publish(messages []message.Message) error {
	return Each(messages, func(m message.Message) (err error) {
		out := outgoing{plain: m.JSON()}
		s.topics.with(m.Channel, func(followers []*gorillaClient) {
			if len(followers) > 1 {
				out.prepared, err = websocket.NewPreparedMessage(websocket.TextMessage, out.plain)
			}
			for _, c := range followers {
				if !c.queue(out) {
					_ = c.conn.NetConn().Close() // the reader notices
				}
			}
		})
		return err
	})
}
