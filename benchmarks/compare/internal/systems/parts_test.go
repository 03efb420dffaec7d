package systems

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/message"
)

func TestFindNamesWhatThereIs(t *testing.T) {
	for _, name := range Names() {
		if e, err := Find(name); err != nil || e.Name != name {
			t.Errorf("Find(%q) = %q, %v", name, e.Name, err)
		}
	}
	if _, err := Find("socket.io"); err == nil || !strings.Contains(err.Error(), "centrifuge-batched") {
		t.Errorf("the error for an unknown system is %v", err)
	}
}

func TestConversation(t *testing.T) {
	for _, c := range []struct{ message, reply, channel string }{
		{`{"type":"auth","token":"user-1"}`, `"action":"auth_success"`, ""},
		{`{"action":"subscribe_upload","upload_id":"u3"}`, `"action":"subscribed"`, "u3"},
	} {
		reply, channel, err := answer([]byte(c.message))
		if err != nil || channel != c.channel || !strings.Contains(string(reply), c.reply) {
			t.Errorf("the answer to %s is %s, %q, %v", c.message, reply, channel, err)
		}
	}
	for _, message := range []string{``, `[]`, `{}`, `{"type":"auth"}`, `{"action":"subscribe_upload"}`} {
		if reply, _, err := answer([]byte(message)); err == nil {
			t.Errorf("the answer to %q is %s", message, reply)
		}
	}
}

func TestCountPublications(t *testing.T) {
	for payload, want := range map[string]int{
		`{}`:                           0,
		`{"id":2,"subscribe":{}}`:      0,
		`{"push":1}`:                   1,
		"{\"push\":1}\n{\"push\":2}":   2,
		"{}\n{\"push\":2}\n{\"id\":1}": 1,
	} {
		if n := countPublications([]byte(payload)); n != want {
			t.Errorf("countPublications(%q) = %d, want %d", payload, n, want)
		}
	}
}

func TestPings(t *testing.T) {
	shoal, centrifuge := shoalDialect(Audience{}).Pong, centrifugeDialect(Audience{}).Pong
	if got := string(shoal([]byte(`{"action":"ping"}`))); got != `{"action":"pong"}` {
		t.Errorf("shoal's ping is answered with %q", got)
	}
	if got := string(centrifuge([]byte("{}\n"))); got != `{}` {
		t.Errorf("centrifuge's ping is answered with %q", got)
	}
	if shoal([]byte(`{"action":"auth_success"}`)) != nil || centrifuge([]byte(`{"id":1}`)) != nil {
		t.Error("what is no ping is answered")
	}
}

func TestHub_ForgetsLeavers(t *testing.T) {
	topics := &hub[int]{}
	for i := range 5 {
		topics.join("a", i)
	}
	topics.leave(2)
	topics.leave(2)
	topics.leave(5)
	followers := slices.Sorted(slices.Values(topics.of["a"]))
	if !slices.Equal(followers, []int{0, 1, 3, 4}) || topics.Subscriptions() != 4 {
		t.Errorf("the followers are %v, %d are counted", followers, topics.Subscriptions())
	}
}

// The bodies of requests hold every message, in their order, and are what the APIs take.
func TestPublishing(t *testing.T) {
	one, same, many := some(1, 1, message.MinSize, 1), some(3, 1, message.MinSize, 1), some(3, 3, message.MinSize, 1)
	for _, c := range []struct {
		system   string
		messages []message.Message
		path     string
	}{
		{"shoal", one, "/v1/uploads/u0/messages"},
		{"shoal", same, "/v1/uploads/u0/messages"},
		{"shoal", many, "/v1/messages"},
		{"centrifugo", one, "/api/publish"},
		{"centrifugo", same, "/api/batch"},
		{"centrifugo", many, "/api/batch"},
	} {
		e, err := Find(c.system)
		if err != nil {
			t.Fatal(err)
		}
		path, body := e.Publishing(c.messages)
		if path != c.path {
			t.Errorf("%s publishes to %s, want %s", c.system, path, c.path)
		}
		rest := body
		for _, m := range c.messages {
			at := bytes.Index(rest, m.JSON())
			if at < 0 {
				t.Fatalf("%s: %s is missing in %s", c.system, m.JSON(), body)
			}
			rest = rest[at+m.Size:]
		}
		for line := range bytes.Lines(body) {
			if !json.Valid(line) {
				t.Errorf("%s: this is not JSON: %s", c.system, line)
			}
		}
	}
}
