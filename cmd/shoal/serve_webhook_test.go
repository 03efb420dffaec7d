package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/shoal-go/shoal/cmd/shoal/internal/webhook"
)

func TestServe_TellsTheWebhook(t *testing.T) {
	const secret = "0123456789abcdef"
	var mu sync.Mutex
	var events []string
	var node string
	arrived := make(chan struct{}, 1) // events came since the last look
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var b struct {
			Node   string
			Events []webhook.Event
		}
		if err != nil || json.Unmarshal(body, &b) != nil ||
			r.Header.Get(webhook.SignatureHeader) != webhook.Sign([]byte(secret), r.Header.Get(webhook.TimestampHeader), body) {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		node = b.Node
		for _, e := range b.Events {
			events = append(events, strings.Join([]string{string(e.Kind), e.UserID, e.UploadID}, " "))
		}
		select {
		case arrived <- struct{}{}:
		default:
		}
	}))
	defer service.Close()
	count := func(event string) (n int) {
		mu.Lock()
		defer mu.Unlock()
		for _, e := range events {
			if e == event {
				n++
			}
		}
		return n
	}
	wait := func(event string, times int) {
		t.Helper()
		for count(event) < times {
			<-arrived
		}
	}
	s := serveDev(t, "--webhook="+service.URL, "--webhook-secret="+secret)
	c := login(t, s.url)
	wait("connected alice ", 1)
	c.send(`{"action":"subscribe_upload","upload_id":"a"}`)
	wait("subscribed alice a", 1)
	wait("upload_followed  a", 1)
	second := login(t, s.url)
	second.send(`{"action":"subscribe_upload","upload_id":"a"}`)
	wait("subscribed alice a", 2)
	c.send(`{"action":"unsubscribe_upload","upload_id":"a"}`)
	wait("unsubscribed alice a", 1)
	_ = c.conn.CloseNow()
	wait("disconnected alice ", 1)
	_ = second.conn.CloseNow() // the last connection of the user: its claim passes to nobody
	wait("upload_unfollowed  a", 1)
	last := login(t, s.url)
	last.send(`{"action":"subscribe_upload","upload_id":"b"}`)
	wait("upload_followed  b", 1)
	go last.closed()
	if status := s.end(); status != statusDone {
		t.Errorf("status %d", status)
	}
	if n := count("upload_unfollowed  b"); n != 1 {
		t.Errorf("the upload that was followed until the end was reported as no longer followed %d times: %q", n, events)
	}
	if mu.Lock(); node == "" || !strings.Contains(s.log.String(), "node="+node+" ") {
		t.Errorf("the node calls itself %q, and logged\n%s", node, s.log)
	}
	mu.Unlock()
	if n := count("upload_followed  a"); n != 1 {
		t.Errorf("the first follower came %d times: %q", n, events)
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
