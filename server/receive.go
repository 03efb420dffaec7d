package server

import (
	"log/slog"

	"github.com/lxzan/gws"

	"github.com/shoal-go/shoal/internal/frame"
	"github.com/shoal-go/shoal/manager"
)

// Incoming is a message of a client. Data is valid until the hook that got it returns.
type Incoming struct {
	// Text is false for a binary message.
	Text bool
	Data []byte
}

// events passes frames that gws has parsed to the client that sent them.
type events struct{}

func clientOf(socket *gws.Conn) *Client {
	return socket.NetConn().(*gwsConn).client //nolint:forcetypeassert // reader.run passes no other type
}

func (events) OnOpen(*gws.Conn) {}

// OnClose answers the client's close frame, if that is the reason.
func (events) OnClose(socket *gws.Conn, err error) {
	socket.NetConn().(*gwsConn).answer(err) //nolint:forcetypeassert // reader.run passes no other type
}

func (events) OnPong(socket *gws.Conn, _ []byte) { handle(socket, (*Client).onPong, Incoming{}) }

func (events) OnPing(socket *gws.Conn, payload []byte) {
	handle(socket, (*Client).onPing, Incoming{Data: payload})
}

func (events) OnMessage(socket *gws.Conn, m *gws.Message) {
	handle(socket, (*Client).receive, Incoming{Text: m.Opcode == gws.OpcodeText, Data: m.Bytes()})
	_ = m.Close() // returns the buffer to gws's pool, cannot fail
}

// handle calls a handler of the client that sent a frame. A panic closes only this connection.
func handle(socket *gws.Conn, how func(*Client, Incoming), m Incoming) {
	c := clientOf(socket)
	c.guard(func() { how(c, m) })
}

func (c *Client) onPong(m Incoming) { c.accept(m) }

// onPing answers with the ping's payload (RFC 6455, 5.5.3).
func (c *Client) onPing(m Incoming) {
	if c.accept(m) {
		c.out.Send(frame.New(frame.Pong, frame.Control, m.Data))
	}
}

// accept records that the client has sent a frame. It reports false if the frame must be ignored, because the
// connection is closing or the client exceeds its rate.
func (c *Client) accept(m Incoming) bool {
	c.heard.Store(int64(c.server.clock()))
	if c.at(closing) {
		return false
	}
	if !c.limiter.Allow() && !c.spendSpare(m) {
		c.Close(manager.TooManyMessages)
		return false
	}
	return true
}

// receive handles one message.
func (c *Client) receive(m Incoming) {
	if !c.accept(m) {
		return
	}
	c.server.counters.received.Add(1)
	if c.at(authenticating) {
		c.onAuth(m.Text, m.Data)
		return
	}
	if !c.onRequest(m) && !c.onOwnMessage(m) {
		c.server.counters.ignored.Add(1)
		c.Send(unknownAction(m))
	}
}

// onOwnMessage calls Options.OnMessage, and reports whether the application handles the message.
func (c *Client) onOwnMessage(m Incoming) (known bool) {
	if c.server.opt.OnMessage != nil {
		c.runHook("OnMessage", nil, func() { known = c.server.opt.OnMessage(c, m) })
	}
	return known
}

// noSession is the session storage that gws requires for each connection. It is unused.
type noSession struct{}

func (noSession) Len() int                     { return 0 }
func (noSession) Load(string) (any, bool)      { return nil, false }
func (noSession) Delete(string)                {}
func (noSession) Store(string, any)            {}
func (noSession) Range(func(string, any) bool) {}

// gwsLogger adapts the logger to gws. Its arguments may hold bytes of a client and are left out.
type gwsLogger struct{ *slog.Logger }

func (l gwsLogger) Error(...any) { l.Logger.Error("gws error") }
