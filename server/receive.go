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

// events passes what gws reads on to the client that it came from.
type events struct{}

func clientOf(socket *gws.Conn) *Client {
	return socket.NetConn().(*gwsConn).client //nolint:forcetypeassert // readers make no others
}

func (events) OnOpen(*gws.Conn) {}

func (events) OnClose(*gws.Conn, error) {}

func (events) OnPong(socket *gws.Conn, _ []byte) { handle(socket, (*Client).onPong, Incoming{}) }

func (events) OnPing(socket *gws.Conn, payload []byte) {
	handle(socket, (*Client).onPing, Incoming{Data: payload})
}

func (events) OnMessage(socket *gws.Conn, m *gws.Message) {
	handle(socket, (*Client).receive, Incoming{Text: m.Opcode == gws.OpcodeText, Data: m.Bytes()})
	_ = m.Close() // gives the buffer back, cannot fail
}

// handle has what a client has sent handled.
func handle(socket *gws.Conn, how func(*Client, Incoming), m Incoming) {
	c := clientOf(socket)
	c.guard(func() { how(c, m) })
}

func (c *Client) onPong(m Incoming) { c.alive(m) }

// onPing answers with the ping's payload, as RFC 6455 wants it.
func (c *Client) onPing(m Incoming) {
	if c.alive(m) {
		c.out.Send(frame.New(frame.Pong, frame.Control, m.Data))
	}
}

// alive notes a sign of life, and reports whether what the client sent is to be looked at: not if the
// connection is closing, or if the client sends too much.
func (c *Client) alive(m Incoming) bool {
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
	if !c.alive(m) {
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

// onOwnMessage gives a message to the embedder, and reports whether the embedder knows it.
func (c *Client) onOwnMessage(m Incoming) (known bool) {
	if c.server.opt.OnMessage != nil {
		c.runHook("OnMessage", nil, func() { known = c.server.opt.OnMessage(c, m) })
	}
	return known
}

// noSession is the storage that gws wants each connection to have, and that nobody uses.
type noSession struct{}

func (noSession) Len() int                     { return 0 }
func (noSession) Load(string) (any, bool)      { return nil, false }
func (noSession) Delete(string)                {}
func (noSession) Store(string, any)            {}
func (noSession) Range(func(string, any) bool) {}

// gwsLogger takes what gws has to say.
type gwsLogger struct{ *slog.Logger }

func (l gwsLogger) Error(...any) { l.Logger.Error("gws reported an error") }
