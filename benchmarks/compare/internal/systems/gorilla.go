package systems

import (
	"net/http"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	"github.com/olahol/melody"
)

// gorillaSystem is gorilla/websocket in the form of its chat example: a goroutine that reads and one that writes for each
// connection, with a Go channel between the hub and the writer. The settings:
//
//   - PreparedMessage, so that a message is framed once for all receivers; a message with one receiver is written as it
//     is, since preparing costs more than framing;
//   - 256 messages in the channel, a connection whose channel is full is closed, 10 seconds for a write, a ping every 54
//     seconds: all as in the example;
//   - a WriteBufferPool, which the documentation recommends for many connections that write seldom, and read buffers of 512
//     bytes, as everywhere here (the example has 1024);
//   - no compression.
type gorillaSystem struct{ hub[*gorillaClient] }

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

func gorillaUpgrader() *websocket.Upgrader {
	return &websocket.Upgrader{
		ReadBufferSize: smallReads, WriteBufferSize: 1024, WriteBufferPool: &sync.Pool{},
		CheckOrigin: func(*http.Request) bool { return true },
	}
}

func newGorilla() (System, error) {
	s := &gorillaSystem{}
	upgrader := gorillaUpgrader()
	s.deliver = sendGorilla
	s.serve = func(w http.ResponseWriter, r *http.Request) {
		conn, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return // it has been answered
		}
		c := &gorillaClient{conn, make(chan outgoing, gorillaQueue), make(chan struct{})}
		s.start(c.write)
		s.start(func() { s.read(c) })
	}
	return s, nil
}

// read has the conversation with a client and then waits for its end.
func (s *gorillaSystem) read(c *gorillaClient) {
	defer close(c.done)
	defer s.leave(c)
	c.conn.SetReadDeadline(time.Now().Add(pongWait)) //nolint:errcheck // never fails
	c.conn.SetPongHandler(func(string) error { return c.conn.SetReadDeadline(time.Now().Add(pongWait)) })
	for {
		_, data, err := c.conn.ReadMessage()
		if err != nil {
			return
		}
		reply, _, err := s.answer(c, data)
		if err != nil || !c.queue(outgoing{plain: reply}) {
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

func sendGorilla(to []*gorillaClient, payload []byte) (err error) {
	out := outgoing{plain: payload}
	if len(to) > 1 {
		out.prepared, err = websocket.NewPreparedMessage(websocket.TextMessage, payload)
	}
	for _, c := range to {
		if !c.queue(out) {
			_ = c.conn.NetConn().Close() // the reader notices
		}
	}
	return err
}

// melodySystem is olahol/melody. The settings:
//
//   - Write to each session of the channel, as BroadcastMultiple does, but going on where a session is closing.
//     BroadcastFilter would ask about every session for every message instead;
//   - MessageBufferSize 256, the default: a burst fits into it, and melody drops the rest;
//   - a pool of write buffers in the upgrader (gorilla's documented way to less memory with many idle connections), and
//     read buffers of 512 bytes, as everywhere here (melody's default is 1024 each);
//   - no compression.
type melodySystem struct {
	melody *melody.Melody
	hub[*melody.Session]
}

func newMelody() (System, error) {
	s := &melodySystem{melody: melody.New()}
	s.deliver = func(to []*melody.Session, payload []byte) error {
		for _, session := range to {
			_ = session.Write(payload) // fails for a session that is closing
		}
		return nil
	}
	s.serve = func(w http.ResponseWriter, r *http.Request) {
		_ = s.melody.HandleRequest(w, r) // the error has been answered
	}
	s.melody.Upgrader = gorillaUpgrader()
	s.melody.HandleMessage(s.onMessage)
	s.melody.HandleDisconnect(s.leave)
	return s, nil
}

func (s *melodySystem) onMessage(session *melody.Session, data []byte) {
	reply, _, err := s.answer(session, data)
	if err != nil {
		_ = session.CloseWithMsg(websocket.FormatCloseMessage(websocket.ClosePolicyViolation, ""))
		return
	}
	_ = session.Write(reply) // fails for a session that is closing
}

// Close lets the handlers end first: melody's hub, once closed, no longer accepts the end of a session.
func (s *melodySystem) Close() error {
	_ = s.hub.Close()
	return s.melody.Close()
}
