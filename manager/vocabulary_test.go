package manager

import (
	"encoding/json"
	"errors"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/shoal/broker"
)

// builds is the vocabulary of an application that builds software.
var builds = Options{
	Classes: map[string]ActionClass{
		"build_progress": {Class: ClassState, KeyField: "build_id"},
		"build_note":     {Class: ClassState},
		"build_done":     {Class: ClassTerminal, KeyField: "build_id"},
	},
	Statuses: []string{"running", "done"},
	Stages:   []string{"compile", "link"},
}

// The class and key of a message are the same through every door: parsed here, parsed without a manager and then sent,
// or received from a broker.
func TestVocabulary_ClassifiesAlikeThroughEveryDoor(t *testing.T) {
	m := open(t, builds)
	for _, test := range []struct {
		data  string
		class Class
		key   string
	}{
		{`{"action":"build_progress","build_id":"b1"}`, ClassState, "build_progress\xffb1"},
		{`{"action":"build_progress","payload":{"build_id":"b\u0031"}}`, ClassState, "build_progress\xffb1"},
		{`{"action":"build_progress","build_id":17,"payload":{"build_id":"b1"}}`, ClassState, "build_progress\xff17"},
		{`{"action":"build_note"}`, ClassState, "build_note\xff"},
		{`{"action":"build_done","payload":{"build_id":-1}}`, ClassTerminal, "build_done\xff-1"},
		{`{"action":"build_log","build_id":"b1"}`, ClassEvent, ""},
		{`{"action":"upload_progress","payload":{"upload_id":"cat","status":"running","stage":"link","progress_percent":1,"message":""}}`, ClassState, ""},
		{`{"action":"upload_failed","error_message":"e","build_id":"b1"}`, ClassTerminal, ""},
	} {
		parsed, err := m.Parse("cat", []byte(test.data), noon)
		remote, remoteErr := m.vocabulary.parseRemote("cat", []byte(test.data), 1<<10)
		general, generalErr := Parse("cat", []byte(test.data), noon)
		if err := errors.Join(err, remoteErr, generalErr); err != nil {
			t.Errorf("%s: %v", test.data, err)
			continue
		}
		sent, err := m.encode("cat", general)
		must(t, err)
		for door, e := range map[string]Encoded{"parsed": parsed, "remote": remote, "sent": sent} {
			if e.class != test.class || e.stateKey != test.key {
				t.Errorf("%s, %s: class %d and key %q, want %d and %q", test.data, door, e.class, e.stateKey, test.class, test.key)
			}
		}
	}
}

func TestVocabulary_RefusesAlikeThroughEveryDoor(t *testing.T) {
	m := open(t, builds)
	for data, want := range map[string]string{
		`{"action":"build_progress"}`:                                           "build_id is missing",
		`{"action":"build_progress","payload":["build_id"]}`:                    "build_id is missing",
		`{"action":"build_progress","build_id":null}`:                           "build_id must be a string or a number",
		`{"action":"build_done","payload":{"build_id":{}}}`:                     "build_id must be a string or a number",
		`{"action":"build_done","build_id":"` + strings.Repeat("x", 256) + `"}`: "build_id has 256 bytes",
	} {
		_, err := m.Parse("cat", []byte(data), noon)
		_, remoteErr := m.vocabulary.parseRemote("cat", []byte(data), 1<<10)
		general, generalErr := Parse("cat", []byte(data), noon)
		must(t, generalErr)
		_, sentErr := m.encode("cat", general)
		for door, err := range map[string]error{"parsed": err, "remote": remoteErr, "sent": sentErr} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s, %s: %v, want %q", data, door, err, want)
			}
		}
	}
}

// The configured lists apply to messages that are published here, by every door.
func TestVocabulary_RestrictsStatusAndStage(t *testing.T) {
	m := open(t, builds)
	const data = `{"action":"upload_progress","payload":{"status":"running","stage":"test","progress_percent":1,"message":""}}`
	general, err := Parse("cat", []byte(data), noon)
	must(t, err)
	_, parseErr := m.Parse("cat", []byte(data), noon)
	for door, err := range map[string]error{
		"parsed": parseErr,
		"sent":   publishError(t, m, general),
		"struct": publishError(t, m, UploadProgress{Status: "running", Stage: "test"}),
	} {
		wantInvalid(t, err, "payload.stage", `is "test", must be one of compile, link`)
		if t.Failed() {
			t.Fatal(door)
		}
	}
	if err := publishError(t, m, UploadProgress{Status: "done", Stage: "compile"}); err != nil {
		t.Error(err)
	}
	if err := publishError(t, open(t, Options{}), UploadProgress{Status: "any-word_1.0", Stage: "another"}); err != nil {
		t.Error(err)
	}
}

func publishError(t *testing.T, m *Manager, msg Message) error {
	t.Helper()
	_, err := m.Publish(t.Context(), "cat", msg)
	return err
}

func TestParseActionClass(t *testing.T) {
	for text, want := range map[string]ActionClass{
		"build_progress=state:build_id": {ClassState, "build_id"},
		"a=b=state":                     {},
		"log=event":                     {ClassEvent, ""},
		"done=terminal":                 {ClassTerminal, ""},
		"x=nonsense":                    {}, "x": {}, "": {}, "=state": {}, "x=state:": {}, "x=event:id": {}, "upload_progress=event": {},
		"ping=state": {}, "x=State": {}, "x=state:payload": {}, "x=control": {}, "x=state: id": {ClassState, " id"},
	} {
		action, got, err := ParseActionClass(text)
		switch {
		case want == ActionClass{} && text != "log=event":
			if err == nil || strings.ContainsAny(err.Error(), "\n\x00") {
				t.Errorf("%q is accepted as %s=%s: %v", text, action, got, err)
			}
		case err != nil || got != want || action+"="+got.String() != text:
			t.Errorf("%q: %s=%s, %v", text, action, got, err)
		}
	}
}

// A class that New would refuse has a text form too, for an error or a log.
func TestActionClass_StringOfUnknownClass(t *testing.T) {
	if got := (ActionClass{9, "id"}).String(); got != "class 9:id" {
		t.Errorf("got %q", got)
	}
}

func TestOptions_RefuseVocabulary(t *testing.T) {
	_, err := New(Options{
		Classes: map[string]ActionClass{
			"ping": {}, "": {}, "x": {Class: 9}, "y": {ClassEvent, "id"}, "upload_failed": {Class: ClassEvent}, "\xff": {},
			"z": {ClassState, "\xff"},
		},
		Statuses: []string{"Running"}, Stages: []string{strings.Repeat("s", 65)},
	})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{`"ping"`, `""`, `"x"`, `"y"`, `"z"`, `"\xff"`, `"upload_failed"`, `Options.Statuses has "Running"`, `Options.Stages has "sss`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v\ndoes not name %s", err, want)
		}
	}
}

func TestNewOwn_BuildsMessages(t *testing.T) {
	type log struct {
		Line string `json:"line"`
	}
	for _, test := range []struct {
		make    func() (Encoded, error)
		payload string
		class   Class
		key     string
	}{
		{func() (Encoded, error) { return NewEvent("build_log", log{"a\"b"}) }, `{"action":"build_log","line":"a\"b"}`, ClassEvent, ""},
		{func() (Encoded, error) { return NewEvent("x", nil) }, `{"action":"x"}`, ClassEvent, ""},
		{func() (Encoded, error) { return NewEvent("x\"", struct{}{}) }, `{"action":"x\""}`, ClassEvent, ""},
		{func() (Encoded, error) { return NewState("p", "7", map[string]any{"n": 1}) }, `{"action":"p","n":1}`, ClassState, "p\xff7"},
		{func() (Encoded, error) { return NewTerminal("d", json.RawMessage(`{"upload_id":"cat"}`)) }, `{"action":"d","upload_id":"cat"}`, ClassTerminal, ""},
	} {
		made, err := test.make()
		if got := string(made.Payload()); err != nil || got != test.payload || made.class != test.class || made.stateKey != test.key {
			t.Errorf("%v: %s of class %d with key %q, want %s", err, got, made.class, made.stateKey, test.payload)
		}
		e, err := Parse("cat", made.Payload(), noon)
		if err != nil || string(e.Payload()) != test.payload || e.names != made.names {
			t.Errorf("parsed: %s, %v", e.Payload(), err)
		}
	}
}

func TestNewOwn_Refuses(t *testing.T) {
	for name, v := range map[string]any{
		"a string": "x", "a list": []int{1}, "offset": map[string]int{"offset": 1}, "skipped": map[string]int{"skipped": 1},
		"action": map[string]string{"action": "y"}, "bad id": map[string]string{"upload_id": ""}, "id of a number": map[string]int{"upload_id": 1},
		"twice": json.RawMessage(`{"a":1,"a":2}`), "no JSON": func() {}, "no UTF-8": json.RawMessage("{\"a\":\"\xff\"}"),
	} {
		if e, err := NewEvent("x", v); err == nil || e.Payload() != nil {
			t.Errorf("%s: %s, %v", name, e.Payload(), err)
		}
	}
	for _, action := range []string{"", "ping", "upload_progress", "error", "\xff", "a\xc3"} {
		if _, err := NewEvent(action, nil); err == nil {
			t.Errorf("the action %q is accepted", action)
		}
	}
	if _, err := NewState("x", strings.Repeat("k", 256), nil); err == nil {
		t.Error("a key of 256 bytes is accepted")
	}
	e, err := NewEvent("x", map[string]string{"upload_id": "dog"})
	must(t, err)
	wantInvalid(t, publishError(t, open(t, Options{}), e), "upload_id", "must be the id of the upload")
}

func TestVocabulary_FingerprintTellsClassesApart(t *testing.T) {
	seen := map[string]bool{}
	for _, classes := range []map[string]ActionClass{
		nil, {"a": {}}, {"a": {Class: ClassState}}, {"a": {Class: ClassState, KeyField: "id"}}, {"a": {Class: ClassTerminal, KeyField: "id"}},
		{"b": {}}, {"a": {}, "b": {}},
	} {
		seen[fingerprint(classes)] = true
	}
	if len(seen) != 7 || fingerprint(builds.Classes) != fingerprint(maps.Clone(builds.Classes)) {
		t.Errorf("there are %d fingerprints, want 7: %v", len(seen), seen)
	}
}

// The nodes that receive a message through the broker classify it as the publishing node does.
func TestVocabulary_FramesCarryTheStateKey(t *testing.T) {
	inCluster(t, 2, Options{Classes: builds.Classes}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		near, far := nodes[0].follower(t, "ann", "cat"), nodes[1].follower(t, "bob", "cat")
		e, err := Parse("cat", []byte(`{"action":"build_progress","build_id":"b1"}`), time.Time{})
		must(t, err)
		_, err = nodes[0].Publish(t.Context(), "cat", e)
		must(t, err)
		synctest.Wait()
		for _, c := range []*fakeConn{near, far} {
			f := c.frames[len(c.frames)-1]
			if f.Class() != ClassState || f.StateKey() != "build_progress\xffb1" {
				t.Errorf("class %d, key %q", f.Class(), f.StateKey())
			}
		}
	})
}

// Other nodes know a message by its payload alone, so with a broker a message of NewEvent must fit its configured class:
// none would deliver it otherwise.
func TestNewOwn_FitsTheClassesOfOtherNodes(t *testing.T) {
	inCluster(t, 1, Options{Classes: builds.Classes}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		n := nodes[0]
		c := n.follower(t, "ann", "cat")
		lacking, err := NewEvent("build_progress", nil)
		must(t, err)
		for name, err := range map[string]error{
			"Publish":                 second(n.Publish(t.Context(), "cat", lacking)),
			"PublishOnce":             third(n.PublishOnce(t.Context(), "cat", lacking, Once{Key: "key"})),
			"SendToUser":              second(n.SendToUser(t.Context(), "ann", lacking)),
			"SendToUploadSubscribers": second(n.SendToUploadSubscribers("cat", lacking)),
		} {
			var invalid *InvalidError
			if !errors.As(err, &invalid) || invalid.Field != "build_id" {
				t.Errorf("%s: %v, want that the key is missing", name, err)
			}
		}
		complete, err := NewEvent("build_progress", map[string]string{"build_id": "b1"})
		must(t, err)
		must(t, second(n.Publish(t.Context(), "cat", complete)))
		synctest.Wait()
		if s := n.Stats(); s.Broker.Refused != 0 || s.Messages.Publish.State != 1 {
			t.Errorf("%d messages are refused, published are %+v", s.Broker.Refused, s.Messages.Publish)
		}
		if f := c.frames[len(c.frames)-1]; f.Class() != ClassState {
			t.Errorf("the message is of class %d, want a state", f.Class())
		}
	})
}

// States with different actions or keys do not replace each other, and those to users none of the upload.
func TestVocabulary_StateKeysDiffer(t *testing.T) {
	m := open(t, Options{})
	c := connect(t, m, "ann")
	must(t, m.SubscribeUpload(t.Context(), "ann", "cat"))
	messages := []Message{UploadProgress{UploadID: "cat", Status: StatusPending, Stage: StageQueued}}
	for _, state := range [][2]string{{"user", ""}, {"user", "x"}, {"a\x00b", "c"}, {"a", "b\x00c"}, {"x", ""}, {"x", "\xff"}} {
		e, err := NewState(state[0], state[1], nil)
		must(t, err)
		messages = append(messages, e)
	}
	for _, message := range messages {
		must(t, second(m.Publish(t.Context(), "cat", message)))
		must(t, second(m.SendToUser(t.Context(), "ann", message)))
	}
	seen := make(map[string]int)
	for i, f := range c.frames {
		if before, found := seen[f.StateKey()]; found {
			t.Errorf("messages %d and %d have the state key %q", before, i, f.StateKey())
		}
		seen[f.StateKey()] = i
	}
}
