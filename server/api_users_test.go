package server

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/manager"
)

// recorder is a connection that records its messages and close reasons.
type recorder struct {
	mu      sync.Mutex // protects the fields below
	outcome manager.Outcome
	sent    []string
	closed  []manager.CloseReason
}

func (c *recorder) Send(f *manager.Frame) manager.Outcome {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sent = append(c.sent, string(f.Body()))
	return c.outcome
}

func (c *recorder) Close(reason manager.CloseReason) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = append(c.closed, reason)
}

func (a *apiTest) connect(user string, outcome manager.Outcome) *recorder {
	a.t.Helper()
	c := &recorder{outcome: outcome}
	if err := a.manager.Connect(user, c); err != nil {
		a.t.Fatal(err)
	}
	return c
}

func TestAPI_SendsToUser(t *testing.T) {
	a := newAPITest(t, apiOptions{})
	conns := []*recorder{
		a.connect("ann", manager.Queued), a.connect("ann", manager.Queued),
		a.connect("ann", manager.Conflated), a.connect("ann", manager.Dropped),
	}
	other := a.connect("bob", manager.Queued)
	second := strings.Replace(failed, `"error`, `"upload_id":"up-1","error`, 1)
	a.want(a.call("POST", "/v1/users/ann/messages", "", note), 202, `{"queued":2,"conflated":1,"dropped":1}`)
	a.want(a.call("POST", "/v1/users/ann/messages", ndjson, note+"\n"+second+"\n"), 202, `{"queued":4,"conflated":2,"dropped":2}`)
	for _, c := range conns {
		if want := []string{note, note, second}; !slices.Equal(c.sent, want) {
			t.Errorf("got %q, want %q", c.sent, want)
		}
	}
	if len(other.sent) != 0 {
		t.Errorf("another user got %q", other.sent)
	}
	a.want(a.call("POST", "/v1/users/nobody/messages", "", note), 202, `{"queued":0,"conflated":0,"dropped":0}`)
}

func TestAPI_SendsNothingToUserUnlessAllIsValid(t *testing.T) {
	a := newAPITest(t, apiOptions{})
	c := a.connect("ann", manager.Queued)
	a.wantProblem(a.call("POST", "/v1/users/ann/messages", ndjson, note+"\n"+failed), 400, "upload_id", 2,
		"line 2: upload_id must not be empty")
	a.wantProblem(a.call("POST", "/v1/users/ann/messages", "text/plain", note), 415, "Content-Type", 0, "Content-Type")
	if len(c.sent) != 0 {
		t.Errorf("got %q", c.sent)
	}
	a.wantNothingPublished()
}

func TestAPI_DisconnectsUser(t *testing.T) {
	long := strings.Repeat("r", 123)
	for query, want := range map[string]manager.CloseReason{
		"":                                 {Code: 1000},
		"?code=1000&reason=":               {Code: 1000},
		"?code=1008":                       {Code: 1008},
		"?code=1012&reason=Come%20back":    {Code: 1012, Text: "Come back"},
		"?code=1013":                       {Code: 1013},
		"?code=3000&reason=gr%C3%BC%C3%9F": {Code: 3000, Text: "grüß"},
		"?code=4999&reason=" + long:        {Code: 4999, Text: long},
	} {
		a := newAPITest(t, apiOptions{})
		first, second, other := a.connect("ann", 0), a.connect("ann", 0), a.connect("bob", 0)
		a.want(a.call("DELETE", "/v1/users/ann/connections"+query, "", ""), 202, `{"closed":2}`)
		for _, c := range []*recorder{first, second} {
			if !slices.Equal(c.closed, []manager.CloseReason{want}) {
				t.Errorf("%s: closed with %v, want %v", query, c.closed, want)
			}
		}
		if len(other.closed) != 0 {
			t.Errorf("another user's connection is closed with %v", other.closed)
		}
		a.want(a.call("DELETE", "/v1/users/ann/connections", "", ""), 202, `{"closed":0}`)
	}
}

func TestAPI_RefusesToDisconnectWith(t *testing.T) {
	a := newAPITest(t, apiOptions{})
	c := a.connect("ann", manager.Queued)
	for query, field := range map[string]string{
		"?code=": "code", "?code=x": "code", "?code=999": "code", "?code=1001": "code", "?code=1005": "code",
		"?code=1006": "code", "?code=1009": "code", "?code=1015": "code", "?code=2999": "code", "?code=5000": "code",
		"?code=66536": "code", "?code=-1": "code", // 66536 is 1000 in 16 bits
		"?reason=%ff": "reason", "?reason=" + strings.Repeat("r", 124): "reason", "?reason=%": "query",
	} {
		a.wantProblem(a.call("DELETE", "/v1/users/ann/connections"+query, "", ""), 400, field, 0, field+" ")
	}
	if len(c.closed) != 0 {
		t.Errorf("closed with %v", c.closed)
	}
}

// Not even the newest message outlives the history's time, but the upload's position does while it is followed.
func TestAPI_NewestIsNullOnceItIsTooOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPITest(t, apiOptions{})
		a.connect("ann", manager.Queued)
		if err := a.manager.SubscribeUpload(t.Context(), "ann", "up-1"); err != nil {
			t.Fatal(err)
		}
		a.call("POST", "/v1/uploads/up-1/messages", "", note)
		<-time.After(11 * time.Minute)
		a.want(a.call("GET", "/v1/uploads/up-1", "", ""), 200,
			`{"upload_id":"up-1","epoch":"EPOCH","offset":1,"message":null}`)
	})
}

func TestAPI_DisconnectsToken(t *testing.T) {
	a := newAPITest(t, apiOptions{})
	mine, other := &tokenConn{id: "t-1"}, &tokenConn{id: "t-2"}
	for _, c := range []*tokenConn{mine, other} {
		if err := a.manager.Connect("ann", c); err != nil {
			t.Fatal(err)
		}
	}
	a.want(a.call("DELETE", "/v1/tokens/t-1/connections?code=4000&reason=Signed+out", "", ""), 202, `{"closed":1}`)
	if want := []manager.CloseReason{{Code: 4000, Text: "Signed out"}}; !slices.Equal(mine.closed, want) || other.closed != nil {
		t.Errorf("closed with %+v and %+v, want %+v and nothing", mine.closed, other.closed, want)
	}
	if w := a.call("DELETE", "/v1/tokens/t-2/connections?code=7", "", ""); w.Code != 400 || other.closed != nil {
		t.Errorf("a code that must not be used: %d, closed with %+v", w.Code, other.closed)
	}
}

func TestAPI_CountsOfNodes(t *testing.T) {
	a := newAPITest(t, apiOptions{})
	a.connect("ann", manager.Queued)
	var answer struct{ Nodes map[string]manager.Stats }
	body := a.call("GET", "/v1/nodes", "", "").Body.Bytes()
	if err := json.Unmarshal(body, &answer); err != nil || answer.Nodes["local"] != a.manager.Stats() {
		t.Errorf("got %s, %v", body, err)
	}
}

// tokenConn is a connection that was opened with a token.
type tokenConn struct {
	recorder
	id string
}

func (c *tokenConn) TokenID() string { return c.id }

// slowPublisher is a broker that takes its time to publish a message for a user.
type slowPublisher struct{ *broker.MemoryNode }

func (s slowPublisher) Publish(ctx context.Context, channel string, payload []byte) error {
	if bytes.Contains(payload, []byte("note")) {
		<-time.After(1500 * time.Millisecond)
	}
	return s.MemoryNode.Publish(ctx, channel, payload)
}

// A batch for a user ends in time for its answer, which tells how much of it is sent.
func TestAPI_SlowBatchToUserTellsHowFarItCame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newBrokerAPI(t, slowPublisher{broker.NewMemory(broker.MemoryOptions{}).Node()})
		w := a.call("POST", "/v1/users/ann/messages", ndjson, strings.Repeat(note+"\n", 20))
		a.wantProblem(w, 503, "", 15, "publishing took longer than 20s")
		if !strings.Contains(w.Body.String(), `"accepted":14`) {
			t.Errorf("answered %s", w.Body)
		}
	})
}
