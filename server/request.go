package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"

	"github.com/shoal-go/shoal/internal/frame"
	"github.com/shoal-go/shoal/manager"
)

// onRequest handles a message of the protocol, and reports whether it is one. Names are compared exactly; a message
// that is not part of the protocol is passed to Options.OnMessage unchanged.
func (c *Client) onRequest(m Incoming) bool {
	if !m.Text {
		return false
	}
	message, err := decodeObject(m.Data)
	if err != nil {
		return false
	}
	if err := message.duplicate("action", "type"); err != nil {
		c.badRequest(err)
		return true
	}
	handle := c.handler(message)
	if handle == nil {
		return false
	}
	if err := message.duplicate(); err != nil {
		c.badRequest(err)
		return true
	}
	handle(c, message)
	return true
}

// handler returns the handler of a message on this connection, or nil for a message that is not the protocol's.
func (c *Client) handler(message object) func(*Client, object) {
	action, err := message.text("action")
	if err != nil {
		return nil
	}
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
		return func(*Client, object) {} // any frame counts as a sign of life
	case "":
		if kind, err := message.text("type"); err == nil && kind == "auth" && c.server.opt.Authenticate != nil {
			return (*Client).onToken
		}
	}
	return nil
}

// uploadID returns the upload of a message. It reports false after refusing one that has no valid id.
func (c *Client) uploadID(message object) (string, bool) {
	uploadID, err := message.text("upload_id")
	if err == nil {
		err = manager.CheckID("upload_id", uploadID)
	}
	if err != nil {
		c.badRequest(err)
	}
	return uploadID, err == nil
}

// decodePositions decodes the uploads of a resume.
func decodePositions(message object) (map[string]manager.Position, error) {
	value, given := message.get("uploads")
	if !given || kindOf(value) == "null" {
		return nil, &memberError{"uploads", "must be an object of positions by upload id"}
	}
	if kind := kindOf(value); kind != "object" {
		return nil, &memberError{"uploads", "has the wrong type: " + kind}
	}
	uploads, err := decodeObject(value)
	if err != nil {
		return nil, &memberError{"uploads", "has an upload id that is not valid Unicode"}
	}
	if err := uploads.duplicate(); err != nil {
		return nil, &memberError{"uploads", "has an upload id twice"}
	}
	positions := make(map[string]manager.Position, len(uploads))
	for _, entry := range uploads {
		if err := manager.CheckID("upload_id", entry.name); err != nil {
			return nil, err
		}
		if positions[entry.name], err = decodePosition("uploads."+entry.name, entry.value); err != nil {
			return nil, err
		}
	}
	return positions, nil
}

// decodePosition decodes a position, which must have both of its members and no other.
func decodePosition(name string, value []byte) (at manager.Position, err error) {
	if kind := kindOf(value); kind != "object" {
		return at, &memberError{name, "has the wrong type: " + kind}
	}
	o, err := decodeObject(value)
	if err != nil {
		return at, &memberError{name, err.Error()}
	}
	if err := o.duplicate(); err != nil {
		return at, &memberError{name, "has a member twice"}
	}
	epoch, hasEpoch := o.get("epoch")
	offset, hasOffset := o.get("offset")
	if !hasEpoch || !hasOffset || len(o) != 2 {
		return at, &memberError{name, `must have the members "epoch" and "offset" and no other`}
	}
	if at.Epoch, err = decodeString(epoch); err != nil {
		return at, &memberError{name + ".epoch", err.Error()}
	}
	if at.Offset, err = strconv.ParseUint(string(offset), 10, 64); err != nil {
		return at, &memberError{name + ".offset", "must be a whole number from 0 to 18446744073709551615"}
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
	var wrong *memberError
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
func (s *Server) spareSubscribes() int {
	if limit := s.manager.Limits().MaxSubscriptionsPerUser; limit > 0 {
		return limit
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
