package webhook

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	mathrand "math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoal-go/shoal/internal/logs"
	"github.com/shoal-go/shoal/internal/service"
)

const (
	// queueEvents bounds the events that have not been sent, batchEvents those of one request.
	queueEvents, batchEvents = 10_000, 100
	// collect is how long a batch that is not full waits for further events.
	collect = 100 * time.Millisecond
	// attemptTimeout bounds one request. Between two attempts the pause doubles from minPause to maxPause, and after
	// giveUp the batch is dropped.
	attemptTimeout     = 10 * time.Second
	minPause, maxPause = 500 * time.Millisecond, time.Minute
	giveUp             = 15 * time.Minute
	// maxAnswer is how much of an answer is read, so that its connection can be used again.
	maxAnswer = 4 << 10
)

// Headers of a request. The signature is "v1=" and the hexadecimal HMAC-SHA256, with the secret, of the timestamp, a
// dot and the body. The timestamp is the time of the attempt, in Unix seconds.
const (
	TimestampHeader = "Shoal-Timestamp"
	SignatureHeader = "Shoal-Signature"
)

// Options configure a Sender.
type Options struct {
	// URL is the service, and Secret signs the requests.
	URL    string
	Secret []byte
	// Node is the name of this node in each request.
	Node string
	// Kinds are the events that are sent.
	Kinds []Kind
	// Transport sends the requests. nil: one of its own.
	Transport http.RoundTripper
	// Logger gets failures, never an event. nil: nothing is logged.
	Logger *slog.Logger
}

// Sender sends events. Send may be called from any number of goroutines and does not block.
type Sender struct {
	opt    Options
	client *http.Client
	run    string // part of the ids of events and connections
	count  atomic.Uint64
	queue  chan Event
	ctx    context.Context // ends the requests; cancelled by Close
	cancel context.CancelFunc
	ended  chan struct{}
	// Lines about failed requests and about dropped events.
	failures, drops logs.Sampled

	mu     sync.RWMutex // protects closed against Send; nothing blocks under it
	closed bool

	sent, dropped, failed atomic.Uint64
}

// New returns a running Sender, to be closed with Close, or an error if the node has no name.
func New(opt Options) (*Sender, error) {
	if opt.Node == "" {
		return nil, errors.New("webhook: Options.Node is missing: a service could not tell the nodes apart")
	}
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	transport := opt.Transport
	if transport == nil {
		transport = &http.Transport{Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute}
	}
	s := &Sender{
		opt: opt, run: rand.Text(), queue: make(chan Event, queueEvents), ended: make(chan struct{}),
		client: &http.Client{
			Transport: transport,
			// Events are for the service that was named, and no other.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		failures: logs.Sampled{Interval: 10 * time.Second}, drops: logs.Sampled{Interval: 10 * time.Second},
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	go s.work()
	return s, nil
}

// Wants reports whether events of a kind are sent.
func (s *Sender) Wants(kind Kind) bool { return slices.Contains(s.opt.Kinds, kind) }

// Send queues an event, unless its kind is not wanted. It sets ID and At. An event that does not fit is dropped.
func (s *Sender) Send(e Event) {
	if !s.Wants(e.Kind) {
		return
	}
	e.ID = s.id(s.count.Add(1))
	e.At = time.Now().UTC()
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		s.drop(1, errClosed)
		return
	}
	select {
	case s.queue <- e:
	default:
		s.drop(1, errFull)
	}
}

// The reasons for dropping an event that is not queued.
var (
	errFull   = errors.New("the queue is full: the service takes fewer events than occur")
	errClosed = errors.New("the sender is closed")
)

// id returns an id that contains a number and that no other process has.
func (s *Sender) id(number uint64) string { return s.run + "-" + strconv.FormatUint(number, 10) }

// Counts are events since New.
type Counts struct {
	// Sent counts the events that the service has accepted, Dropped the events that it will not get.
	Sent, Dropped uint64
	// FailedAttempts are requests that failed.
	FailedAttempts uint64
	// Queued wait now.
	Queued int
}

// Counts returns the counts.
func (s *Sender) Counts() Counts {
	return Counts{s.sent.Load(), s.dropped.Load(), s.failed.Load(), len(s.queue)}
}

// Close sends the queued events and ends the goroutine. It blocks until then, at most until ctx ends: the events that
// are left are dropped. Further calls have no effect.
func (s *Sender) Close(ctx context.Context) {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.queue)
	}
	s.mu.Unlock()
	select {
	case <-s.ended:
	case <-ctx.Done():
		s.cancel()
		<-s.ended
	}
	s.cancel()
	s.client.CloseIdleConnections()
}

func (s *Sender) drop(events int, err error) {
	s.dropped.Add(uint64(events)) //nolint:gosec // not negative
	s.drops.Log(s.opt.Logger, slog.LevelWarn, "webhook events dropped", "events", events, "error", err)
}

func (s *Sender) work() {
	defer close(s.ended)
	for {
		events, more := s.next()
		if len(events) > 0 {
			s.deliver(events)
		}
		if !more {
			return
		}
	}
}

// next waits for events and returns a batch of them, and false when there will be no more.
func (s *Sender) next() (events []Event, more bool) {
	first, ok := <-s.queue
	if !ok {
		return nil, false
	}
	events = append(events, first)
	timer := time.NewTimer(collect)
	defer timer.Stop()
	for len(events) < batchEvents {
		select {
		case e, ok := <-s.queue:
			if !ok {
				return events, false
			}
			events = append(events, e)
		case <-timer.C:
			return events, true
		}
	}
	return events, true
}

// refusedError is an answer that a repetition does not change.
type refusedError struct{ status int }

func (e refusedError) Error() string { return fmt.Sprintf("the service answered %d", e.status) }

// deliver sends a batch until the service has taken it, refuses it for good, or giveUp has passed.
func (s *Sender) deliver(events []Event) {
	body, err := json.Marshal(batch{s.opt.Node, events})
	if err != nil {
		s.drop(len(events), err)
		return
	}
	deadline := time.Now().Add(giveUp)
	for pause := minPause; ; pause = min(2*pause, maxPause) {
		if err = s.attempt(body); err == nil {
			s.sent.Add(uint64(len(events)))
			return
		}
		s.failed.Add(1)
		s.failures.Log(s.opt.Logger, slog.LevelWarn, "webhook failed", "events", len(events), "error", err)
		var refused refusedError
		if errors.As(err, &refused) || time.Now().After(deadline) || !s.wait(pause/2+mathrand.N(pause)) {
			s.drop(len(events), err)
			return
		}
	}
}

// wait waits for a while and reports false if Close has run out of time.
func (s *Sender) wait(pause time.Duration) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-s.ctx.Done():
		return false
	}
}

// attempt sends a request.
func (s *Sender) attempt(body []byte) error {
	ctx, cancel := context.WithTimeout(s.ctx, attemptTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.opt.URL, bytes.NewReader(body))
	if err != nil {
		return errors.New("the address of the service cannot be used")
	}
	timestamp := strconv.FormatInt(time.Now().Unix(), 10)
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("User-Agent", "shoal-webhook")
	request.Header.Set(TimestampHeader, timestamp)
	request.Header.Set(SignatureHeader, Sign(s.opt.Secret, timestamp, body))
	response, err := s.client.Do(request)
	if err != nil {
		return service.WithoutURL(err)
	}
	defer response.Body.Close()
	_, _ = io.CopyN(io.Discard, response.Body, maxAnswer)
	switch code := response.StatusCode; {
	case code >= 200 && code < 300:
		return nil
	case code >= 400 && code < 500 && code != http.StatusRequestTimeout && code != http.StatusTooManyRequests:
		return refusedError{code}
	default:
		return fmt.Errorf("the service answered %d", code)
	}
}

// Sign returns the signature of a request.
func Sign(secret []byte, timestamp string, body []byte) string {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(timestamp))
	mac.Write([]byte{'.'})
	mac.Write(body)
	return "v1=" + hex.EncodeToString(mac.Sum(nil))
}
