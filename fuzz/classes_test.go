package fuzz_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/manager/outqueue"
)

// classedMessage is a published message: its class, and the key; only the newest state of a key matters.
type classedMessage struct {
	class manager.Class
	key   string
}

// streamModel states the rule for the messages of one upload: they arrive in order, and only states may be missing. A
// missing state is counted in skipped of the newer state of its key that arrives, with no event or terminal in between.
type streamModel struct {
	published []classedMessage
	next      int // the number of the message that follows the newest received one
	missing   map[string]int
}

// receive checks a message by its number.
func (s *streamModel) receive(number int, skipped uint32) error {
	if number < s.next || number >= len(s.published) {
		return fmt.Errorf("message %d came where %d is the next", number, s.next)
	}
	for ; s.next < number; s.next++ {
		lost := s.published[s.next]
		if lost.class != manager.ClassState {
			return fmt.Errorf("message %d, which is no state, is missing before %d", s.next, number)
		}
		s.missing[lost.key]++
	}
	s.next++
	if m := s.published[number]; m.class == manager.ClassState {
		if s.missing[m.key] != int(skipped) {
			return fmt.Errorf("state %d of key %s skipped %d, but %d are missing", number, m.key, skipped, s.missing[m.key])
		}
		delete(s.missing, m.key)
		return nil
	}
	if skipped != 0 || len(s.missing) > 0 {
		return fmt.Errorf("message %d, which is no state, skipped %d, and states are missing: %v", number, skipped, s.missing)
	}
	return nil
}

var classedActions = []string{"task_progress", "step_progress", "task_log", "task_done", "unlisted"}

var actionClasses = map[string]manager.ActionClass{
	"task_progress": {Class: manager.ClassState, KeyField: "task"},
	"step_progress": {Class: manager.ClassState},
	"task_log":      {Class: manager.ClassEvent},
	"task_done":     {Class: manager.ClassTerminal, KeyField: "task"},
}

// publishClassed publishes a message of an own action and returns its expected class and key.
func publishClassed(
	t *testing.T, m *manager.Manager, upload, action string, task, number int, inPayload bool,
) classedMessage {
	t.Helper()
	text := fmt.Sprintf(`{"action":%q,"task":"t%d","n":%d}`, action, task, number)
	if inPayload {
		text = fmt.Sprintf(`{"action":%q,"payload":{"task":"t%d"},"n":%d}`, action, task, number)
	}
	parsed, err := m.Parse(upload, []byte(text), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Publish(t.Context(), upload, parsed); err != nil {
		t.Fatal(err)
	}
	class, ok := actionClasses[action]
	if !ok {
		class.Class = manager.ClassEvent
	}
	key := action
	if class.KeyField != "" {
		key = fmt.Sprint(action, " ", task)
	}
	return classedMessage{class.Class, key}
}

// FuzzClasses publishes arbitrary sequences of messages of configured actions to a client that reads at arbitrary times
// from a short queue. The messages that it reads obey the rules of the classes: an event or terminal is delivered, or
// the queue overflows and is closed with 1013; a state may only be replaced by a newer one of its action, upload and
// key, and not across an event or terminal.
func FuzzClasses(f *testing.F) {
	// A byte is a message, action + 5 × (task + 2 × (upload + 2 × payload)), or from 200 on the reading of one.
	f.Add([]byte{0, 0, 0, 0, 0, 5, 0, 200, 200, 200}, uint8(8))
	f.Add([]byte{0, 5, 0, 5, 0, 2, 0, 5, 3, 0, 200, 0, 200, 0, 5}, uint8(4))
	f.Add([]byte{1, 1, 1, 11, 1, 0, 20, 0, 20, 1, 3, 23, 4, 1, 200, 200, 1, 1}, uint8(12))
	f.Add([]byte{2, 2, 3, 3, 4, 4, 2, 0}, uint8(2))
	f.Fuzz(func(t *testing.T, script []byte, limit uint8) {
		synctest.Test(t, func(t *testing.T) { classesOf(t, script[:min(len(script), 300)], 1+int(limit)%16) })
	})
}

func classesOf(t *testing.T, script []byte, limit int) {
	m, err := manager.New(manager.Options{HistoryMessages: -1, Classes: actionClasses})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Close(t.Context()) }()
	q := outqueue.New(outqueue.Options{Variant: manager.VariantV1, MaxMessages: limit, MaxAge: -1})
	if err := m.Connect("ann", q); err != nil {
		t.Fatal(err)
	}
	defer q.Abort()
	streams := map[string]*streamModel{}
	for _, upload := range []string{"cat", "dog"} {
		streams[upload] = &streamModel{missing: map[string]int{}}
		if err := m.SubscribeConn(t.Context(), "ann", q, upload, manager.SubscribeOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	read := func() (ok bool) {
		message, ok := q.TryNext()
		if !ok {
			return false
		}
		var number int
		text := string(message.AppendJSON(nil))
		if _, err := fmt.Sscanf(text[strings.LastIndex(text, `"n":`):], `"n":%d`, &number); err != nil {
			t.Fatalf("a message without its number: %s", text)
		}
		if err := streams[message.UploadID()].receive(number, message.Skipped); err != nil {
			t.Fatalf("upload %s: %v", message.UploadID(), err)
		}
		return true
	}
	for _, b := range script {
		if b >= 200 {
			read()
			continue
		}
		rest := int(b) / len(classedActions)
		upload := []string{"cat", "dog"}[rest/2%2]
		s := streams[upload]
		s.published = append(s.published,
			publishClassed(t, m, upload, classedActions[int(b)%len(classedActions)], rest%2, len(s.published), rest/4%2 == 1))
	}
	for read() {
	}
	wantAll(t, m, streams)
}

// wantAll checks that nothing is missing, unless the queue has overflowed.
func wantAll(t *testing.T, m *manager.Manager, streams map[string]*streamModel) {
	t.Helper()
	if m.Stats().Dropped > 0 {
		return
	}
	for upload, s := range streams {
		if s.next != len(s.published) || len(s.missing) > 0 {
			t.Fatalf("upload %s: %d of %d messages came, states are missing: %v", upload, s.next, len(s.published), s.missing)
		}
	}
}
