package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"strconv"
	"sync"

	"github.com/shoal-go/shoal/internal/frame"
	"github.com/shoal-go/shoal/manager"
)

// onRequest handles a message of the protocol, and reports whether it is one. Names are compared exactly; a message
// that is not the protocol's is left to Options.OnMessage as it is.
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
		return func(*Client, object) {} // a sign of life, which the frame itself was
	case "":
		if kind, err := message.text("type"); err == nil && kind == "auth" && c.server.opt.Authenticate != nil {
			return (*Client).onToken
		}
	}
	return nil
}

func (c *Client) onSubscribe(message object) {
	uploadID, ok := c.uploadID(message)
	if !ok {
		return
	}
	opt := manager.SubscribeOptions{Acknowledge: c.v1}
	if since, given := message.get("since"); c.v1 && given && kindOf(since) != "null" {
		position, err := decodePosition("since", since)
		if err != nil {
			c.badRequest(err)
			return
		}
		opt.Since = &position
	}
	admitted, err := c.server.manager.Admissible(c.identity.UserID, c, uploadID)
	if err == nil && len(admitted) == 0 {
		err = manager.ErrTooManySubscriptions
	}
	if err == nil && len(c.authorized(admitted)) == 0 {
		return
	}
	if err == nil {
		err = c.server.manager.SubscribeConn(c.server.ctx, c.identity.UserID, c, uploadID, opt)
	}
	c.subscribeFailed(err, uploadID)
}

func (c *Client) onUnsubscribe(message object) {
	uploadID, ok := c.uploadID(message)
	if !ok {
		return
	}
	c.server.manager.UnsubscribeConn(c.identity.UserID, c, uploadID)
	c.Send(unsubscribedFrame(uploadID))
}

func (c *Client) onResume(message object) {
	since, err := decodePositions(message)
	if err != nil {
		c.badRequest(err)
		return
	}
	ids := make([]string, 0, len(since))
	for uploadID := range since {
		ids = append(ids, uploadID)
	}
	slices.Sort(ids)
	// The limit comes first: a client must not be able to cause more calls of Authorize than it may follow uploads.
	if limit := c.server.manager.Limits().MaxSubscriptionsPerUser; limit > 0 && len(ids) > limit {
		c.subscribeFailed(manager.ErrTooManySubscriptions)
		return
	}
	admitted, err := c.server.manager.Admissible(c.identity.UserID, c, ids...)
	if err != nil {
		c.subscribeFailed(err)
		return
	}
	allowed := c.authorized(admitted)
	positions := make(map[string]manager.Position, len(allowed))
	for _, uploadID := range allowed {
		positions[uploadID] = since[uploadID]
	}
	var beyond []string
	for _, uploadID := range ids {
		if _, found := slices.BinarySearch(admitted, uploadID); !found {
			beyond = append(beyond, uploadID)
		}
	}
	if len(beyond) > 0 {
		c.subscribeFailed(manager.ErrTooManySubscriptions, beyond...)
	}
	refused, err := c.server.manager.Resume(c.server.ctx, c.identity.UserID, c, positions)
	c.subscribeFailed(err)
	for uploadID, err := range refused {
		c.subscribeFailed(err, uploadID)
	}
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

// maxParallelAuthorize bounds the concurrent calls of Authorize on behalf of one message.
const maxParallelAuthorize = 16

// authorize calls Authorize for uploads, some of them at a time, with one deadline for all. It returns the answers by
// upload.
func (c *Client) authorize(id Identity, uploadIDs []string) map[string]error {
	answers := make([]error, len(uploadIDs))
	c.call("Authorize", c.server.opt.HookTimeout, func(ctx context.Context) {
		if len(uploadIDs) == 1 {
			answers[0] = c.server.opt.Authorize(ctx, id, uploadIDs[0])
			return
		}
		var workers sync.WaitGroup
		next := make(chan int)
		for range min(maxParallelAuthorize, len(uploadIDs)) {
			workers.Go(func() {
				for i := range next {
					answers[i] = c.authorizeOne(ctx, id, uploadIDs[i])
				}
			})
		}
		for i := range uploadIDs {
			next <- i
		}
		close(next)
		workers.Wait()
	})
	byID := make(map[string]error, len(uploadIDs))
	for i, uploadID := range uploadIDs {
		byID[uploadID] = answers[i]
	}
	return byID
}

// errPanicked is the answer of an Authorize that has panicked on a goroutine of its own.
var errPanicked = errors.New("server: Authorize panicked")

// authorizeOne calls Authorize unless ctx has ended. A panic closes the connection, as it does on the connection's own
// goroutine.
func (c *Client) authorizeOne(ctx context.Context, id Identity, uploadID string) (err error) {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	defer func() {
		if problem := recover(); problem != nil {
			c.panicked(problem)
			err = errPanicked
		}
	}()
	return c.server.opt.Authorize(ctx, id, uploadID)
}

// authorized returns the uploads that the client may follow, and answers the others.
func (c *Client) authorized(uploadIDs []string) (allowed []string) {
	if len(uploadIDs) == 0 {
		return nil
	}
	answers := c.authorize(c.identity, uploadIDs)
	var forbidden, undecided []string
	for _, uploadID := range uploadIDs {
		switch err := answers[uploadID]; {
		case err == nil:
			allowed = append(allowed, uploadID)
		case errors.Is(err, ErrForbidden):
			c.countForbidden(uploadID)
			forbidden = append(forbidden, uploadID)
		default:
			c.logAuthorizeError(err)
			undecided = append(undecided, uploadID)
		}
	}
	c.fail(errorMessage{Code: codeForbidden, Message: "you may not follow this upload"}, forbidden...)
	if len(undecided) == 0 {
		return allowed
	}
	if !c.v1 { // which has no answer that could be sent, and must not wait for messages that never come
		c.Close(manager.TryAgainLater)
		return nil
	}
	c.fail(errorMessage{Code: codeInternal, Message: "authorization is not possible now, try again later",
		RetryAfter: retryAfterMillis()}, undecided...)
	return allowed
}

func (c *Client) countForbidden(uploadID string) {
	c.server.counters.forbidden.Add(1)
	c.server.logs.forbidden.log(c.server.opt.Logger, slog.LevelInfo, "subscription forbidden",
		"user", c.identity.UserID, "upload", uploadID, "protocol", c.Subprotocol())
}

func (c *Client) logAuthorizeError(err error) {
	if c.gone() { // the call was cancelled because the client has left
		return
	}
	c.server.counters.unavailable.Add(1)
	c.server.logs.authorize.log(c.server.opt.Logger, slog.LevelWarn, "authorization unavailable",
		"user", c.identity.UserID, "error", err)
}

// subscribeFailed answers a subscription that the manager has refused; without an upload it was a resume. The base
// protocol has no answer, so there a refused client is disconnected rather than left to wait for messages.
func (c *Client) subscribeFailed(err error, uploadIDs ...string) {
	switch {
	case err == nil:
	case errors.Is(err, manager.ErrTooManySubscriptions) && !c.v1:
		c.Close(manager.TooManySubscriptions)
	case errors.Is(err, manager.ErrTooManySubscriptions):
		c.fail(errorMessage{Code: codeLimitExceeded, Message: "the user follows as many uploads as are allowed"},
			orNone(uploadIDs)...)
	case errors.Is(err, manager.ErrUnavailable) && !c.v1:
		c.Close(manager.TryAgainLater)
	case errors.Is(err, manager.ErrUnavailable):
		c.fail(errorMessage{Code: codeInternal, Message: "the nodes cannot reach each other now, try again later",
			RetryAfter: retryAfterMillis()}, orNone(uploadIDs)...)
	case errors.Is(err, manager.ErrNotConnected), errors.Is(err, manager.ErrClosed), c.server.ctx.Err() != nil:
		// The connection is closing, and its close frame gives the reason.
	default:
		c.fail(errorMessage{Code: codeBadRequest, Message: clientText(err)}, orNone(uploadIDs)...)
	}
}

// orNone returns the uploads of an error, or one without a name for an error that concerns the whole message.
func orNone(uploadIDs []string) []string {
	if len(uploadIDs) == 0 {
		return []string{""}
	}
	return uploadIDs
}

const (
	// maxSingleErrors is how many errors of one kind a message is answered with before they are combined, so that a
	// message with many refused uploads cannot fill the queue of its own client.
	maxSingleErrors = 16
	// maxErrorIDs bounds the uploads of one combined error.
	maxErrorIDs = 128
)

// fail answers a refusal on shoal.v1, for each of the uploads or combined.
func (c *Client) fail(e errorMessage, uploadIDs ...string) {
	c.server.counters.failed.Add(uint64(len(uploadIDs)))
	if len(uploadIDs) <= maxSingleErrors {
		for _, uploadID := range uploadIDs {
			e.UploadID = uploadID
			c.Send(e.frame())
		}
		return
	}
	for ids := range slices.Chunk(uploadIDs, maxErrorIDs) {
		e.UploadIDs = ids
		c.Send(e.frame())
	}
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
