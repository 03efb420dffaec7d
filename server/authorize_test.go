package server

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/shoal/internal/service"
)

// roundTripper answers requests without a network, which synctest needs.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func respond(status int) (*http.Response, error) {
	return &http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader("{}"))}, nil
}

func newAuthorizer(t *testing.T, url string, f roundTripper) *AuthorizeURL {
	t.Helper()
	var client *http.Client
	if f != nil {
		client = &http.Client{Transport: f}
	}
	a, err := NewAuthorizeURL(url, client)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	return a
}

var alice = Identity{UserID: "alice"}

func TestAuthorizeOpen(t *testing.T) {
	if err := AuthorizeOpen(t.Context(), alice, "any"); err != nil {
		t.Error(err)
	}
}

func TestAuthorizeClaims(t *testing.T) {
	for _, c := range []struct {
		uploads []string
		id      string
		allowed bool
	}{
		{nil, "u1", false},
		{[]string{"u1"}, "u1", true},
		{[]string{"u1"}, "u10", false},
		{[]string{"u10"}, "u1", false},
		{[]string{"x", "team-*"}, "team-7", true},
		{[]string{"team-*"}, "team-", true},
		{[]string{"team-*"}, "team", false},
		{[]string{"*"}, "anything", true},
		{[]string{"a*b"}, "axb", false},
		{[]string{"a*b"}, "a*b", true},
		{[]string{""}, "u1", false},
		{[]string{"U1"}, "u1", false},
	} {
		err := AuthorizeClaims(t.Context(), Identity{UserID: "alice", Uploads: c.uploads}, c.id)
		if c.allowed && err != nil || !c.allowed && !errors.Is(err, ErrForbidden) {
			t.Errorf("uploads %q, upload %q: err = %v, allowed should be %v", c.uploads, c.id, err, c.allowed)
		}
	}
}

func TestAuthorizeURL_SendsRequest(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var q map[string]string
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil || r.Method != http.MethodPost ||
			r.Header.Get("Content-Type") != "application/json" || len(q) != 2 || q["user_id"] != "alice" {
			t.Errorf("asked with %s %v, err = %v", r.Method, q, err)
		}
		if q["upload_id"] != "hers" {
			w.WriteHeader(http.StatusForbidden)
		}
		_, _ = io.WriteString(w, strings.Repeat("x", maxAnswerBytes*2))
	}))
	defer s.Close()
	a := newAuthorizer(t, s.URL, nil)
	if err := a.Authorize(t.Context(), alice, "hers"); err != nil {
		t.Errorf("yes: %v", err)
	}
	if err := a.Authorize(t.Context(), alice, "not hers"); !errors.Is(err, ErrForbidden) {
		t.Errorf("no: %v", err)
	}
}

func TestAuthorizeURL_FailsClosed(t *testing.T) {
	yes := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer yes.Close()
	for _, status := range []int{201, 204, 302, 307, 308, 400, 401, 404, 429, 500, 503} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", yes.URL)
			w.WriteHeader(status)
		}))
		err := newAuthorizer(t, s.URL, nil).Authorize(t.Context(), alice, "u1")
		if err == nil || errors.Is(err, ErrForbidden) || !strings.Contains(err.Error(), fmt.Sprint(status)) {
			t.Errorf("status %d: err = %v, want an error that names it", status, err)
		}
		s.Close()
	}
}

func TestAuthorizeURL_OutOfReachHidesTheAddress(t *testing.T) {
	s := httptest.NewServer(nil)
	s.Close()
	a := newAuthorizer(t, s.URL+"/?key=hidden", nil)
	err := a.Authorize(t.Context(), alice, "u1")
	if err == nil || errors.Is(err, ErrForbidden) || strings.Contains(err.Error(), "hidden") {
		t.Errorf("err = %v, want an error without the address", err)
	}
}

func TestAuthorizeURL_TimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthorizer(t, "http://authorizer.example", func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		})
		start := time.Now()
		if err := a.Authorize(t.Context(), alice, "u1"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("err = %v", err)
		}
		if waited := time.Since(start); waited != authorizeTimeout {
			t.Errorf("waited %v, want %v", waited, authorizeTimeout)
		}
	})
}

func TestAuthorizeURL_CachesBothAnswers(t *testing.T) {
	for _, status := range []int{http.StatusOK, http.StatusForbidden} {
		synctest.Test(t, func(t *testing.T) {
			asked := 0
			a := newAuthorizer(t, "http://authorizer.example", func(*http.Request) (*http.Response, error) {
				asked++
				return respond(status)
			})
			ask := func(want int) {
				t.Helper()
				if err := a.Authorize(t.Context(), alice, "u1"); (err == nil) != (status == http.StatusOK) {
					t.Errorf("status %d: err = %v", status, err)
				}
				if asked != want {
					t.Errorf("status %d: asked %d times, want %d", status, asked, want)
				}
			}
			ask(1)
			<-time.After(answerTTL - time.Nanosecond)
			ask(1)
			<-time.After(time.Nanosecond)
			ask(2)
		})
	}
}

func TestAuthorizeURL_DoesNotCacheFailures(t *testing.T) {
	status := http.StatusInternalServerError
	a := newAuthorizer(t, "http://authorizer.example", func(*http.Request) (*http.Response, error) {
		return respond(status)
	})
	if err := a.Authorize(t.Context(), alice, "u1"); err == nil {
		t.Error("no error")
	}
	status = http.StatusOK
	if err := a.Authorize(t.Context(), alice, "u1"); err != nil {
		t.Error(err)
	}
}

func TestAuthorizeURL_DistinguishesUsersAndUploads(t *testing.T) {
	a := newAuthorizer(t, "http://authorizer.example", func(r *http.Request) (*http.Response, error) {
		body, _ := io.ReadAll(r.Body)
		if string(body) == `{"user_id":"ab","upload_id":"c"}` {
			return respond(http.StatusOK)
		}
		return respond(http.StatusForbidden)
	})
	if err := a.Authorize(t.Context(), Identity{UserID: "ab"}, "c"); err != nil {
		t.Error(err)
	}
	if err := a.Authorize(t.Context(), Identity{UserID: "a"}, "bc"); !errors.Is(err, ErrForbidden) {
		t.Errorf("another user: err = %v", err)
	}
}

func TestAuthorizeURL_MergesConcurrentRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		release := make(chan struct{})
		a := newAuthorizer(t, "http://authorizer.example", func(*http.Request) (*http.Response, error) {
			asked.Add(1)
			<-release
			return respond(http.StatusOK)
		})
		left, leave := context.WithCancel(t.Context())
		var waiting sync.WaitGroup
		waiting.Go(func() {
			if err := a.Authorize(left, alice, "u1"); !errors.Is(err, context.Canceled) {
				t.Errorf("who has left: err = %v", err)
			}
		})
		synctest.Wait()
		for range 10 {
			waiting.Go(func() {
				if err := a.Authorize(t.Context(), alice, "u1"); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		leave() // The first asker leaves, and the others are answered all the same.
		synctest.Wait()
		close(release)
		waiting.Wait()
		if n := asked.Load(); n != 1 {
			t.Errorf("asked %d times, want once", n)
		}
	})
}

func TestAuthorizeURL_CacheIsBounded(t *testing.T) {
	asked := 0
	a := newAuthorizer(t, "http://authorizer.example", func(*http.Request) (*http.Response, error) {
		asked++
		return respond(http.StatusOK)
	})
	ask := func(i int) {
		t.Helper()
		if err := a.Authorize(t.Context(), alice, fmt.Sprint("u", i)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range maxAnswers + 100 {
		ask(i)
	}
	if n := len(a.decisions); n > maxAnswers || n != len(a.cached) {
		t.Errorf("%d questions and %d answers are held, want at most %d", n, len(a.cached), maxAnswers)
	}
}

func TestAuthorizeURL_Close(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthorizer(t, "http://authorizer.example", func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		})
		refused := make(chan error)
		go func() { refused <- a.Authorize(t.Context(), alice, "u1") }()
		synctest.Wait()
		a.Close()
		if err := <-refused; !errors.Is(err, context.Canceled) {
			t.Errorf("who waits: err = %v", err)
		}
		if err := a.Authorize(t.Context(), alice, "u1"); err == nil {
			t.Error("no error after Close")
		}
		a.Close()
	})
}

func TestAuthorizeURL_RefusesInvalidAddresses(t *testing.T) {
	for _, url := range []string{"", "authorizer.example", "/path", "ftp://host", "http://", "http://%zz"} {
		if _, err := NewAuthorizeURL(url, nil); err == nil {
			t.Errorf("%q: no error", url)
		}
	}
}

// Requests beyond the bound wait for their turn, and that wait does not count against the time of a request.
func TestAuthorizeURL_RequestsWaitForTheirTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var running, most atomic.Int64
		a := newAuthorizer(t, "https://service.example", func(*http.Request) (*http.Response, error) {
			now := running.Add(1)
			defer running.Add(-1)
			for old := most.Load(); now > old && !most.CompareAndSwap(old, now); old = most.Load() {
			}
			<-time.After(2500 * time.Millisecond)
			return respond(200)
		})
		var all sync.WaitGroup
		for i := range 4 * service.MaxConnections {
			all.Go(func() {
				if err := a.Authorize(t.Context(), alice, fmt.Sprint("u", i)); err != nil {
					t.Error(err)
				}
			})
		}
		begin := time.Now()
		all.Wait()
		if took := time.Since(begin); most.Load() != service.MaxConnections || took != 10*time.Second {
			t.Errorf("%d at a time, all after %v, want %d and 10s", most.Load(), took, service.MaxConnections)
		}
	})
}

// TestAuthorizeURL_AbandonedQuestionsAreNotAsked: the service is not asked for callers that have left before their turn,
// and nothing of them is left; one that waits beside others that leave is answered.
func TestAuthorizeURL_AbandonedQuestionsAreNotAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		answer := make(chan struct{})
		a := newAuthorizer(t, "https://service.example", func(*http.Request) (*http.Response, error) {
			asked.Add(1)
			<-answer
			return respond(200)
		})
		var staying, leaving sync.WaitGroup
		stay := func(id string) {
			staying.Go(func() {
				if err := a.Authorize(t.Context(), alice, id); err != nil {
					t.Error(err)
				}
			})
		}
		for i := range service.MaxConnections {
			stay(fmt.Sprint("first", i))
		}
		synctest.Wait()
		ctx, leave := context.WithCancel(t.Context())
		for i := range 1000 {
			leaving.Go(func() {
				if err := a.Authorize(ctx, alice, fmt.Sprint("u", i)); !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		stay("u0")
		synctest.Wait()
		leave()
		leaving.Wait()
		synctest.Wait()
		if len(a.decisions) != service.MaxConnections+1 {
			t.Errorf("%d decisions are left", len(a.decisions))
		}
		stay("u1") // again
		synctest.Wait()
		close(answer)
		staying.Wait()
		if want := int64(service.MaxConnections + 2); asked.Load() != want {
			t.Errorf("the service was asked %d times, want %d", asked.Load(), want)
		}
	})
}

// TestAuthorizeURL_QuestionsAreBounded: beyond the bound an upload is refused for the moment, unless its answer is
// pending already.
func TestAuthorizeURL_QuestionsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answer := make(chan struct{})
		a := newAuthorizer(t, "https://service.example", func(*http.Request) (*http.Response, error) {
			<-answer
			return respond(200)
		})
		var all sync.WaitGroup
		allow := func(id string) {
			all.Go(func() {
				if err := a.Authorize(t.Context(), alice, id); err != nil {
					t.Error(err)
				}
			})
		}
		for i := range maxQuestions {
			allow(fmt.Sprint("u", i))
		}
		synctest.Wait()
		allow("u0")
		if err := a.Authorize(t.Context(), alice, "one more"); err == nil || errors.Is(err, ErrForbidden) {
			t.Errorf("one more: err = %v, want an error for the moment", err)
		}
		close(answer)
		all.Wait()
		if err := a.Authorize(t.Context(), alice, "one more"); err != nil {
			t.Error(err)
		}
	})
}

// A question that meets the end of an idle connection, which the service closes on its own account, is asked again.
func TestAuthorizeURL_AsksAgainAfterTheEndOfAnIdleConnection(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var connections sync.WaitGroup
	defer connections.Wait()
	defer ln.Close()
	answerOnce := func(conn net.Conn) {
		defer conn.Close()
		r := bufio.NewReader(conn)
		request, err := http.ReadRequest(r)
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.Copy(io.Discard, request.Body)
		if _, sent := request.Header["X-Idempotency-Key"]; sent {
			t.Error("the service gets a header that is for net/http")
		}
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		_, _ = r.Peek(1) // the next question, or the end of the test
	}
	connections.Go(func() {
		for conn, err := ln.Accept(); err == nil; conn, err = ln.Accept() {
			connections.Go(func() { answerOnce(conn) })
		}
	})
	a := newAuthorizer(t, "http://"+ln.Addr().String(), nil)
	defer a.Close()
	for _, id := range []string{"u1", "u2", "u3"} {
		if err := a.Authorize(t.Context(), alice, id); err != nil {
			t.Errorf("%s: %v", id, err)
		}
	}
}
