package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/shoal-go/shoal/internal/service"
)

// AuthorizeOpen is an [Authorize] that lets every user follow every upload: it returns nil at once.
func AuthorizeOpen(context.Context, Identity, string) error { return nil }

// AuthorizeClaims is an [Authorize] that lets a connection follow the uploads in Identity.Uploads: an entry is an id,
// or a prefix followed by "*"; "*" alone is every upload. With it, each connection gets the messages of these
// uploads only, although subscriptions belong to the user: other connections of the user do not widen a narrow
// token. That holds if Options.Authorize is AuthorizeClaims itself, not for a function that calls it. It returns nil or
// ErrForbidden at once.
func AuthorizeClaims(_ context.Context, id Identity, uploadID string) error {
	if id.allows(uploadID) {
		return nil
	}
	return ErrForbidden
}

// allows reports whether the claims of an identity contain an upload.
func (id *Identity) allows(uploadID string) bool {
	for _, entry := range id.Uploads {
		prefix, isPrefix := strings.CutSuffix(entry, "*")
		if entry == uploadID || isPrefix && strings.HasPrefix(uploadID, prefix) {
			return true
		}
	}
	return false
}

// isAuthorizeClaims reports whether a hook is AuthorizeClaims. Functions cannot be compared, their addresses can.
func isAuthorizeClaims(hook Authorize) bool {
	return hook != nil && reflect.ValueOf(hook).Pointer() == reflect.ValueOf(AuthorizeClaims).Pointer()
}

const (
	// authorizeTimeout bounds one request to the service.
	authorizeTimeout = 3 * time.Second
	// answerTTL is how long an answer is cached: enough for a page that reloads or has several tabs.
	answerTTL = 5 * time.Second
	// maxAnswers bounds the cached answers. Beyond it the oldest is dropped.
	maxAnswers = 10_000
	// maxQuestions bounds the pending decisions. Beyond it further ones are refused for the moment.
	maxQuestions = 10_000
	// maxAnswerBytes is how much of a response body is read, so that its connection can be used again.
	maxAnswerBytes = 4 << 10
)

// AuthorizeURL authorizes by an HTTP service. Authorize may be called from any number of goroutines and blocks until
// the service has answered, or its context ends; a request fails after 3 seconds. At most 64 requests run at a time, of
// 10,000 that are pending; one that nobody waits for any more is not sent.
//
// The service gets a POST with {"user_id":"…","upload_id":"…"} and answers 200 to allow and 403 to forbid. Both answers
// are cached for 5 seconds, and concurrent requests for the same user and upload are merged. Any other answer, a
// redirect included, is an error and refuses for the moment. A question that meets the end of an idle connection is
// sent again.
type AuthorizeURL struct {
	url       string
	client    *http.Client
	closeIdle func()
	ctx       context.Context // ends all requests; cancelled by Close
	// slots bounds the concurrent requests. The time of a request does not include the wait for a slot.
	slots  chan struct{}
	cancel context.CancelFunc

	// mu protects the fields below. Nothing blocks with it held.
	mu        sync.Mutex
	closed    bool
	decisions map[string]*decision // pending and cached
	cached    []string             // keys of the cached decisions, oldest first
	requests  sync.WaitGroup
}

// decision is the answer for one user and upload. err is set before done is closed. The other fields are protected by
// AuthorizeURL.mu.
type decision struct {
	done    chan struct{}
	err     error
	expires time.Time
	// waiting is the number of calls that wait for a pending decision. It is abandoned, and done closed, when the last of
	// them leaves before it is asked: before its request is sent.
	waiting int
	asked   bool
}

var (
	errAuthorizerClosed = errors.New("server: the authorizer is closed")
	errAuthorizerBusy   = errors.New("server: too many requests wait for the authorizer")
)

// NewAuthorizeURL returns an AuthorizeURL for the service at an absolute http or https URL, to be closed with Close.
// client sends the requests, except that redirects are not followed; nil: a client of its own. The error is that of an
// address of another form; the service is not asked.
func NewAuthorizeURL(address string, client *http.Client) (*AuthorizeURL, error) {
	if err := service.CheckURL(address); err != nil {
		return nil, fmt.Errorf("server: authorizer: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	a := &AuthorizeURL{
		url: address, ctx: ctx, cancel: cancel,
		slots: make(chan struct{}, service.MaxConnections), decisions: make(map[string]*decision),
	}
	a.client, a.closeIdle = service.Client(client)
	return a, nil
}

// Authorize is an [Authorize]. It blocks until the service has answered, at most until ctx ends. It returns
// ErrForbidden if the service forbids, and any other error if it has not answered.
func (a *AuthorizeURL) Authorize(ctx context.Context, id Identity, uploadID string) error {
	// The length makes the key unambiguous for all ids.
	key := strconv.Itoa(len(id.UserID)) + ":" + id.UserID + uploadID
	d, err := a.decide(key, id.UserID, uploadID)
	if err != nil {
		return err
	}
	select {
	case <-d.done:
		return d.err
	case <-ctx.Done():
		a.leave(key, d)
		return fmt.Errorf("server: asking the authorizer: %w", context.Cause(ctx))
	}
}

// decide returns the pending or cached decision for a user and an upload, or requests one. The request runs in a
// goroutine of its own, so that a client that leaves does not cancel it for the others that wait for it.
func (a *AuthorizeURL) decide(key, userID, uploadID string) (*decision, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return nil, errAuthorizerClosed
	}
	a.evictLocked(time.Now(), maxAnswers)
	if d, known := a.decisions[key]; known {
		d.waiting++
		return d, nil
	}
	if len(a.decisions)-len(a.cached) >= maxQuestions {
		return nil, errAuthorizerBusy
	}
	d := &decision{done: make(chan struct{}), waiting: 1}
	a.decisions[key] = d
	a.requests.Go(func() { a.ask(key, d, userID, uploadID) })
	return d, nil
}

// leave ends the wait of one call, and drops a decision that nobody waits for and that is not asked yet.
func (a *AuthorizeURL) leave(key string, d *decision) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if d.waiting--; d.waiting == 0 && !d.asked {
		delete(a.decisions, key)
		close(d.done)
	}
}

// ask waits for a slot and requests the decision, unless it is abandoned first.
func (a *AuthorizeURL) ask(key string, d *decision, userID, uploadID string) {
	select {
	case a.slots <- struct{}{}:
		defer func() { <-a.slots }()
	case <-a.ctx.Done():
	case <-d.done:
		return
	}
	if !a.begin(d) {
		return
	}
	if d.err = errAuthorizerClosed; a.ctx.Err() == nil {
		d.err = a.request(userID, uploadID)
	}
	a.cache(key, d)
	close(d.done)
}

// begin reports whether a decision is still to be asked. It is not abandoned from then on.
func (a *AuthorizeURL) begin(d *decision) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	d.asked = d.waiting > 0
	return d.asked
}

// cache keeps a decision until it expires. A failure is not cached.
func (a *AuthorizeURL) cache(key string, d *decision) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if d.err != nil && !errors.Is(d.err, ErrForbidden) {
		delete(a.decisions, key)
		return
	}
	now := time.Now()
	a.evictLocked(now, maxAnswers-1)
	d.expires = now.Add(answerTTL)
	a.cached = append(a.cached, key)
}

// evictLocked drops the cached decisions that have expired, and the oldest ones beyond limit.
func (a *AuthorizeURL) evictLocked(now time.Time, limit int) {
	for len(a.cached) > 0 {
		oldest := a.cached[0]
		if len(a.cached) <= limit && now.Before(a.decisions[oldest].expires) {
			return
		}
		delete(a.decisions, oldest)
		a.cached = a.cached[1:]
	}
}

// request sends one request to the service.
func (a *AuthorizeURL) request(userID, uploadID string) error {
	body, err := json.Marshal(struct {
		UserID   string `json:"user_id"`
		UploadID string `json:"upload_id"`
	}{userID, uploadID})
	if err != nil {
		return fmt.Errorf("server: asking the authorizer: %w", err)
	}
	ctx, cancel := context.WithTimeout(a.ctx, authorizeTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, a.url, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("server: asking the authorizer: %w", err)
	}
	request.Header.Set("Content-Type", "application/json")
	service.Repeatable(request) // the service only answers
	response, err := a.client.Do(request)
	if err != nil {
		return fmt.Errorf("server: asking the authorizer: %w", service.WithoutURL(err))
	}
	defer response.Body.Close()
	// The status is the answer. A short body is read so that the connection can be used again.
	_, _ = io.CopyN(io.Discard, response.Body, maxAnswerBytes)
	switch response.StatusCode {
	case http.StatusOK:
		return nil
	case http.StatusForbidden:
		return ErrForbidden
	}
	return fmt.Errorf("server: the authorizer answered %d, want 200 or 403", response.StatusCode)
}

// Close cancels pending requests and waits for them; later calls of Authorize fail. Further calls have no effect.
func (a *AuthorizeURL) Close() {
	a.mu.Lock()
	a.closed = true
	a.mu.Unlock()
	a.cancel()
	a.requests.Wait()
	a.closeIdle()
}
