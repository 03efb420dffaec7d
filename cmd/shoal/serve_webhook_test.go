package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/shoal-go/shoal/cmd/shoal/internal/webhook"
)

func TestServe_TellsTheWebhook(t *testing.T) {
	const secret = "0123456789abcdef"
	var mu sync.Mutex
	var events []string
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var b struct{ Events []webhook.Event }
		if err != nil || json.Unmarshal(body, &b) != nil ||
			r.Header.Get(webhook.SignatureHeader) != webhook.Sign([]byte(secret), r.Header.Get(webhook.TimestampHeader), body) {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		for _, e := range b.Events {
			events = append(events, strings.Join([]string{string(e.Kind), e.UserID, e.UploadID}, " "))
		}
	}))
	defer service.Close()
	has := func(event string) bool {
		mu.Lock()
		defer mu.Unlock()
		return slices.Contains(events, event)
	}
	wait := func(event string) {
		t.Helper()
		for !has(event) {
			if t.Context().Err() != nil {
				t.Fatalf("%q does not come, got %q", event, events)
			}
		}
	}
	s := serveDev(t, "--webhook="+service.URL, "--webhook-secret="+secret)
	c := login(t, s.url)
	wait("connected alice ")
	c.send(`{"action":"subscribe_upload","upload_id":"a"}`)
	wait("subscribed alice a")
	wait("upload_followed  a")
	second := login(t, s.url)
	second.send(`{"action":"subscribe_upload","upload_id":"a"}`)
	c.send(`{"action":"unsubscribe_upload","upload_id":"a"}`)
	wait("unsubscribed alice a")
	_ = second.conn.CloseNow()
	wait("disconnected alice ")
	wait("upload_unfollowed  a")
	if status := s.end(); status != statusDone {
		t.Errorf("status %d", status)
	}
	mu.Lock()
	defer mu.Unlock()
	count := 0
	for _, e := range events {
		if strings.HasPrefix(e, "upload_followed") {
			count++
		}
	}
	if count != 1 {
		t.Errorf("the first follower came %d times: %q", count, events)
	}
	if strings.Contains(s.log.String(), secret) {
		t.Error("the log holds the secret")
	}
}

// A service that is away delays neither clients nor the end.
func TestServe_OutlivesAnAbsentWebhook(t *testing.T) {
	s := serveDev(t, "--webhook=http://127.0.0.1:1/hook", "--webhook-secret=0123456789abcdef", "--drain=30s")
	c := login(t, s.url)
	c.send(`{"action":"subscribe_upload","upload_id":"a"}`)
	go c.closed()
	if status := s.end(); status != statusDone || !strings.Contains(s.log.String(), "webhook events dropped") {
		t.Errorf("status %d, log:\n%s", status, s.log)
	}
}

func TestServe_RefusesWebhooksThatCannotWork(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"no secret":     {[]string{"--webhook=https://s"}, "--webhook-secret is missing"},
		"short secret":  {[]string{"--webhook=https://s", "--webhook-secret=short"}, "has 5 bytes"},
		"no URL":        {[]string{"--webhook=s", "--webhook-secret=0123456789abcdef"}, "--webhook is"},
		"unknown event": {[]string{"--webhook=https://s", "--webhook-secret=0123456789abcdef", "--webhook-events=all"}, `is "all"`},
		"secret alone":  {[]string{"--webhook-secret=0123456789abcdef"}, "want a --webhook with it"},
	} {
		r := shoal(t, nil, "", append([]string{"check-config", "--dev"}, c.args...)...)
		if r.status != statusUsage || !strings.Contains(r.err, c.want) {
			t.Errorf("%s: status %d, %s", name, r.status, r.err)
		}
	}
}
