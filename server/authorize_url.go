package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"
)

const (
	// authorizeTimeout bounds one question.
	authorizeTimeout = 3 * time.Second
	// answerTTL is how long an answer holds: enough for a page that reloads or has several tabs.
	answerTTL = 5 * time.Second
	// maxAnswers bounds the answers that are held. Beyond it the oldest gives way.
	maxAnswers = 10_000
	// maxAnswerBytes is how much of an answer's body is read, only so that its connection can be used again.
	maxAnswerBytes = 4 << 10
)

// AuthorizeURL asks an HTTP service who may follow what. Authorize may be called from any number of
// goroutines, and waits for the service: at most 3 seconds, and no longer than its context.
//
// The service gets a POST with {"user_id":"…","upload_id":"…"} and answers 200 for yes, 403 for no. Both are
// remembered for 5 seconds, and the same question is not asked twice at a time. Anything else, a redirect
// included, is an error and refuses.
type AuthorizeURL struct {
	url    string
	client *http.Client
	ctx    context.Context // of all questions; ended by Close
	cancel context.CancelFunc

	// mu protects the rest. Nothing waits under it.
	mu        sync.Mutex
	closed    bool
	questions map[string]*question // those being asked and those answered lately
	answered  []string             // the keys of the latter, oldest first, each once
	asking    sync.WaitGroup
}

// question is one question and, when done is closed, its answer.
type question struct {
	done    chan struct{}
	err     error
	expires time.Time
}

// NewAuthorizeURL returns an AuthorizeURL that asks the service at an absolute http or https URL. client
// is what it asks with, except that redirects are not followed; nil: one of its own. Close must be called
// in the end.
func NewAuthorizeURL(service string, client *http.Client) (*AuthorizeURL, error) {
	if err := checkServiceURL(service); err != nil {
		return nil, fmt.Errorf("server: authorizer: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &AuthorizeURL{
		url:       service,
		client:    boundedClient(client, maxAnswerBytes),
		ctx:       ctx,
		cancel:    cancel,
		questions: make(map[string]*question),
	}, nil
}

// Authorize is an [Authorize]. It returns ErrForbidden for the answer no, and any other error if there is no
// answer.
func (a *AuthorizeURL) Authorize(ctx context.Context, id Identity, uploadID string) error {
	q, err := a.question(id.UserID, uploadID)
	if err != nil {
		return err
	}
	select {
	case <-q.done:
		return q.err
	case <-ctx.Done():
		return fmt.Errorf("server: asking the authorizer: %w", context.Cause(ctx))
	}
}

// question returns the question whether the user may follow the upload: one that is being asked or has been
// answered lately, else a new one. The service is asked in a goroutine of its own, so that a client
// that leaves takes no answer away from the others who wait for it.
func (a *AuthorizeURL) question(userID, uploadID string) (*question, error) {
	// The length makes the key unambiguous, whatever the ids contain.
	key := strconv.Itoa(len(userID)) + ":" + userID + uploadID
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return nil, errors.New("server: the authorizer is closed")
	}
	a.forgetLocked(time.Now(), maxAnswers)
	if q, known := a.questions[key]; known {
		return q, nil
	}
	q := &question{done: make(chan struct{})}
	a.questions[key] = q
	a.asking.Go(func() {
		q.err = a.ask(userID, uploadID)
		a.keep(key, q)
		close(q.done)
	})
	return q, nil
}

// keep remembers an answer. A failure is not one, and is asked about again.
func (a *AuthorizeURL) keep(key string, q *question) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if q.err != nil && !errors.Is(q.err, ErrForbidden) {
		delete(a.questions, key)
		return
	}
	now := time.Now()
	a.forgetLocked(now, maxAnswers-1)
	q.expires = now.Add(answerTTL)
	a.answered = append(a.answered, key)
}

// forgetLocked drops the answers that have expired, and the oldest of those beyond limit.
func (a *AuthorizeURL) forgetLocked(now time.Time, limit int) {
	for len(a.answered) > 0 {
		oldest := a.answered[0]
		if len(a.answered) <= limit && now.Before(a.questions[oldest].expires) {
			return
		}
		delete(a.questions, oldest)
		a.answered = a.answered[1:]
	}
}

// ask puts a question to the service.
func (a *AuthorizeURL) ask(userID, uploadID string) error {
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
	response, err := a.client.Do(request)
	if err != nil {
		return fmt.Errorf("server: asking the authorizer: %w", withoutURL(err))
	}
	defer response.Body.Close()
	// The status is the answer. The body is read only for the connection's sake, and may be cut short.
	_, _ = io.Copy(io.Discard, response.Body)
	switch response.StatusCode {
	case http.StatusOK:
		return nil
	case http.StatusForbidden:
		return ErrForbidden
	}
	return fmt.Errorf("server: the authorizer answered %d, want 200 or 403", response.StatusCode)
}

// Close ends the questions that are being asked and waits for that; who asks later is refused. Further calls
// have no effect.
func (a *AuthorizeURL) Close() {
	a.mu.Lock()
	a.closed = true
	a.mu.Unlock()
	a.cancel()
	a.asking.Wait()
	a.client.CloseIdleConnections()
}
