package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/shoal-go/shoal/internal/testlog"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// recipient is a service of the operator, as a transport.
type recipient struct {
	mu     sync.Mutex
	answer func(request int) (status int, err error) // nil: 200
	hang   bool
	calls  int
	at     []time.Time
	events []Event
	sizes  []int
	bad    []string
}

func (s *recipient) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	s.at = append(s.at, time.Now())
	if s.hang {
		s.mu.Unlock()
		<-r.Context().Done()
		s.mu.Lock()
		return nil, r.Context().Err()
	}
	if got, want := r.Header.Get(SignatureHeader), Sign([]byte("secret"), r.Header.Get(TimestampHeader), body); got != want {
		s.bad = append(s.bad, got)
	}
	status := http.StatusOK
	if s.answer != nil {
		if status, err = s.answer(s.calls); err != nil {
			return nil, err
		}
	}
	var b batch
	if err := json.Unmarshal(body, &b); err != nil || b.Node != "n1" {
		s.bad = append(s.bad, string(body))
	}
	if status < 300 {
		s.events = append(s.events, b.Events...)
		s.sizes = append(s.sizes, len(b.Events))
	}
	return &http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader("ok")), Request: r}, nil
}

func (s *recipient) sender(kinds ...Kind) *Sender {
	if len(kinds) == 0 {
		kinds = Kinds()
	}
	sender, err := New(Options{
		URL: "http://user:pass@s/hook", Secret: []byte("secret"), Node: "n1", Kinds: kinds, Transport: s,
	})
	if err != nil {
		panic(err)
	}
	return sender
}

func TestNew_RefusesNodesWithoutName(t *testing.T) {
	if _, err := New(Options{URL: "http://s/hook", Kinds: Kinds()}); err == nil || !strings.Contains(err.Error(), "Node") {
		t.Errorf("the error is %v", err)
	}
}

// Two processes of one node use no id twice.
func TestSender_IDsOfProcessesDiffer(t *testing.T) {
	first, second := (&recipient{}).sender(), (&recipient{}).sender()
	if first.id(1) == second.id(1) || first.id(1) == first.id(2) {
		t.Errorf("the ids are %s, %s and %s", first.id(1), first.id(2), second.id(1))
	}
	closeWithin(first, time.Minute)
	closeWithin(second, time.Minute)
}

func closeWithin(s *Sender, d time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	s.Close(ctx)
}

// Events come once, in order, in batches, signed.
func TestSender_BatchesInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := &recipient{}
		s := to.sender(Subscribed)
		for i := range 250 {
			s.Send(Event{Kind: Subscribed, UploadID: fmt.Sprint(i)})
			s.Send(Event{Kind: Connected, UserID: "not wanted"})
		}
		closeWithin(s, time.Minute)
		seen := map[string]bool{}
		for i, e := range to.events {
			if e.UploadID != fmt.Sprint(i) || e.ID == "" || seen[e.ID] || e.At.IsZero() {
				t.Fatalf("event %d is %+v", i, e)
			}
			seen[e.ID] = true
		}
		if len(to.events) != 250 || to.calls != 3 || len(to.bad) > 0 {
			t.Errorf("%d events in %d requests, wrong: %q", len(to.events), to.calls, to.bad)
		}
		if c := s.Counts(); c.Sent != 250 || c.Dropped != 0 {
			t.Errorf("counts are %+v", c)
		}
	})
}

// A failure is repeated with growing pauses, and order is kept.
func TestSender_RepeatsUntilTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := &recipient{answer: func(n int) (int, error) {
			switch {
			case n == 1:
				return 0, errors.New("connection refused")
			case n < 6:
				return []int{500, 503, 429, 302}[n-2], nil
			}
			return 204, nil
		}}
		s := to.sender()
		s.Send(Event{Kind: Connected, UserID: "first"})
		<-time.After(time.Second)
		s.Send(Event{Kind: Connected, UserID: "second"})
		<-time.After(2 * time.Minute)
		closeWithin(s, time.Minute)
		if len(to.events) != 2 || to.events[0].UserID != "first" || s.Counts().FailedAttempts != 5 {
			t.Fatalf("events are %+v, counts %+v", to.events, s.Counts())
		}
		for i := 2; i < 6; i++ {
			if pause := to.at[i].Sub(to.at[i-1]); pause < minPause<<(i-1)/2 || pause > minPause<<(i-1)*3/2 {
				t.Errorf("pause %d is %v", i, pause)
			}
		}
	})
}

// An answer that a repetition does not change costs its batch only; a service that stays away costs it after a while.
func TestSender_DropsWhatIsNeverTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := &recipient{answer: func(n int) (int, error) {
			if n == 1 {
				return 401, nil
			}
			return 200, nil
		}}
		s := to.sender()
		s.Send(Event{Kind: Connected, UserID: "refused"})
		<-time.After(time.Second)
		s.Send(Event{Kind: Connected, UserID: "taken"})
		<-time.After(time.Second)
		closeWithin(s, time.Minute)
		if len(to.events) != 1 || to.events[0].UserID != "taken" || s.Counts().Dropped != 1 {
			t.Errorf("events are %+v, counts %+v", to.events, s.Counts())
		}

		away := &recipient{answer: func(int) (int, error) { return 0, errors.New("away") }}
		s = away.sender()
		s.Send(Event{Kind: Connected})
		<-time.After(giveUp + 2*maxPause)
		synctest.Wait()
		if s.Counts().Dropped != 1 {
			t.Errorf("counts are %+v", s.Counts())
		}
		closeWithin(s, time.Minute)
	})
}

// The queue is bounded, Send never waits, and the end does not either.
func TestSender_IsInNobodysWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := &recipient{hang: true}
		s := to.sender()
		begin := time.Now()
		const more = 500
		for range queueEvents + batchEvents + more {
			s.Send(Event{Kind: Subscribed})
		}
		if c := s.Counts(); time.Since(begin) > 0 || c.Dropped < more || c.Queued > queueEvents {
			t.Errorf("it took %v, counts are %+v", time.Since(begin), c)
		}
		closeWithin(s, time.Second)
		if took := time.Since(begin); took > 2*time.Second {
			t.Errorf("closing took %v", took)
		}
		if c := s.Counts(); c.Sent != 0 || c.Dropped != queueEvents+batchEvents+more {
			t.Errorf("counts are %+v", c)
		}
		s.Send(Event{Kind: Subscribed}) // has no effect but being counted
		closeWithin(s, time.Second)
	})
}

// The log names why an event was dropped: the queue was full, or the sender closed.
func TestSender_LogsWhyEventsAreDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log testlog.Buffer
		to := &recipient{hang: true}
		s := to.sender()
		s.opt.Logger = slog.New(slog.NewTextHandler(&log, nil))
		for range queueEvents + batchEvents + 1 {
			s.Send(Event{Kind: Connected})
		}
		if s.Counts().Dropped == 0 || log.Count(errFull.Error()) == 0 || log.Count(errClosed.Error()) > 0 {
			t.Errorf("the queue is full: %+v, %s", s.Counts(), &log)
		}
		closeWithin(s, time.Minute)
		<-time.After(time.Minute) // the lines are sampled
		s.Send(Event{Kind: Connected})
		if log.Count(errClosed.Error()) != 1 {
			t.Errorf("the sender is closed: %s", &log)
		}
	})
}

func TestParseKinds_NamesTheUnknown(t *testing.T) {
	if kinds, err := ParseKinds(nil); err != nil || len(kinds) != 6 {
		t.Errorf("none given: %v, %v", kinds, err)
	}
	if _, err := ParseKinds([]string{"connected", "conn"}); err == nil || !strings.Contains(err.Error(), `"conn"`) {
		t.Errorf("the error is %v", err)
	}
}
