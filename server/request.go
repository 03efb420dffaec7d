package server

import (
	"bytes"
	"encoding/json"
	"errors"

	"github.com/shoal-go/shoal/internal/frame"
	"github.com/shoal-go/shoal/manager"
)

// request is a client's message, of all actions.
type request struct {
	Action   string                      `json:"action"`
	Type     string                      `json:"type"`
	Token    string                      `json:"token"`
	UploadID string                      `json:"upload_id"`
	Since    *manager.Position           `json:"since"`
	Uploads  map[string]manager.Position `json:"uploads"`
}

// onRequest handles a message of the protocol, and reports whether it is one.
func (c *Client) onRequest(m Incoming) bool {
	if !m.Text {
		return false
	}
	var plain request
	if decodePlain(m.Data, &plain) {
		handle := c.handler(plain.Action, plain.Type)
		if handle != nil {
			handle(c, &plain)
		}
		return handle != nil
	}
	var head struct{ Action, Type string }
	if json.Unmarshal(m.Data, &head) != nil {
		return false
	}
	handle := c.handler(head.Action, head.Type)
	if handle == nil {
		return false
	}
	var r request
	if err := json.Unmarshal(m.Data, &r); err != nil {
		c.fail(codeBadRequest, wrongField(err), "")
		return true
	}
	handle(c, &r)
	return true
}

// handler returns what handles an action on this connection, or nil.
func (c *Client) handler(action, kind string) func(*Client, *request) {
	switch {
	case action == "subscribe_upload":
		return (*Client).onSubscribe
	case action == "unsubscribe_upload":
		return (*Client).onUnsubscribe
	case action == "resume" && c.v1:
		return (*Client).onResume
	case action == "ping" || action == "pong":
		return (*Client).onSignOfLife
	case action == "" && kind == "auth" && c.server.opt.Authenticate != nil:
		return (*Client).onFreshToken
	}
	return nil
}

func (c *Client) onSignOfLife(*request) {}

func (c *Client) onFreshToken(r *request) {
	if r.Token == "" {
		c.refuse("Authentication required", manager.AuthRequired)
		return
	}
	c.authenticate(r.Token)
}

func (c *Client) onSubscribe(r *request) {
	if !c.allowed(r.UploadID) {
		return
	}
	opt := manager.SubscribeOptions{Acknowledge: c.v1}
	if c.v1 {
		opt.Since = r.Since
	}
	err := c.server.manager.SubscribeConn(c.server.ctx, c.identity.UserID, c, r.UploadID, opt)
	c.subscribeFailed(r.UploadID, err)
}

func (c *Client) onUnsubscribe(r *request) {
	if err := manager.CheckID("upload_id", r.UploadID); err != nil {
		c.fail(codeBadRequest, clientText(err), "")
		return
	}
	c.server.manager.UnsubscribeConn(c.identity.UserID, c, r.UploadID)
	c.Send(unsubscribedFrame(r.UploadID))
}

func (c *Client) onResume(r *request) {
	if r.Uploads == nil {
		c.fail(codeBadRequest, `"uploads" must be an object of positions by upload id`, "")
		return
	}
	for uploadID := range r.Uploads {
		if !c.allowed(uploadID) {
			delete(r.Uploads, uploadID)
		}
	}
	refused, err := c.server.manager.Resume(c.server.ctx, c.identity.UserID, c, r.Uploads)
	c.subscribeFailed("", err)
	for uploadID, err := range refused {
		c.subscribeFailed(uploadID, err)
	}
}

// allowed reports whether the client may follow the upload, and tells it if not.
func (c *Client) allowed(uploadID string) bool {
	if err := manager.CheckID("upload_id", uploadID); err != nil {
		c.fail(codeBadRequest, clientText(err), "")
		return false
	}
	err := c.server.opt.Authorize(c.server.ctx, c.identity, uploadID)
	switch {
	case err == nil:
		return true
	case errors.Is(err, ErrForbidden):
		c.fail(codeForbidden, "you may not follow this upload", uploadID)
	default:
		c.server.opt.Logger.Warn("authorization failed", "user", c.identity.UserID, "error", err)
		c.fail(codeInternal, "authorization is not possible now, try again later", uploadID)
	}
	return false
}

// subscribeFailed tells the client why it could not subscribe. The base protocol has no answer to that, so a
// client that is refused there is disconnected, rather than left to wait for messages.
func (c *Client) subscribeFailed(uploadID string, err error) {
	switch {
	case err == nil:
	case errors.Is(err, manager.ErrTooManySubscriptions) && !c.v1:
		c.Close(manager.TooManySubscriptions)
	case errors.Is(err, manager.ErrTooManySubscriptions):
		c.fail(codeLimitExceeded, "the user follows as many uploads as are allowed", uploadID)
	case errors.Is(err, manager.ErrUnavailable) && !c.v1:
		c.Close(manager.TryAgainLater)
	case errors.Is(err, manager.ErrUnavailable):
		c.fail(codeInternal, "the nodes cannot reach each other now, try again later", uploadID)
	case errors.Is(err, manager.ErrNotConnected), errors.Is(err, manager.ErrClosed), c.server.ctx.Err() != nil:
		// The connection is on its way out and will be told so.
	default:
		c.fail(codeBadRequest, clientText(err), uploadID)
	}
}

// fail answers what was refused, on shoal.v1.
func (c *Client) fail(code, message, uploadID string) {
	c.server.counters.failed.Add(1)
	c.Send(errorFrame(code, message, uploadID))
}

// unknownAction is the answer to a message that nobody knows.
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

// wrongField says which field of a request has the wrong type.
func wrongField(err error) string {
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		return `"` + wrong.Field + `" has the wrong type: ` + wrong.Value
	}
	return "a message must be one JSON object"
}

// clientText returns the part of an error that is meant for the client.
func clientText(err error) string {
	var invalid *manager.InvalidError
	if errors.As(err, &invalid) {
		return invalid.Field + " " + invalid.Problem
	}
	return "the request was refused"
}
