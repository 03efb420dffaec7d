package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"math"
	"strconv"
	"time"

	"github.com/lxzan/gws"
	"golang.org/x/time/rate"

	"github.com/shoal-go/shoal/internal/frame"
	"github.com/shoal-go/shoal/internal/strictjson"
	"github.com/shoal-go/shoal/manager"
)

// Incoming is a message of a client. Data is valid until the hook that got it returns.
type Incoming struct {
	// Text is false for a binary message.
	Text bool
	Data []byte
}

// gwsHandler passes frames that gws has parsed to the client that sent them.
type gwsHandler struct{}

func clientOf(socket *gws.Conn) *Client {
	return socket.NetConn().(*gwsConn).client // reader.run passes no other type
}

func (gwsHandler) OnOpen(*gws.Conn) {}

func (gwsHandler) OnClose(socket *gws.Conn, err error) {
	socket.NetConn().(*gwsConn).onClose(err) // reader.run passes no other type
}

func (gwsHandler) OnPong(socket *gws.Conn, _ []byte) { handle(socket, (*Client).onPong, Incoming{}) }

func (gwsHandler) OnPing(socket *gws.Conn, payload []byte) {
	handle(socket, (*Client).onPing, Incoming{Data: payload})
}

func (gwsHandler) OnMessage(socket *gws.Conn, m *gws.Message) {
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
	now := c.server.clock()
	c.lastRead.Store(int64(now))
	if c.at(closing) {
		return false
	}
	if !c.rate.allow(now, 1) && !c.spendSpare(m) {
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
	c.input.handling.Store(true)
	defer c.input.handling.Store(false)
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
		c.runHook("OnMessage", func() { known = c.server.opt.OnMessage(c, m) })
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

// onRequest handles a message of the protocol, and reports whether it is one. Names are compared exactly; a message
// that is not part of the protocol is passed to Options.OnMessage unchanged.
func (c *Client) onRequest(m Incoming) bool {
	if !m.Text {
		return false
	}
	message, err := strictjson.Decode(m.Data)
	if err != nil {
		return false
	}
	if err := message.Duplicate("action", "type"); err != nil {
		c.badRequest(err)
		return true
	}
	handle := c.handler(message)
	if handle == nil {
		return false
	}
	if err := message.Duplicate(); err != nil {
		c.badRequest(err)
		return true
	}
	handle(c, message)
	return true
}

// handler returns the handler of a message on this connection, or nil for a message that is not the protocol's.
func (c *Client) handler(message strictjson.Object) func(*Client, strictjson.Object) {
	action, _ := message.Text("action") // one that is no string is not the protocol's
	switch action {
	case "subscribe_upload":
		return (*Client).onSubscribe
	case "unsubscribe_upload":
		return (*Client).onUnsubscribe
	case "resume":
		if c.v1 {
			return (*Client).onResume
		}
	case "ping", "pong":
		return func(*Client, strictjson.Object) {} // any frame counts as a sign of life
	}
	// As in the first message, the action does not matter.
	if kind, err := message.Text("type"); err == nil && kind == "auth" && c.server.opt.Authenticate != nil {
		return (*Client).onToken
	}
	return nil
}

// uploadID returns the upload of a message. It reports false after refusing one that has no valid id.
func (c *Client) uploadID(message strictjson.Object) (string, bool) {
	uploadID, err := message.Text("upload_id")
	if err == nil {
		err = manager.CheckID("upload_id", uploadID)
	}
	if err != nil {
		c.badRequest(err)
	}
	return uploadID, err == nil
}

// decodePositions decodes the uploads of a resume.
func decodePositions(message strictjson.Object) (map[string]manager.Position, error) {
	value, given := message.Get("uploads")
	if !given || strictjson.Kind(value) == "null" {
		return nil, &strictjson.MemberError{Name: "uploads", Problem: "must be an object of positions by upload id"}
	}
	if kind := strictjson.Kind(value); kind != "object" {
		return nil, &strictjson.MemberError{Name: "uploads", Problem: "has the wrong type: " + kind}
	}
	uploads, err := strictjson.Decode(value)
	if err != nil {
		return nil, &strictjson.MemberError{Name: "uploads", Problem: "has an upload id that is not valid Unicode"}
	}
	if err := uploads.Duplicate(); err != nil {
		return nil, &strictjson.MemberError{Name: "uploads", Problem: "has an upload id twice"}
	}
	positions := make(map[string]manager.Position, len(uploads))
	for _, entry := range uploads {
		if err := manager.CheckID("upload_id", entry.Name); err != nil {
			return nil, err
		}
		position, wrong := decodePosition(entry.Value)
		if wrong != nil {
			wrong.Name = "uploads." + entry.Name + wrong.Name
			return nil, wrong
		}
		positions[entry.Name] = position
	}
	return positions, nil
}

// decodePosition decodes a position, which must have both of its members and no other. The name in the error is to
// follow that of the position.
func decodePosition(value []byte) (at manager.Position, wrong *strictjson.MemberError) {
	if kind := strictjson.Kind(value); kind != "object" {
		return at, &strictjson.MemberError{Problem: "has the wrong type: " + kind}
	}
	o, err := strictjson.Decode(value)
	if err != nil {
		return at, &strictjson.MemberError{Problem: err.Error()}
	}
	if err := o.Duplicate(); err != nil {
		return at, &strictjson.MemberError{Problem: "has a member twice"}
	}
	epoch, hasEpoch := o.Get("epoch")
	offset, hasOffset := o.Get("offset")
	if !hasEpoch || !hasOffset || len(o) != 2 {
		return at, &strictjson.MemberError{Problem: `must have the members "epoch" and "offset" and no other`}
	}
	if at.Epoch, err = strictjson.String(epoch); err != nil {
		return at, &strictjson.MemberError{Name: ".epoch", Problem: err.Error()}
	}
	if at.Offset, err = strconv.ParseUint(string(offset), 10, 64); err != nil {
		return at, &strictjson.MemberError{
			Name: ".offset", Problem: "must be a whole number from 0 to 18446744073709551615",
		}
	}
	return at, nil
}

// badRequest answers a message that is malformed.
func (c *Client) badRequest(err error) {
	c.fail(errorMessage{Code: codeBadRequest, Message: clientText(err)}, "")
}

// unknownAction is the answer to a message that neither the protocol nor OnMessage knows.
func unknownAction(m Incoming) *frame.Frame {
	switch trimmed := bytes.TrimSpace(m.Data); {
	case !m.Text:
		return errorFrame(codeBadRequest, "binary messages are not known here", "")
	case len(trimmed) == 0 || trimmed[0] != '{' || !json.Valid(trimmed):
		return errorFrame(codeBadRequest, "a message must be one JSON object", "")
	default:
		return errorFrame(codeUnknownAction, "the action is not known here", "")
	}
}

// clientText returns the part of an error that is meant for the client.
func clientText(err error) string {
	var invalid *manager.InvalidError
	var wrong *strictjson.MemberError
	switch {
	case errors.As(err, &invalid):
		return invalid.Field + " " + invalid.Problem
	case errors.As(err, &wrong):
		return wrong.Error()
	}
	return "the request was refused"
}

// minSpareSubscribes is the number of spare messages where a user may follow any number of uploads.
const minSpareSubscribes = 1024

// spareSubscribes returns how many subscribe messages a connection may once send beyond its rate: as many as a user may
// follow uploads, because a page on the base protocol subscribes to each of its uploads after a reconnect.
func (s *Server) spareSubscribes() int32 {
	if limit := s.manager.Limits().MaxSubscriptionsPerUser; limit > 0 {
		return int32(min(limit, math.MaxInt32))
	}
	return minSpareSubscribes
}

// spendSpare reports whether a message beyond the rate is one of the spare subscribe messages.
func (c *Client) spendSpare(m Incoming) bool {
	if c.spare == 0 || !m.Text || !bytes.Contains(m.Data, []byte(`"subscribe_upload"`)) || !c.authenticated() {
		return false
	}
	c.spare--
	return true
}

// messageRate is a token bucket for the messages of a client. A [rate.Limiter] for each idle connection would take four
// times the memory. It belongs to the goroutine that reads from the client.
type messageRate struct {
	limits *settings // those that held when the connection was opened
	tokens float64
	filled time.Duration // when the tokens were last counted, on Server.clock
}

// newMessageRate returns a full bucket.
func newMessageRate(limits *settings, now time.Duration) messageRate {
	return messageRate{limits, float64(limits.ClientMessageBurst), now}
}

// allow takes n tokens if there are as many.
func (r *messageRate) allow(now time.Duration, n int) bool {
	if rate.Limit(r.limits.ClientMessageRate) == rate.Inf {
		return true
	}
	added := (now - r.filled).Seconds() * r.limits.ClientMessageRate
	r.tokens = min(r.tokens+added, float64(r.limits.ClientMessageBurst))
	r.filled = now
	if r.tokens < float64(n) {
		return false
	}
	r.tokens -= float64(n)
	return true
}
