package jwtauth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/shoal-go/shoal/internal/logs"
	"github.com/shoal-go/shoal/internal/service"
)

const (
	// keysTimeout bounds one fetch of the keys.
	keysTimeout = 10 * time.Second
	// keysInterval is the time between two scheduled fetches, which notice a withdrawn key.
	keysInterval = time.Hour
	// keysRetryMin and keysRetryMax bound the time until a scheduled fetch that failed is repeated.
	keysRetryMin, keysRetryMax = time.Second, time.Minute
	// unknownKeyInterval is the minimum time between the starts of two fetches on behalf of tokens, unknownKeyTimeout
	// the time that a token waits for one.
	unknownKeyInterval = 10 * time.Second
	unknownKeyTimeout  = 3 * time.Second
)

// errKeysUnavailable means that it is not known whether a key exists.
var errKeysUnavailable = errors.New("the JWKS cannot be fetched now")

// urlKeys are keys behind a URL. One goroutine fetches them on schedule; tokens that need a newer set share one fetch.
type urlKeys struct {
	opt       Options
	client    *http.Client
	closeIdle func()
	ctx       context.Context // ends all fetches; cancelled by close
	cancel    context.CancelFunc
	running   sync.WaitGroup

	// mu protects the fields below. Nothing blocks with it held.
	mu       sync.Mutex
	set      *keySet
	asOf     time.Time // when the last fetch that has succeeded began
	err      error     // of the last fetch
	fetching *keyFetch // nil: none
	asked    time.Time // start of the last fetch on behalf of a token
	failed   logs.Sampled
}

// keyFetch is one fetch. err is set before done is closed.
type keyFetch struct {
	began time.Time
	done  chan struct{}
	err   error
}

// notKeySetError is an answer that is complete but not a usable key set.
type notKeySetError struct{ error }

// newURLKeys fetches the keys once. An answer that is not a key set is an error; a URL that cannot be reached is not.
func newURLKeys(o Options) (*urlKeys, error) {
	if err := service.CheckURL(o.JWKS); err != nil {
		return nil, err
	}
	u := &urlKeys{opt: o, failed: logs.Sampled{Interval: time.Minute}}
	u.client, u.closeIdle = service.Client(o.Client)
	u.ctx, u.cancel = context.WithCancel(context.Background())
	first, _ := u.start(true)
	<-first.done
	if first.err != nil && errors.As(first.err, new(notKeySetError)) {
		u.close()
		return nil, first.err
	}
	u.running.Go(func() { u.schedule(first.err) })
	return u, nil
}

// schedule fetches the keys every hour, and sooner after a failure.
func (u *urlKeys) schedule(err error) {
	retry := keysRetryMin
	for {
		wait := keysInterval
		if err != nil {
			wait, retry = retry, min(2*retry, keysRetryMax)
		} else {
			retry = keysRetryMin
		}
		select {
		case <-time.After(wait):
		case <-u.ctx.Done():
			return
		}
		f, _ := u.start(true)
		<-f.done
		err = f.err
	}
}

// start returns the fetch in progress, with joined, or a new one. It returns nil if a token asks and the last fetch on
// behalf of one began less than unknownKeyInterval ago.
func (u *urlKeys) start(scheduled bool) (f *keyFetch, joined bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.fetching != nil {
		return u.fetching, true
	}
	now := time.Now()
	if !scheduled {
		if !u.asked.IsZero() && now.Sub(u.asked) < unknownKeyInterval || u.ctx.Err() != nil {
			return nil, false
		}
		u.asked = now
	}
	f = &keyFetch{began: now, done: make(chan struct{})}
	u.fetching = f
	u.running.Go(func() {
		set, err := u.fetch()
		u.finish(f, set, err)
	})
	return f, false
}

// finish adopts the result of a fetch.
func (u *urlKeys) finish(f *keyFetch, set *keySet, err error) {
	u.mu.Lock()
	changed := err == nil && !set.equal(u.set)
	if changed {
		u.set = set
	}
	if err == nil {
		u.asOf = f.began
	}
	u.err, u.fetching, f.err = err, nil, err
	u.mu.Unlock()
	switch {
	case changed:
		u.opt.Logger.Info("JWKS loaded", "keys", len(set.keys))
		set.logSkipped(u.opt.Logger)
	case err != nil && u.ctx.Err() == nil:
		u.failed.Log(u.opt.Logger, slog.LevelWarn, "JWKS fetch failed, keeping the current keys", "error", err)
	}
	close(f.done)
}

// fetch reads the set behind the URL. Its errors do not repeat the URL, which may contain a secret.
func (u *urlKeys) fetch() (*keySet, error) {
	ctx, cancel := context.WithTimeout(u.ctx, keysTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.opt.JWKS, http.NoBody)
	if err != nil {
		return nil, service.WithoutURL(err)
	}
	request.Header.Set("Accept", "application/jwk-set+json, application/json")
	response, err := u.client.Do(request)
	if err != nil {
		return nil, service.WithoutURL(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxJWKSBytes+1))
	switch status := response.StatusCode; {
	case status >= 500 || status == http.StatusTooManyRequests:
		return nil, fmt.Errorf("the server answered %d", status)
	case status != http.StatusOK:
		return nil, notKeySetError{fmt.Errorf("the server answered %d, want 200 with a JSON Web Key Set", status)}
	case err != nil:
		return nil, service.WithoutURL(err)
	case len(text) > maxJWKSBytes:
		return nil, notKeySetError{fmt.Errorf("the answer is too large, want at most %d bytes", maxJWKSBytes)}
	}
	set, err := parseKeySet(text)
	if err != nil {
		return nil, notKeySetError{fmt.Errorf("the answer is %w", err)}
	}
	return set, nil
}

func (u *urlKeys) current() *keySet {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.set
}

// refresh waits for the fetch in progress, or for a new one if the limit permits. An error means that a key that is
// not in the returned set may exist all the same: nothing was fetched, or the fetch had begun before.
func (u *urlKeys) refresh(ctx context.Context) (set *keySet, asOf time.Time, err error) {
	f, joined := u.start(false)
	if f == nil || !f.await(ctx) || f.err != nil || joined {
		err = errKeysUnavailable
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.set, u.asOf, err
}

// await reports whether the fetch has ended within the time of a token and before ctx.
func (f *keyFetch) await(ctx context.Context) bool {
	timeout := time.NewTimer(unknownKeyTimeout)
	defer timeout.Stop()
	select {
	case <-f.done:
		return true
	case <-timeout.C:
	case <-ctx.Done():
	}
	return false
}

func (u *urlKeys) ready() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.set == nil {
		return fmt.Errorf("jwtauth: JWKS: no keys yet: %w", u.err)
	}
	return nil
}

func (u *urlKeys) close() {
	u.mu.Lock() // start adds to running only before this
	u.cancel()
	u.mu.Unlock()
	u.running.Wait()
	u.closeIdle()
}
