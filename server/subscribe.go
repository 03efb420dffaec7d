package server

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/shoal-go/shoal/internal/strictjson"
	"github.com/shoal-go/shoal/manager"
)

func (c *Client) onSubscribe(message strictjson.Object) {
	uploadID, ok := c.uploadID(message)
	if !ok {
		return
	}
	opt := manager.SubscribeOptions{Acknowledge: c.v1}
	if since, given := message.Get("since"); c.v1 && given && strictjson.Kind(since) != "null" {
		position, wrong := decodePosition(since)
		if wrong != nil {
			wrong.Name = "since" + wrong.Name
			c.badRequest(wrong)
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
		defer c.claims.because(ReasonClient, uploadID)()
		err = c.server.manager.SubscribeConn(c.server.ctx, c.identity.UserID, c, uploadID, opt)
	}
	c.subscribeFailed(err, uploadID)
}

func (c *Client) onUnsubscribe(message strictjson.Object) {
	uploadID, ok := c.uploadID(message)
	if !ok {
		return
	}
	defer c.claims.because(ReasonClient, uploadID)()
	c.server.manager.UnsubscribeConn(c.identity.UserID, c, uploadID)
	c.sendUnsubscribed(uploadID)
}

func (c *Client) onResume(message strictjson.Object) {
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
	admitted, err := c.server.manager.Admissible(c.identity.UserID, c, ids...)
	if err != nil {
		c.subscribeFailed(err)
		return
	}
	allowed := c.authorized(admitted)
	maps.DeleteFunc(since, func(uploadID string, _ manager.Position) bool {
		_, found := slices.BinarySearch(allowed, uploadID)
		return !found
	})
	var beyond []string
	for _, uploadID := range ids {
		if _, found := slices.BinarySearch(admitted, uploadID); !found {
			beyond = append(beyond, uploadID)
		}
	}
	if len(beyond) > 0 {
		c.subscribeFailed(manager.ErrTooManySubscriptions, beyond...)
	}
	defer c.claims.because(ReasonClient, allowed...)()
	refused, err := c.server.manager.Resume(c.server.ctx, c.identity.UserID, c, since)
	c.subscribeFailed(err)
	for uploadID, err := range refused {
		c.subscribeFailed(err, uploadID)
	}
}

// maxParallelAuthorize bounds the concurrent calls of Authorize on behalf of one message.
const maxParallelAuthorize = 16

// authorize calls Authorize for uploads, some of them at a time, with one deadline for all. It returns the answers by
// upload.
func (c *Client) authorize(id Identity, uploadIDs []string) map[string]error {
	var answers []error
	c.call("Authorize", c.server.opt.HookTimeout, func(ctx context.Context) {
		if len(uploadIDs) == 1 {
			answers = []error{c.server.opt.Authorize(ctx, id, uploadIDs[0])}
			return
		}
		answers = c.server.authorizeAll(ctx, id, uploadIDs, c.panicked)
	})
	byID := make(map[string]error, len(uploadIDs))
	for i, uploadID := range uploadIDs {
		byID[uploadID] = answers[i]
	}
	return byID
}

// authorizeAll calls Authorize for uploads, some of them at a time, and returns the answers in their order. It calls
// panicked with the value of a panic of the hook.
func (s *Server) authorizeAll(ctx context.Context, id Identity, uploadIDs []string, panicked func(any)) []error {
	answers := slices.Repeat([]error{errPanicked}, len(uploadIDs)) // a hook may end its worker
	var workers sync.WaitGroup
	var next atomic.Int64
	for range min(maxParallelAuthorize, len(uploadIDs)) {
		workers.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(uploadIDs)); i = next.Add(1) - 1 {
				answers[i] = s.authorizeOne(ctx, id, uploadIDs[i], panicked)
			}
		})
	}
	workers.Wait()
	return answers
}

// errPanicked is the answer of an Authorize that has not returned on a goroutine of its own.
var errPanicked = errors.New("server: Authorize panicked")

// authorizeOne calls Authorize unless ctx has ended.
func (s *Server) authorizeOne(
	ctx context.Context, id Identity, uploadID string, panicked func(any),
) (err error) {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	returned := false
	defer func() {
		if !returned {
			panicked(recover())
			err = errPanicked
		}
	}()
	err = s.opt.Authorize(ctx, id, uploadID)
	returned = true
	return err
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
	c.server.forbidden(c.UserID(), uploadID, c.Subprotocol())
}

// forbidden counts and logs a subscription that Authorize has refused.
func (s *Server) forbidden(userID, uploadID, protocol string) {
	s.counters.forbidden.Add(1)
	s.logs.forbidden.Log(s.opt.Logger, slog.LevelInfo, "subscription forbidden",
		"user", userID, "upload", uploadID, "protocol", protocol)
}

func (c *Client) logAuthorizeError(err error) {
	if !c.gone() { // else the call was cancelled because the client has left
		c.server.authorizeFailed(c.UserID(), err)
	}
}

// authorizeFailed counts and logs a subscription that Authorize could not decide.
func (s *Server) authorizeFailed(userID string, err error) {
	s.counters.unavailable.Add(1)
	s.logs.authorize.Log(s.opt.Logger, slog.LevelWarn, "authorization unavailable", "user", userID, "error", err)
}

// subscribeFailed answers a subscription that the manager has refused; without an upload it was a resume. The base
// protocol has no answer, so there a refused client is disconnected rather than left to wait for messages.
func (c *Client) subscribeFailed(err error, uploadIDs ...string) {
	if errors.Is(err, manager.ErrTooManySubscriptions) {
		c.server.counters.tooManySubscriptions.Add(uint64(max(len(uploadIDs), 1)))
	}
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
	case errors.Is(err, manager.ErrRefused) && !c.v1:
		c.Close(manager.InternalError)
	case errors.Is(err, manager.ErrRefused): // the manager logs the reason, which is not the client's concern
		c.fail(errorMessage{Code: codeInternal, Message: "the upload cannot be followed now, try again later",
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
