package client

import (
	"context"
	"encoding/json"
	"fmt"
	"time"
)

const (
	// maxBatch and maxBatchBytes bound the uploads of one subscription, whose message must fit a server's limit.
	maxBatch      = 32
	maxBatchBytes = 16 << 10
	// retryUpload is the delay before a subscription that failed for a reason that passes is tried again.
	retryUpload = 2 * time.Second
)

// changed makes the connection subscribe or unsubscribe an upload, as needed. The client's lock is held.
func (l *link) changed(uploadID string) {
	if _, claimed := l.claimed[uploadID]; claimed {
		l.ending[uploadID] = struct{}{}
	} else {
		l.beginning[uploadID] = struct{}{}
	}
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// nextRequest returns the next message to send, or nil.
//
// An upload has one unanswered subscription at most. One that is subscribed already is unsubscribed before it is
// subscribed again, from an earlier position: then the rest of the former subscription precedes the answer.
//
// Uploads are subscribed once as many others have been unsubscribed, since the server may allow no more, but before the
// rest of these, which takes a message for each.
func (l *link) nextRequest() []byte {
	l.client.mu.Lock()
	defer l.client.mu.Unlock()
	begin, end := l.nextBeginning(), l.nextEnding()
	if end != "" && (len(begin) == 0 || l.freed < len(begin)) {
		l.freed++
		return l.unsubscribe(end)
	}
	l.freed -= len(begin)
	if end == "" {
		l.freed = 0
	}
	return l.subscribe(begin)
}

// nextBeginning returns some of the uploads that need a subscription. One that waits for an answer is changed again by
// that. The client's lock is held.
func (l *link) nextBeginning() (uploadIDs []string) {
	for id := range l.beginning {
		u := l.client.uploads[id]
		_, claimed := l.claimed[id]
		_, asked := l.asked[id]
		if u == nil || claimed || asked || !u.wants() {
			delete(l.beginning, id)
		} else if uploadIDs = append(uploadIDs, id); len(uploadIDs) == maxBatch {
			break
		}
	}
	return uploadIDs
}

// nextEnding returns an upload whose subscription has to end, or "". The client's lock is held.
func (l *link) nextEnding() (uploadID string) {
	for id := range l.ending {
		u := l.client.uploads[id]
		_, claimed := l.claimed[id]
		_, asked := l.asked[id]
		if claimed && (u == nil || !asked && u.wants()) {
			return id
		}
		delete(l.ending, id)
	}
	return ""
}

// subscribe returns the message that subscribes uploads, or nil for no uploads. It leaves those without room in it to
// the next message. The client's lock is held.
func (l *link) subscribe(uploadIDs []string) []byte {
	if len(uploadIDs) == 0 {
		return nil
	}
	batch, size := resume{Action: "resume", Uploads: map[string]Position{}}, 0
	for _, id := range uploadIDs {
		from := l.client.uploads[id].subscribe()
		delete(l.beginning, id)
		l.ask(id, from)
		batch.Uploads[id] = from
		if size += len(id) + len(from.Epoch); size > maxBatchBytes {
			break
		}
	}
	return encode(batch)
}

// ask records a subscription. The client's lock is held.
func (l *link) ask(uploadID string, from Position) {
	if len(l.asked) == len(l.retrying) {
		l.waiting = time.Now()
	}
	l.asked[uploadID] = from
	l.claimed[uploadID] = struct{}{}
}

// unsubscribe returns the message that ends a subscription, and records that. The upload is subscribed again unless
// nobody follows it. The client's lock is held.
func (l *link) unsubscribe(uploadID string) []byte {
	delete(l.claimed, uploadID)
	delete(l.ending, uploadID)
	l.ended[uploadID]++
	if u := l.client.uploads[uploadID]; u != nil {
		u.stop()
		l.changed(uploadID)
	}
	return unsubscribeMessage(uploadID)
}

func unsubscribeMessage(uploadID string) []byte {
	return encode(map[string]string{"action": "unsubscribe_upload", "upload_id": uploadID})
}

// handle handles a message of the server. An error ends the connection.
func (l *link) handle(ctx context.Context, in incoming) error {
	switch in.action {
	case "ping":
	case "auth_success":
		l.tokenAnswered(true)
	case "auth_error":
		if refusal := in.authError(); refusal.Code == codeUnavailable {
			l.tokenAnswered(false) // the connection goes on with its current token
		} else {
			l.authError = refusal
		}
	case "reconnect":
		l.retryAfter = in.retryAfter()
	case "subscribed":
		return l.subscribed(in)
	case "resumed":
		return l.resumed(in)
	case "unsubscribed":
		l.unsubscribed(in.uploadID())
	case "error":
		return l.failed(ctx, in)
	default:
		return l.receive(in)
	}
	return nil
}

// receive distributes a message.
func (l *link) receive(in incoming) error {
	m, err := in.message()
	if err != nil {
		return err
	}
	if m.UploadID == "" {
		l.client.opt.OnMessage(m)
		return nil
	}
	l.client.mu.Lock()
	defer l.client.mu.Unlock()
	if u := l.client.uploads[m.UploadID]; u != nil {
		u.receive(m)
	}
	return nil
}

// subscribed is the answer to a subscription, or the notice that the upload's messages do not continue.
func (l *link) subscribed(in incoming) error {
	a, err := in.answer()
	if err != nil {
		return err
	}
	return l.answered(in.uploadID(), a)
}

// resumed is the answer to the subscriptions of many uploads.
func (l *link) resumed(in incoming) error {
	var uploads map[string]fields
	if err := in.read("uploads", &uploads); err != nil {
		return err
	}
	for id, member := range uploads {
		a, err := member.answer()
		if err != nil {
			return err
		}
		if err := l.answered(id, a); err != nil {
			return err
		}
	}
	return nil
}

func (l *link) answered(uploadID string, a answer) error {
	l.client.mu.Lock()
	defer l.client.mu.Unlock()
	from, asked := l.takeAsked(uploadID)
	if u := l.client.uploads[uploadID]; u != nil {
		return u.apply(a, from, asked)
	}
	return nil
}

// takeAsked removes the unanswered subscription of an upload, if there is one. The client's lock is held.
func (l *link) takeAsked(uploadID string) (from Position, ok bool) {
	if from, ok = l.asked[uploadID]; ok {
		if cancel := l.retrying[uploadID]; cancel != nil {
			cancel()
			delete(l.retrying, uploadID)
		}
		delete(l.asked, uploadID)
		l.waiting = time.Now()
		l.changed(uploadID)
	}
	return from, ok
}

// unsubscribed confirms the end of a subscription. Without such a request the server has ended it, for example because
// a fresh token does not allow it.
func (l *link) unsubscribed(uploadID string) {
	l.client.mu.Lock()
	defer l.client.mu.Unlock()
	if l.ended[uploadID] > 0 {
		l.ended[uploadID]--
		if l.ended[uploadID] == 0 {
			delete(l.ended, uploadID)
		}
		return
	}
	l.refuse(uploadID, &RefusedError{
		UploadID: uploadID, Message: "the server ended the subscription", kind: ErrForbidden,
	})
}

// refuse ends the loops over an upload. The client's lock is held.
func (l *link) refuse(uploadID string, err error) {
	if u := l.client.uploads[uploadID]; u != nil {
		u.end(err)
		delete(l.client.uploads, uploadID)
		l.changed(uploadID)
	}
}

// failed handles an error of the server, which concerns some uploads or a whole message of the client. Where it does
// not name the uploads, a limit concerns all unanswered subscriptions.
func (l *link) failed(ctx context.Context, in incoming) error {
	var ids []string
	if err := in.read("upload_ids", &ids); err != nil {
		return err
	}
	if id := in.uploadID(); id != "" {
		ids = append(ids, id)
	}
	code, message, delay := in.text("code"), in.text("message"), in.retryAfter()
	if len(ids) == 0 && code == "internal" {
		l.retryAfter = delay
		return fmt.Errorf("%w: %s", errInterrupted, message)
	}
	if len(ids) == 0 && code != "limit_exceeded" {
		return violation("it answered %s: %s", code, message)
	}
	l.client.mu.Lock()
	defer l.client.mu.Unlock()
	if len(ids) == 0 {
		ids = l.unanswered()
	}
	for _, id := range ids {
		if code == "internal" {
			l.retryLater(ctx, id, delay)
			continue
		}
		l.takeAsked(id)
		l.refuse(id, &RefusedError{UploadID: id, Code: code, Message: message, kind: kindOf(code)})
	}
	return nil
}

// unanswered returns the uploads whose subscriptions wait for an answer. The client's lock is held.
func (l *link) unanswered() (uploadIDs []string) {
	for id := range l.asked {
		if l.retrying[id] == nil {
			uploadIDs = append(uploadIDs, id)
		}
	}
	return uploadIDs
}

// retryLater subscribes an upload again after a delay, unless that is planned already. Until then the upload is not
// subscribed otherwise. The client's lock is held.
func (l *link) retryLater(ctx context.Context, uploadID string, delay time.Duration) {
	if _, asked := l.asked[uploadID]; !asked || l.retrying[uploadID] != nil {
		return
	}
	if delay <= 0 {
		delay = retryUpload
	}
	ctx, cancel := context.WithCancel(ctx)
	l.retrying[uploadID] = cancel
	l.waiting = time.Now()
	l.others.Go(func() {
		sleep(ctx, delay)
		l.client.mu.Lock()
		defer l.client.mu.Unlock()
		if ctx.Err() != nil { // a later subscription is another one's
			return
		}
		delete(l.claimed, uploadID)
		l.takeAsked(uploadID)
		if u := l.client.uploads[uploadID]; u != nil {
			u.stop()
		}
	})
}

func kindOf(code string) error {
	switch code {
	case "forbidden":
		return ErrForbidden
	case "limit_exceeded":
		return ErrLimit
	}
	return ErrStopped
}

func (in incoming) authError() *RefusedError {
	return &RefusedError{Code: in.text("code"), Message: in.text("message"), kind: ErrUnauthorized}
}

// retryAfter returns the delay that a message asks for, at most maxRetryAfter, or 0.
func (in incoming) retryAfter() time.Duration {
	var milliseconds float64
	if json.Unmarshal(in.fields["retry_after_ms"], &milliseconds) != nil || milliseconds <= 0 {
		return 0
	}
	return time.Duration(min(milliseconds, float64(maxRetryAfter.Milliseconds()))) * time.Millisecond
}
