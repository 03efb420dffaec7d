package server

import (
	"context"
	"fmt"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/manager"
)

// callOnce sends a request with keys.
func (a *apiTest) callOnce(target, kind, body string, keys ...string) *httptest.ResponseRecorder {
	a.t.Helper()
	r := httptest.NewRequest("POST", target, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer second-key")
	r.Header.Set("Content-Type", kind)
	r.Header["Idempotency-Key"] = keys
	return a.do(r)
}

const onUp1 = "/v1/uploads/up-1/messages"

// wantAnswer checks an answer and whether it is a repeated one.
func (a *apiTest) wantAnswer(w *httptest.ResponseRecorder, replayed bool, body string) {
	a.t.Helper()
	a.want(w, 202, body)
	if got := w.Header().Get("Idempotency-Replayed"); got != map[bool]string{true: "true"}[replayed] {
		a.t.Errorf("Idempotency-Replayed: %q, want it to be so: %v", got, replayed)
	}
}

// A repeated request gets the same answer, regardless of later messages, and publishes nothing.
func TestAPI_IdempotencyKeyPublishesOnce(t *testing.T) {
	a := newAPITest(t, apiOptions{})
	for _, body := range []string{failed, note, note + "\n\n" + note} {
		kind := "application/json"
		if strings.Contains(body, "\n") {
			kind = ndjson
		}
		_, before, _ := a.manager.Newest(t.Context(), "up-1")
		n := strings.Count(body, "{")
		key := fmt.Sprint("key-", before.Offset)
		answer := fmt.Sprintf(`{"accepted":%d,"epoch":"EPOCH","offset":%d}`, n, before.Offset+uint64(n))
		a.wantAnswer(a.callOnce(onUp1, kind, body, key), false, answer)
		a.wantAnswer(a.callOnce(onUp1, kind, body, key), true, answer)
		a.want(a.call("POST", onUp1, "", note), 202, fmt.Sprintf(`{"accepted":1,"epoch":"EPOCH","offset":%d}`, before.Offset+uint64(n)+1))
		a.wantAnswer(a.callOnce(onUp1, kind, body, key), true, answer)
	}
	if _, at, _ := a.manager.Newest(t.Context(), "up-1"); at.Offset != 7 {
		t.Errorf("%d messages are published, want 4 and 3 in between", at.Offset)
	}
}

// A key with another body is refused, and nothing of it is published.
func TestAPI_IdempotencyKeyIsForOneBody(t *testing.T) {
	a := newAPITest(t, apiOptions{})
	a.callOnce(onUp1, "application/json", note, "key")
	for _, body := range []string{note + " ", failed, note + "\n" + note} {
		w := a.callOnce(onUp1, ndjson, body, "key")
		line := 1
		a.wantProblem(w, 422, "Idempotency-Key", line, "used with another body for this upload")
	}
	a.wantProblem(a.callOnce(onUp1, "application/json", failed, "key"), 422, "Idempotency-Key", 0, "a new request needs a new key")
	if _, at, _ := a.manager.Newest(t.Context(), "up-1"); at.Offset != 1 {
		t.Errorf("%d messages are published, want 1", at.Offset)
	}
	a.wantAnswer(a.callOnce("/v1/uploads/up-2/messages", "application/json", failed, "key"), false,
		strings.Replace(`{"accepted":1,"epoch":"E","offset":1}`, "E", epochOf(a, "up-2"), 1))
}

func epochOf(a *apiTest, upload string) string {
	_, at, _ := a.manager.Newest(a.t.Context(), upload)
	return at.Epoch
}

// On many uploads, a conflict on any of them is found before anything is published to another.
func TestAPI_IdempotencyKeyOnManyUploads(t *testing.T) {
	a := newAPITest(t, apiOptions{})
	first := manyLine("up-1", note) + "\n" + `{"upload_ids":["up-2","up-1"],"message":` + note + `}`
	answer := a.callOnce("/v1/messages", ndjson, first, "key")
	again := a.callOnce("/v1/messages", ndjson, first, "key")
	if answer.Code != 202 || again.Code != 202 || answer.Body.String() != again.Body.String() ||
		answer.Header().Get("Idempotency-Replayed") != "" || again.Header().Get("Idempotency-Replayed") != "true" {
		t.Errorf("got %d %s, then %d %s", answer.Code, answer.Body, again.Code, again.Body)
	}
	w := a.callOnce("/v1/messages", ndjson, manyLine("up-3", note)+"\n"+manyLine("up-2", note), "key")
	a.wantProblem(w, 422, "Idempotency-Key", 2, "another body")
	a.wantProblem(a.callOnce("/v1/uploads/up-2/messages", "", note, "key"), 422, "Idempotency-Key", 0, "another body")
	if s := a.manager.Stats(); s.Published != 3 {
		t.Errorf("%d messages are published, want 3", s.Published)
	}
}

func TestAPI_RefusesBadIdempotencyKeys(t *testing.T) {
	a := newAPITest(t, apiOptions{})
	for name, keys := range map[string][]string{
		"empty": {""}, "long": {strings.Repeat("k", 256)}, "space": {"a key"}, "control": {"a\tkey"}, "umlaut": {"schlüssel"},
		"two": {"a", "b"}, "one twice": {"a", "a"},
	} {
		for _, target := range []string{onUp1, "/v1/messages"} {
			body := note
			if target == "/v1/messages" {
				body = manyLine("up-1", note)
			}
			a.wantProblem(a.callOnce(target, ndjson, body, keys...), 400, "Idempotency-Key", 0, "Idempotency-Key ")
		}
		if t.Failed() {
			t.Fatal(name)
		}
	}
	a.wantProblem(a.callOnce("/v1/users/ann/messages", "", note, "key"), 400, "Idempotency-Key", 0, "not supported for messages to users")
	a.wantNothingPublished()
	a.wantAnswer(a.callOnce(onUp1, "", note, strings.Repeat("~", 255)), false, `{"accepted":1,"epoch":"EPOCH","offset":1}`)
}

// Of concurrent requests with one key one publishes, and all get the same answer.
func TestAPI_IdempotencyKeyOfConcurrentRequests(t *testing.T) {
	a := newAPITest(t, apiOptions{})
	body := strings.Repeat(note+"\n", 20)
	answers := make([]string, 8)
	var running sync.WaitGroup
	for i := range answers {
		running.Go(func() { answers[i] = a.callOnce(onUp1, ndjson, body, "key").Body.String() })
	}
	running.Wait()
	for _, answer := range answers {
		if answer != answers[0] || !strings.Contains(answer, `"accepted":20,`) {
			t.Errorf("answers are %s and %s", answer, answers[0])
		}
	}
	if s := a.manager.Stats(); s.Published != 20 {
		t.Errorf("%d messages are published, want 20", s.Published)
	}
}

// A request that failed in the middle, repeated with its key, publishes the rest only.
func TestAPI_IdempotencyKeyAfterPartialFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		link := &leaving{broker.NewMemory(broker.MemoryOptions{}).Node(), 2}
		a := newBrokerAPI(t, link)
		body := manyLine("up-1", note) + "\n" + manyLine("up-2", note) + "\n" + manyLine("up-1", note)
		w := a.callOnce("/v1/messages", ndjson, body, "key")
		a.wantProblem(w, 503, "", 3, "repeat the whole request with the same Idempotency-Key")
		link.left = 100
		w = a.callOnce("/v1/messages", ndjson, body, "key")
		_, at, _ := a.manager.Newest(t.Context(), "up-1")
		if w.Code != 202 || w.Header().Get("Idempotency-Replayed") != "" || at.Offset != 2 || link.left != 97 {
			t.Errorf("%d %s, up-1 is at %+v", w.Code, w.Body, at)
		}
		if s := a.manager.Stats(); s.Published != 3 {
			t.Errorf("%d messages are published, want 3", s.Published)
		}
	})
}

func TestAPI_IdempotencyKeyWithoutSupportOfTheBroker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newBrokerAPI(t, plain{broker.NewMemory(broker.MemoryOptions{}).Node()})
		a.wantProblem(a.callOnce(onUp1, "", note, "key"), 501, "Idempotency-Key", 0, "not supported by the broker")
		if _, _, err := a.manager.Newest(t.Context(), "up-1"); err != manager.ErrUnknownUpload { //nolint:errorlint // as it is
			t.Errorf("after that: %v", err)
		}
	})
}

// plain is a broker that does not know keys.
type plain struct{ broker.HistoryBroker }

// epochless is a broker that returns no epoch with the position of a message that it has already, as NATS does.
type epochless struct {
	*broker.MemoryNode
	asked *atomic.Int64
	away  *atomic.Bool
}

func (b epochless) StoreOnce(
	ctx context.Context, channel string, payload []byte, once broker.Once,
) (at broker.Position, replayed bool, err error) {
	at, replayed, err = b.MemoryNode.StoreOnce(ctx, channel, payload, once)
	if replayed {
		at.Epoch = ""
	}
	return at, replayed, err
}

func (b epochless) Newest(ctx context.Context, channel string) (broker.Snapshot, error) {
	b.asked.Add(1)
	if b.away.Load() {
		return broker.Snapshot{}, broker.ErrUnavailable
	}
	return b.MemoryNode.Newest(ctx, channel)
}

// The answer to a repeated batch takes one question for each upload, and one in all while the broker is out of reach.
func TestAPI_ManyReplayedAsksForEpochsOnce(t *testing.T) {
	var asked atomic.Int64
	var away atomic.Bool
	m, err := manager.New(manager.Options{Broker: epochless{broker.NewMemory(broker.MemoryOptions{}).Node(), &asked, &away}})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close(context.Background())
	if err := m.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	a := &apiTest{t, m, newTestAPI(m, apiOptions{Keys: keysOf("second-key")})}
	var body strings.Builder
	for i := range 300 {
		fmt.Fprintln(&body, manyLine(fmt.Sprint("up-", i%3), note))
	}
	first := a.callOnce("/v1/messages", ndjson, body.String(), "key")
	if asked.Load() != 0 {
		t.Errorf("%d questions for positions that have an epoch", asked.Load())
	}
	again := a.callOnce("/v1/messages", ndjson, body.String(), "key")
	if first.Code != 202 || again.Body.String() != first.Body.String() || asked.Load() != 3 {
		t.Errorf("%d questions, answered with %d %.300s\nwant 3 and %d %.300s", asked.Load(), again.Code, again.Body, first.Code, first.Body)
	}
	away.Store(true)
	if w := a.callOnce("/v1/messages", ndjson, body.String(), "key"); w.Code != 202 || asked.Load() != 4 {
		t.Errorf("%d questions while the broker is away, answered with %d, want one more and 202", asked.Load()-3, w.Code)
	}
}
