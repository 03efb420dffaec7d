package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"unicode/utf8"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/internal/strictjson"
	"github.com/shoal-go/shoal/manager"
)

// manyAnswer is an answer of POST /v1/messages, or the problem of one.
type manyAnswer struct {
	Accepted  int              `json:"accepted"`
	Positions []uploadPosition `json:"positions"`
}

// many sends lines to POST /v1/messages and decodes the answer.
func (a *apiTest) many(lines ...string) (*httptest.ResponseRecorder, manyAnswer) {
	a.t.Helper()
	w := a.call("POST", "/v1/messages", ndjson, strings.Join(lines, "\n"))
	var answer manyAnswer
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
		a.t.Fatalf("%v: %s", err, w.Body)
	}
	return w, answer
}

// offsets are the uploads and offsets of positions; each position must have an epoch.
func (m manyAnswer) offsets(t *testing.T) []string {
	t.Helper()
	all := []string{}
	for _, at := range m.Positions {
		if at.Epoch == "" {
			t.Errorf("there is no epoch in %+v", at)
		}
		all = append(all, fmt.Sprint(at.UploadID, " ", at.Offset))
	}
	return all
}

func manyLine(upload, message string) string {
	return `{"upload_id":"` + upload + `","message":` + message + `}`
}

// The positions stand in the order of the lines and, within a line, of its uploads.
func TestAPI_PublishesToManyUploads(t *testing.T) {
	a := newAPITest(t, apiOptions{})
	w, answer := a.many(manyLine("up-1", note), "", ` {"message":`+failed+`, "upload_ids" : ["up-2","up-1","ü p"]} `+"\r",
		manyLine(`up-2`, `{"action":"last","nested":{"upload_id":[1]}}`))
	want := []string{"up-1 1", "up-2 1", "up-1 2", "ü p 1", "up-2 2"}
	if w.Code != 202 || answer.Accepted != 3 || !slices.Equal(answer.offsets(t), want) {
		t.Errorf("%d %s, want positions %v", w.Code, w.Body, want)
	}
	h, err := a.manager.History(t.Context(), "up-1", manager.Position{})
	if err != nil || len(h.Messages) != 2 || string(h.Messages[0].Payload) != note ||
		string(h.Messages[1].Payload) != strings.Replace(failed, `"error`, `"upload_id":"up-1","error`, 1) {
		t.Errorf("%+v, %v", h, err)
	}
}

// A bad line is named with its field, and no message of any line is published.
func TestAPI_RefusesManyWithOneBadLine(t *testing.T) {
	progress := `{"action":"upload_progress","payload":{"status":"pending","stage":"queued","message":"","progress_percent":%s}}`
	for name, test := range map[string]struct {
		line, field, detail string
	}{
		"no object":           {`[]`, "", "the line must be one JSON object"},
		"no JSON":             {`{"upload_id":"up-1"`, "", "the line must be one JSON object"},
		"null":                {`null`, "", "the line must be one JSON object"},
		"two objects":         {manyLine("a", note) + manyLine("a", note), "", "the line must be one JSON object"},
		"other space":         {"\u00a0", "", "the line must be one JSON object"},
		"inner mark":          {"\ufeff" + manyLine("a", note), "", "the line must be one JSON object"},
		"invalid text":        {manyLine("a\xff", note), "upload_id", "upload_id must be valid Unicode"},
		"lone surrogate":      {manyLine(`a\ud800`, note), "upload_id", "upload_id must be valid Unicode"},
		"deep nesting":        {manyLine("a", strings.Repeat("[", 1e5)+strings.Repeat("]", 1e5)), "", "must be one JSON object"},
		"unknown field":       {`{"upload_id":"a","message":` + note + `,"class":"state"}`, "class", "is unknown; known are upload_id"},
		"name in other case":  {`{"Upload_ID":"a","message":` + note + `}`, "Upload_ID", "is unknown"},
		"duplicate field":     {`{"upload_id":"a","message":` + note + `,"upload_id":"b"}`, "upload_id", "must not be given twice"},
		"escaped duplicate":   {`{"upload_id":"a","message":` + note + `,"\u0075pload_id":"b"}`, "upload_id", "must not be given twice"},
		"no upload":           {`{"message":` + note + `}`, "upload_id", "upload_id or upload_ids must be given"},
		"both":                {`{"upload_id":"a","upload_ids":["a"],"message":` + note + `}`, "upload_id", "and not both"},
		"number":              {`{"upload_id":7,"message":` + note + `}`, "upload_id", "has the wrong type: number"},
		"list as one":         {`{"upload_id":["a"],"message":` + note + `}`, "upload_id", "has the wrong type: array"},
		"one as list":         {`{"upload_ids":"a","message":` + note + `}`, "upload_ids", "has the wrong type: string"},
		"number in list":      {`{"upload_ids":["a",1e999],"message":` + note + `}`, "upload_ids", "has the wrong type: number"},
		"null list":           {`{"upload_ids":null,"message":` + note + `}`, "upload_ids", "has the wrong type: null"},
		"empty list":          {`{"upload_ids":[],"message":` + note + `}`, "upload_ids", "must not be empty"},
		"upload twice":        {`{"upload_ids":["a","b","\u0061"],"message":` + note + `}`, "upload_ids", "must not name an upload twice"},
		"empty id":            {manyLine("", note), "upload_id", "upload_id must not be empty"},
		"control character":   {manyLine(`a\u0000`, note), "upload_id", "control characters"},
		"long id":             {manyLine(strings.Repeat("ä", 128), note), "upload_id", "has 256 bytes, at most 255"},
		"bad id in list":      {`{"upload_ids":["a",""],"message":` + note + `}`, "upload_ids", "upload_ids must not be empty"},
		"no message":          {`{"upload_id":"a"}`, "message", "message is missing"},
		"null message":        {manyLine("a", "null"), "message", "message "},
		"text message":        {manyLine("a", `"x"`), "message", "message "},
		"no action":           {manyLine("a", "{}"), "message.action", "message.action "},
		"reserved action":     {manyLine("a", `{"action":"ping"}`), "message.action", "reserved"},
		"bad payload":         {manyLine("a", fmt.Sprintf(progress, "101")), "message.payload.progress_percent", "from 0 to 100"},
		"huge number":         {manyLine("a", fmt.Sprintf(progress, "1e999")), "message.payload.progress_percent", ""},
		"other upload":        {manyLine("a", `{"action":"note","upload_id":"b"}`), "message.upload_id", "must be the id of the upload"},
		"one of several":      {`{"upload_ids":["b","a"],"message":{"action":"note","upload_id":"b"}}`, "message.upload_id", "must be the id"},
		"large message":       {manyLine("a", `{"action":"note","x":"`+strings.Repeat("x", 1000)+`"}`), "", "at most 1000 are allowed"},
		"duplicate in it":     {manyLine("a", `{"action":"note","action":"note"}`), "message.action", ""},
		"server's field":      {manyLine("a", `{"action":"note","offset":7}`), "message.offset", ""},
		"too many ids":        {`{"upload_ids":` + idList(maxManyMessages+1) + `,"message":` + note + `}`, "upload_ids", "at most 10000"},
		"many members":        {strings.TrimSuffix(manyLine("a", note), "}") + strings.Repeat(`,"":1`, 1e5) + "}", "", "known are upload_id, upload_ids, message"},
		"too many altogether": {`{"upload_ids":` + idList(maxManyMessages) + `,"message":` + note + `}`, "", "more than 10000 uploads"},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAPITest(t, apiOptions{MaxMessageBytes: 1000})
			w := a.call("POST", "/v1/messages", ndjson, manyLine("up-1", note)+"\n\n"+test.line+"\n"+manyLine("up-1", note))
			status := 400
			if name == "large message" || name == "too many altogether" {
				status = 413
			}
			a.wantProblem(w, status, test.field, 3, test.detail)
			a.wantNothingPublished()
			if strings.Contains(w.Body.String(), "xxx") || strings.Contains(w.Body.String(), "accepted") || !utf8.Valid(w.Body.Bytes()) {
				t.Errorf("answered %s", w.Body)
			}
		})
	}
}

// idList returns a JSON array of different ids.
func idList(n int) string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprint("id-", i)
	}
	return string(encodeJSON(ids)[:len(encodeJSON(ids))-1])
}

// The bytes of the messages are bounded for all uploads together, as each upload has its own copy.
func TestAPI_BoundsManyInTotal(t *testing.T) {
	a := newAPITest(t, apiOptions{})
	large := `{"action":"note","text":"` + strings.Repeat("x", 60<<10) + `"}`
	w := a.call("POST", "/v1/messages", ndjson, `{"upload_ids":`+idList(600)+`,"message":`+large+`}`)
	a.wantProblem(w, 413, "", 1, "more than 33554432 bytes; send several requests")
	a.wantNothingPublished()
	if w, answer := a.many(`{"upload_ids":` + idList(maxManyMessages) + `,"message":` + note + `}`); w.Code != 202 ||
		answer.Accepted != 1 || len(answer.Positions) != maxManyMessages {
		t.Errorf("%d, %d accepted", w.Code, answer.Accepted)
	}
}

func TestAPI_ManyIsOfLines(t *testing.T) {
	a := newAPITest(t, apiOptions{})
	for _, kind := range []string{"", "application/json", "text/plain", ndjson + "; charset=utf-16"} {
		w := a.call("POST", "/v1/messages", kind, manyLine("up-1", note))
		a.wantProblem(w, 415, "Content-Type", 0, "send one per line as application/x-ndjson")
		if w.Header().Get("Accept-Post") != ndjson {
			t.Errorf("Accept-Post %q", w.Header().Get("Accept-Post"))
		}
	}
	for _, body := range []string{"", "\n \r\n", "\ufeff"} {
		a.wantProblem(a.call("POST", "/v1/messages", ndjson, body), 400, "", 0, "the body is empty")
	}
	a.wantNothingPublished()
	if w, answer := a.many("\ufeff" + manyLine("up-1", note)); w.Code != 202 || answer.Accepted != 1 {
		t.Errorf("with a byte order mark: %d %s", w.Code, w.Body)
	}
}

// leaving is a broker that goes out of reach after a number of stored messages.
type leaving struct {
	*broker.MemoryNode
	left int
}

func (l *leaving) Store(ctx context.Context, channel string, payload []byte) (broker.Position, error) {
	if l.left--; l.left < 0 {
		return broker.Position{}, broker.ErrUnavailable
	}
	return l.MemoryNode.Store(ctx, channel, payload)
}

func (l *leaving) StoreOnce(
	ctx context.Context, channel string, payload []byte, once broker.Once,
) (broker.Position, bool, error) {
	if l.left--; l.left < 0 {
		return broker.Position{}, false, broker.ErrUnavailable
	}
	return l.MemoryNode.StoreOnce(ctx, channel, payload, once)
}

// A broker that goes away in the middle is a 503 that tells which lines are published.
func TestAPI_ManyTellsHowFarItCame(t *testing.T) {
	for stored, want := range map[int]struct {
		accepted, line int
		positions      []string
	}{
		0: {0, 1, []string{}},
		1: {1, 3, []string{"up-1 1"}},
		2: {1, 3, []string{"up-1 1", "up-2 1"}},
		3: {2, 4, []string{"up-1 1", "up-2 1", "up-3 1"}},
	} {
		synctest.Test(t, func(t *testing.T) {
			a := newBrokerAPI(t, &leaving{broker.NewMemory(broker.MemoryOptions{}).Node(), stored})
			w, answer := a.many(manyLine("up-1", note), "", `{"upload_ids":["up-2","up-3"],"message":`+note+`}`,
				manyLine("up-1", note))
			a.wantProblem(w, 503, "", want.line, "out of reach")
			if answer.Accepted != want.accepted || !slices.Equal(answer.offsets(t), want.positions) ||
				!strings.Contains(w.Body.String(), `"accepted":`) || w.Header().Get("Retry-After") == "" {
				t.Errorf("after %d messages: %s", stored, w.Body)
			}
		})
	}
}

// denied is a broker that permits neither to store nor to read.
type denied struct{ *broker.MemoryNode }

var errDenied = errors.New("no permission: the secret reason")

func (denied) Store(context.Context, string, []byte) (broker.Position, error) {
	return broker.Position{}, errDenied
}

func (denied) History(context.Context, string, broker.Position) (broker.Snapshot, error) {
	return broker.Snapshot{}, errDenied
}

// A refusal of the broker is named as such; its reason is in the log alone.
func TestAPI_RefusalOfTheBrokerIsNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newBrokerAPI(t, denied{broker.NewMemory(broker.MemoryOptions{}).Node()})
		var log bytes.Buffer
		a.api.opt.Logger = slog.New(slog.NewTextHandler(&log, nil))
		for _, w := range []*httptest.ResponseRecorder{
			a.call("POST", "/v1/uploads/up-1/messages", "application/json", note),
			a.call("GET", "/v1/uploads/up-1/messages", "", ""),
		} {
			a.wantProblem(w, 500, "", 0, "the broker refuses this to the server")
			if text := w.Body.String(); strings.Contains(text, errDenied.Error()) {
				t.Errorf("the answer has the reason: %s", text)
			}
		}
		if n := strings.Count(log.String(), errDenied.Error()); n != 2 {
			t.Errorf("%d reasons in the log, want 2:\n%s", n, log.String())
		}
	})
}

// FuzzManyLine: a line never panics, and an accepted one has no member but those of the protocol, each once.
func FuzzManyLine(f *testing.F) {
	for _, line := range []string{
		manyLine("a", note), `{"upload_ids":["a","b"],"message":{}}`, `{"upload_ids":[1],"message":null}`, "\ufeff{}",
		`{"upload_id":"\ud83d\ude00","message":1e999}`, `{"message":[],"upload_id":"a","upload_id":"b"}`, `{"\u0000":0}`,
	} {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		ids, message, err := decodeManyLine(line)
		if err != nil {
			if problemOf(err) == nil {
				t.Fatalf("%q: the error of a client's line is internal: %v", line, err)
			}
			return
		}
		o, err := strictjson.Decode(line)
		if err != nil || len(o) != 2 || len(ids) == 0 || !json.Valid(message) {
			t.Fatalf("%q: accepted as %q, %q", line, ids, message)
		}
		for _, id := range ids {
			if manager.CheckID("upload_id", id) != nil {
				t.Fatalf("%q: accepted the id %q", line, id)
			}
		}
	})
}
