package replay

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/shoal-go/shoal/internal/frame"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// history is the history of one upload.
type history struct {
	epoch  string
	floor  uint64
	frames []*frame.Frame
}

func (h *history) newest() uint64 { return h.floor + uint64(len(h.frames)) }

// written is a frame that the owner has dequeued.
type written struct {
	f       *frame.Frame
	skipped uint32
	b       *Backlog
}

// client is a client's view of one upload.
type client struct {
	frame.Start
	// awaits is the number of the acknowledgement that the view begins with, 0 after it.
	awaits int
	// ahead: a position was announced before the messages up to there. Another position must follow.
	ahead bool
}

// session is a connection: it publishes to uploads, owns the queue, and checks the frames as the client.
type session struct {
	mu        sync.Mutex
	queue     Queue
	keep      int
	histories map[string]*history
	clients   map[string]*client
	// number is the number of the last acknowledgement or epoch.
	number int
	// writing is the batch that is being written, behind are the live frames and answers that follow it.
	writing []written
	behind  []func(t *rapid.T)
	// reading is called by the next Read, when neither the queue nor the upload is locked.
	reading func()
	largest int
}

func (s *session) history(id string) *history {
	if s.histories[id] == nil {
		s.number++
		s.histories[id] = &history{epoch: fmt.Sprint("e", s.number)}
	}
	return s.histories[id]
}

// acknowledgement announces a position. kind is s for the answer to a subscription, r for a history that begins, and x
// for one that the source no longer holds.
func (s *session) acknowledgement(id, kind string, offset uint64) *frame.Frame {
	s.number++
	at := frame.Start{Epoch: s.history(id).epoch, Offset: offset}
	return frame.NewAcknowledgement(id, at, fmt.Append(nil, kind, s.number))
}

func (s *session) publish(t *rapid.T, id string, class frame.Class, size int, slow bool) {
	h := s.history(id)
	f := frame.ForUpload(frame.Message{
		UploadID: id, Class: class, StateKey: fmt.Sprint(size), Epoch: h.epoch, Offset: h.newest() + 1, NamesUpload: true,
		Body: fmt.Appendf(nil, `{"pad":%q}`, strings.Repeat("x", size)),
	})
	s.largest = max(s.largest, cost(f))
	h.frames = append(h.frames, f)
	if n := len(h.frames) - s.keep; n > 0 {
		h.frames, h.floor = h.frames[n:], h.floor+uint64(n)
	}
	s.send(t, f, slow)
}

// begin replaces the history of an upload.
func (s *session) begin(t *rapid.T, id, epoch string, floor uint64) {
	s.histories[id] = &history{epoch: epoch, floor: floor}
	s.send(t, s.acknowledgement(id, "r", floor), false)
}

func (s *session) send(t *rapid.T, f *frame.Frame, slow bool) {
	if s.clients[f.UploadID()] == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var last entry
	if b := s.queue.backlogs[f.UploadID()]; b != nil && b.listed {
		last = b.entries[len(b.entries)-1]
	}
	switch outcome, handled := s.queue.Send(f, slow); {
	case outcome == frame.Conflated:
		if older := last.frame; !slow || !last.live || older.Class() != frame.State || older.StateKey() != f.StateKey() {
			t.Fatalf("message %d has replaced %d", f.Offset(), older.Offset())
		}
	case !handled:
		s.after(t, func(t *rapid.T) { s.receive(t, f, 0) })
	case outcome == frame.Dropped:
		t.Fatal("a live frame fits nowhere")
	}
}

// after calls a function when the batch has been written.
func (s *session) after(t *rapid.T, what func(*rapid.T)) {
	if len(s.writing) > 0 {
		s.behind = append(s.behind, what)
		return
	}
	what(t)
}

// subscribe subscribes without a position. fresh: the newest message comes again.
func (s *session) subscribe(t *rapid.T, id string, fresh bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.history(id)
	n := len(h.frames)
	c := s.clients[id]
	if fresh = fresh || c == nil; fresh && n > 0 {
		n--
	}
	frames := append([]*frame.Frame{s.acknowledgement(id, "s", h.floor+uint64(n))}, h.frames[n:]...)
	if c == nil {
		s.clients[id] = &client{awaits: s.number}
	}
	if !s.queue.Recover(Replay{UploadID: id, Frames: frames, Snapshot: true, Source: s}) {
		t.Fatal("a snapshot fits nowhere")
	}
}

// resume subscribes from a position. Another upload may be published to before the answer.
func (s *session) resume(t *rapid.T, id string, back int, during func()) {
	s.mu.Lock()
	h := s.history(id)
	n := max(0, len(h.frames)-back)
	since := frame.Start{Epoch: h.epoch, Offset: h.floor + uint64(n)}
	if s.clients[id] == nil {
		s.clients[id] = &client{awaits: 1 << 60}
	}
	c := s.clients[id]
	s.queue.Hold()
	if !s.queue.Recover(Replay{UploadID: id, Frames: h.frames[n:], Source: s}) {
		t.Fatal("a replay fits nowhere")
	}
	s.mu.Unlock()
	during()
	s.mu.Lock()
	defer s.mu.Unlock()
	ahead := s.queue.Release()
	s.after(t, func(t *rapid.T) {
		for _, f := range ahead {
			s.receive(t, f, 0)
		}
		*c = client{Start: since}
	})
}

func (s *session) cancel(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue.Cancel(id)
	delete(s.clients, id)
}

// pop dequeues a batch, unless one is being written.
func (s *session) pop(t *rapid.T, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.writing) > 0 {
		return
	}
	for ; n > 0 && s.queue.Writable(); n-- {
		first := s.queue.First()
		f, skipped, b := s.queue.Pop()
		if f != first {
			t.Fatal("First is not the frame of Pop")
		}
		s.writing = append(s.writing, written{f, skipped, b})
	}
}

// write writes a number of the dequeued frames, and puts the others back.
func (s *session) write(t *rapid.T, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n = min(n, len(s.writing))
	for i := len(s.writing) - 1; i >= n; i-- {
		s.queue.Requeue(s.writing[i].b, s.writing[i].f, s.writing[i].skipped)
	}
	for _, w := range s.writing[:n] {
		s.queue.Written(w.b, w.f)
		s.receive(t, w.f, w.skipped)
	}
	behind := s.behind
	s.writing, s.behind = nil, nil
	for _, what := range behind {
		what(t)
	}
}

// read reads unread messages, while something else happens.
func (s *session) read(during func()) {
	s.mu.Lock()
	if s.reading = during; len(s.writing) == 0 && s.queue.Unread() {
		s.queue.Read(&s.mu)
	}
	s.mu.Unlock() // not deferred: a test that fails in between has unlocked it
}

// Read implements Source.
func (s *session) Read(id, epoch string, after uint64, deliver func([]*frame.Frame)) {
	s.reading()
	h := s.history(id)
	if h.epoch == epoch && after >= h.floor && after <= h.newest() {
		deliver(h.frames[after-h.floor:])
		return
	}
	n := max(0, len(h.frames)-1)
	deliver(append([]*frame.Frame{s.acknowledgement(id, "x", h.floor+uint64(n))}, h.frames[n:]...))
}

// receive checks a frame.
func (s *session) receive(t *rapid.T, f *frame.Frame, skipped uint32) {
	c := s.clients[f.UploadID()]
	if c == nil {
		return
	}
	at, acknowledges := f.Start()
	if !acknowledges {
		switch {
		case c.awaits > 0:
		case f.Epoch() != c.Epoch || f.Offset() != c.Offset+uint64(skipped)+1 || c.ahead:
			t.Fatalf("%s: message %d of %s with %d skipped came, the client is at %+v", f.UploadID(), f.Offset(), f.Epoch(), skipped, c)
		default:
			c.Offset = f.Offset()
		}
		return
	}
	var kind rune
	var number int
	if _, err := fmt.Sscanf(string(f.Body()), "%c%d", &kind, &number); err != nil {
		t.Fatal(err)
	}
	if kind == 'x' && s.keep == enough {
		t.Fatalf("%s: messages are lost that the history holds", f.UploadID())
	}
	if number < c.awaits {
		return
	}
	c.ahead = kind == 's' && c.awaits == 0 && (at.Epoch != c.Epoch || at.Offset > c.Offset)
	if c.awaits = 0; !c.ahead {
		c.Start = at
	}
}

// check compares the counts with the contents.
func (s *session) check(t *rapid.T) {
	s.mu.Lock()
	defer s.mu.Unlock()
	bytes, stored := 0, 0
	for _, w := range s.writing {
		bytes += cost(w.f)
	}
	for id, b := range s.queue.backlogs {
		if b == nil || b.done() {
			t.Fatalf("the backlog of %s is done and has not ended", id)
		}
		for _, e := range b.entries[b.first:] {
			bytes += cost(e.frame)
			if e.frame.Offset() > 0 {
				stored += cost(e.frame)
			}
		}
		for _, f := range b.late {
			bytes += cost(f)
		}
	}
	if bytes != s.queue.Bytes() {
		t.Fatalf("%d bytes are queued, %d counted", bytes, s.queue.Bytes())
	}
	// One message is queued beyond the limit if nothing else is, and the one behind each new position.
	if n := stored - s.queue.limit; n > len(uploads)*s.largest {
		t.Fatalf("%d bytes beyond the limit are queued", n)
	}
}

// enough messages are kept to lose none.
const enough = 1 << 20

var uploads = []string{"a", "b", "c"}

// For any sequence of publications, subscriptions and writes, the client gets all messages of each upload that the
// history holds, in order and once, behind the position that it has.
func TestQueue_AnySequence(t *testing.T) { rapid.Check(t, anySequence) }

// FuzzQueue is the same with operations that a fuzzer chooses.
func FuzzQueue(f *testing.F) { f.Fuzz(rapid.MakeFuzz(anySequence)) }

func anySequence(t *rapid.T) {
	s := &session{histories: map[string]*history{}, clients: map[string]*client{}}
	s.keep = rapid.SampledFrom([]int{3, enough, enough}).Draw(t, "keep")
	s.queue.Init(frame.V1, rapid.SampledFrom([]int{1, 300, 1000, NoLimit}).Draw(t, "limit"))
	upload := rapid.SampledFrom(uploads)
	few := rapid.IntRange(0, 6)
	// The values are drawn first: a test that ends in a Draw leaves no lock locked.
	publish := func(t *rapid.T) func() {
		id, class := upload.Draw(t, "upload"), rapid.SampledFrom([]frame.Class{frame.State, frame.Event}).Draw(t, "class")
		size, slow := rapid.SampledFrom([]int{0, 100, 1000}).Draw(t, "size"), rapid.Bool().Draw(t, "slow")
		return func() { s.publish(t, id, class, size, slow) }
	}
	begin := func(t *rapid.T) func() {
		id, kind := upload.Draw(t, "upload"), few.Draw(t, "kind")
		return func() {
			switch h := s.history(id); kind {
			case 0: // the same epoch goes back
				s.begin(t, id, h.epoch, h.newest()/2)
			case 1: // messages are missing
				s.begin(t, id, h.epoch, h.newest()+3)
			default:
				s.number++
				s.begin(t, id, fmt.Sprint("e", s.number), 0)
			}
		}
	}
	during := func(t *rapid.T) func() {
		switch few.Draw(t, "during") {
		case 0:
			return begin(t)
		case 1:
			id := upload.Draw(t, "upload")
			return func() { s.cancel(id) }
		case 2:
			return func() {}
		}
		return publish(t)
	}
	t.Repeat(map[string]func(*rapid.T){
		"publish":   func(t *rapid.T) { publish(t)() },
		"publish 2": func(t *rapid.T) { publish(t)() },
		"begin":     func(t *rapid.T) { begin(t)() },
		"subscribe": func(t *rapid.T) { s.subscribe(t, upload.Draw(t, "upload"), rapid.Bool().Draw(t, "fresh")) },
		"resume":    func(t *rapid.T) { s.resume(t, upload.Draw(t, "upload"), few.Draw(t, "back"), during(t)) },
		"cancel":    func(t *rapid.T) { s.cancel(upload.Draw(t, "upload")) },
		"pop":       func(t *rapid.T) { s.pop(t, few.Draw(t, "frames")) },
		"write":     func(t *rapid.T) { s.write(t, few.Draw(t, "frames")) },
		"read":      func(t *rapid.T) { s.read(during(t)) },
		"read while resuming": func(t *rapid.T) {
			id, back := upload.Draw(t, "upload"), few.Draw(t, "back")
			s.read(func() { s.resume(t, id, back, func() {}) })
		},
		"": s.check,
	})
	for range enough {
		s.write(t, enough)
		s.read(func() {})
		if s.pop(t, 3); len(s.writing) == 0 {
			break
		}
	}
	if !s.queue.Empty() || s.queue.Bytes() != 0 {
		t.Fatalf("an idle queue is not empty: %+v", s.queue)
	}
	for id, c := range s.clients {
		if h := s.history(id); c.ahead || c.awaits > 0 || c.Start != (frame.Start{Epoch: h.epoch, Offset: h.newest()}) {
			t.Fatalf("%s: the client is at %+v, the newest message at %d of %s", id, c, h.newest(), h.epoch)
		}
	}
}

// A replay that brings a message which has no offset, and is queued, late or being written already, brings it once.
func TestQueue_NewestWithoutOffsetComesOnce(t *testing.T) {
	source := (*session)(nil) // is not read
	newest := frame.ForUpload(frame.Message{UploadID: "cat", Body: []byte(`{"action":"note"}`)})
	for name, between := range map[string]func(q *Queue){
		"queued": func(q *Queue) { q.Recover(Replay{UploadID: "cat", Frames: []*frame.Frame{newest}, Source: source}) },
		"being written": func(q *Queue) {
			f, skipped, b := q.Pop()
			q.Hold()
			q.Recover(Replay{UploadID: "cat", Frames: []*frame.Frame{newest}, Source: source})
			q.Requeue(b, f, skipped)
			if ahead := q.Release(); len(ahead) != 0 {
				t.Errorf("%d frames precede the answer", len(ahead))
			}
		},
		"pipelined": func(q *Queue) {
			q.Hold()
			q.Recover(Replay{UploadID: "cat", Frames: []*frame.Frame{newest}, Source: source})
			if ahead := q.Release(); len(ahead) != 0 {
				t.Errorf("%d frames precede the answer", len(ahead))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			var q Queue
			q.Init(frame.V1, NoLimit)
			q.Recover(Replay{UploadID: "cat", Frames: []*frame.Frame{newest}, Source: source})
			between(&q)
			n := 0
			for ; q.Writable(); n++ {
				f, _, b := q.Pop()
				q.Written(b, f)
			}
			if n != 1 || !q.Empty() || q.Bytes() != 0 {
				t.Errorf("the message came %d times, and %d bytes are left", n, q.Bytes())
			}
		})
	}
}

// A batch that comes back after its upload was cancelled or its replay replaced lacks the frames that are not wanted any
// more, and those that precede an answer of the meantime. Another replay after that does not change it.
func TestQueue_BatchComesBackWithoutUnwantedFrames(t *testing.T) {
	answer := func(text string) *frame.Frame {
		return frame.NewAcknowledgement("cat", frame.Start{Epoch: "e", Offset: 1}, []byte(text))
	}
	stored := frame.ForUpload(frame.Message{UploadID: "cat", Epoch: "e", Offset: 2, Body: []byte(`{"n":2}`)})
	other := frame.ForUpload(frame.Message{UploadID: "cat", Body: []byte(`{"n":0}`)})
	for name, test := range map[string]struct {
		between func(q *Queue)
		want    string
	}{
		"nothing":  {func(*Queue) {}, `| a1 {"n":2} {"n":0} `},
		"cancel":   {func(q *Queue) { q.Cancel("cat") }, "| a1 "},
		"replace":  {func(q *Queue) { q.Recover(Replay{UploadID: "cat", Frames: []*frame.Frame{answer("a2")}}) }, `| a1 {"n":0} a2 `},
		"answered": {func(q *Queue) { q.Hold(); q.Recover(Replay{UploadID: "cat"}); q.Release() }, `a1 {"n":0} | `},
		"answered and cancelled": {func(q *Queue) {
			q.Hold()
			q.Recover(Replay{UploadID: "cat"})
			q.Release()
			q.Cancel("cat")
		}, `a1 | `},
		"answered, then replaced": {func(q *Queue) {
			q.Hold()
			q.Recover(Replay{UploadID: "cat"})
			q.Release()
			q.Recover(Replay{UploadID: "cat", Frames: []*frame.Frame{answer("a2")}})
		}, `a1 {"n":0} | a2 `},
	} {
		t.Run(name, func(t *testing.T) {
			var q Queue
			q.Init(frame.V1, NoLimit)
			q.Recover(Replay{UploadID: "cat", Frames: []*frame.Frame{answer("a1"), stored, other}})
			var batch []written
			for q.Writable() {
				f, skipped, b := q.Pop()
				batch = append(batch, written{f, skipped, b})
			}
			test.between(&q)
			got := "| "
			for _, w := range slices.Backward(batch) {
				if q.Requeue(w.b, w.f, w.skipped) { // precedes an answer
					got = string(w.f.Body()) + " " + got
				}
			}
			for q.Writable() {
				f, _, b := q.Pop()
				q.Written(b, f)
				got += string(f.Body()) + " "
			}
			if got != test.want || !q.Empty() || q.Bytes() != 0 {
				t.Errorf("written were %s and %d bytes are left, want %s", got, q.Bytes(), test.want)
			}
		})
	}
}

// A frame without an offset that fits nowhere fails the queue: it could not be read later.
func TestQueue_FailsWhereAFrameFitsNowhere(t *testing.T) {
	var q Queue
	q.Init(frame.V1, 1000)
	large := func(offset uint64) *frame.Frame {
		return frame.ForUpload(frame.Message{
			UploadID: "cat", Epoch: "e", Offset: offset, Body: fmt.Appendf(nil, `{"pad":%q}`, strings.Repeat("x", 400_000)),
		})
	}
	q.Recover(Replay{UploadID: "cat", Frames: []*frame.Frame{large(1)}, Source: (*session)(nil)})
	if _, handled := q.Send(large(2), false); !handled || q.Failed() || q.Bytes() > 401_000 {
		t.Errorf("a stored message is not left to the history: failed %v, %d bytes", q.Failed(), q.Bytes())
	}
	q.Send(large(0), false)
	if outcome, _ := q.Send(large(0), false); outcome != frame.Dropped || !q.Failed() || q.Unread() {
		t.Errorf("the outcome is %v, failed %v", outcome, q.Failed())
	}
}

// reader is a Source that calls functions.
type reader func(after uint64, deliver func([]*frame.Frame))

func (r reader) Read(_, _ string, after uint64, deliver func([]*frame.Frame)) { r(after, deliver) }

// Messages that were read before the upload was cancelled and recovered from elsewhere are not queued.
func TestQueue_ReadIsOutdated(t *testing.T) {
	stored := func(id string, offset uint64) *frame.Frame {
		return frame.ForUpload(frame.Message{UploadID: id, Epoch: "e", Offset: offset, Body: []byte(`{"n":1}`)})
	}
	var mu sync.Mutex
	var q Queue
	q.Init(frame.V1, 1)
	q.Recover(Replay{UploadID: "dog", Frames: []*frame.Frame{stored("dog", 1)}}) // has the first turn
	var during func()
	source := reader(func(_ uint64, deliver func([]*frame.Frame)) {
		if happens := during; happens != nil {
			during = nil
			happens()
		}
		deliver([]*frame.Frame{stored("cat", 2), stored("cat", 3)})
	})
	recoverFrom := func(offset uint64) {
		q.Recover(Replay{UploadID: "cat", Frames: []*frame.Frame{stored("cat", offset)}, Source: source})
	}
	recoverFrom(2)
	f, _, b := q.Pop()
	q.Written(b, f)
	during = func() {
		mu.Lock()
		defer mu.Unlock()
		q.Recover(Replay{UploadID: "dog", Frames: []*frame.Frame{stored("dog", 1)}})
		recoverFrom(8)
	}
	mu.Lock()
	progress := q.Read(&mu)
	mu.Unlock()
	if at := q.backlogs["cat"]; !progress || at == nil || !at.unread || at.after != 7 || len(at.entries) != 0 {
		t.Errorf("progress %v, the upload is at %+v", progress, at)
	}
}

// The frames of a batch are put back after an earlier batch was replaced while it was written.
func TestQueue_ReplacedEndsWithItsBatch(t *testing.T) {
	stored := func(offset uint64) *frame.Frame {
		return frame.ForUpload(frame.Message{UploadID: "cat", Epoch: "e", Offset: offset, Body: []byte(`{"n":1}`)})
	}
	var q Queue
	q.Init(frame.V1, NoLimit)
	q.Recover(Replay{UploadID: "cat", Frames: []*frame.Frame{stored(1)}})
	f, _, b := q.Pop()
	q.Recover(Replay{UploadID: "cat", Frames: []*frame.Frame{stored(1), stored(2)}})
	q.Written(b, f)
	f, _, b = q.Pop()
	if q.Requeue(b, f, 0); q.First() != f {
		t.Error("the frame is lost")
	}
}

// A live message that does not follow the messages to be read ends the connection of a client without positions, and on
// shoal.v1 the reading, behind its acknowledgement.
func TestQueue_LiveMessageThatDoesNotFollow(t *testing.T) {
	message := func(epoch string, offset uint64) *frame.Frame {
		return frame.ForUpload(frame.Message{UploadID: "cat", Epoch: epoch, Offset: offset, Body: []byte(`{"n":1}`)})
	}
	for name, test := range map[string]struct {
		variant frame.Variant
		live    *frame.Frame
		fails   bool
	}{
		"follows":            {frame.Base, message("e", 9), false},
		"goes back":          {frame.Base, message("e", 5), true},
		"of another epoch":   {frame.Base, message("f", 9), true},
		"shoal.v1 goes back": {frame.V1, message("e", 5), false},
		"no offset":          {frame.Base, message("", 0), false},
		"for shoal.v1":       {frame.Base, frame.NewAcknowledgement("cat", frame.Start{Epoch: "f"}, []byte(`{}`)), false},
	} {
		t.Run(name, func(t *testing.T) {
			var q Queue
			q.Init(test.variant, 1)
			q.Recover(Replay{
				UploadID: "cat", Frames: []*frame.Frame{message("e", 5), message("e", 6), message("e", 7)}, Source: (*session)(nil),
			})
			outcome, handled := q.Send(test.live, false)
			if !handled || q.Failed() != test.fails || (outcome == frame.Dropped) != test.fails {
				t.Errorf("handled %v, the outcome is %v, failed %v", handled, outcome, q.Failed())
			}
		})
	}
}

// A state that is larger than the one that it would replace does not exceed the limit, and one that is put back still
// counts the states that it has replaced.
func TestQueue_ReplacesWithinTheLimit(t *testing.T) {
	state := func(offset uint64, size int) *frame.Frame {
		return frame.ForUpload(frame.Message{
			UploadID: "cat", Class: frame.State, Epoch: "e", Offset: offset, Body: fmt.Appendf(nil, `{"pad":%q}`, strings.Repeat("x", size)),
		})
	}
	var q Queue
	q.Init(frame.V1, 500)
	q.Recover(Replay{UploadID: "cat", Frames: []*frame.Frame{state(1, 100)}, Source: (*session)(nil)})
	for i, want := range []frame.Outcome{frame.Queued, frame.Conflated, frame.Queued} {
		if outcome, _ := q.Send(state(uint64(i+2), 1+100*i*i*i), true); outcome != want || q.Bytes() > 500 {
			t.Errorf("state %d: %v, %d bytes", i, outcome, q.Bytes())
		}
	}
	var skips []uint32
	for range 2 {
		f, skipped, b := q.Pop()
		q.Requeue(b, f, skipped)
		f, skipped, b = q.Pop()
		q.Written(b, f)
		skips = append(skips, skipped)
	}
	if want := []uint32{0, 1}; !slices.Equal(skips, want) {
		t.Errorf("skipped are %v, want %v", skips, want)
	}
}

// An upload whose messages cannot be read any more, since it is unknown or the connection closes, leaves nothing behind.
func TestQueue_UnreadMessagesEnd(t *testing.T) {
	message := func(offset uint64) *frame.Frame {
		return frame.ForUpload(frame.Message{UploadID: "cat", Epoch: "e", Offset: offset, Body: []byte(`{"n":1}`)})
	}
	var mu sync.Mutex
	for name, test := range map[string]struct {
		end  func(q *Queue)
		left int // the frame without an offset still comes, unless the connection closes
	}{
		"unknown": {func(q *Queue) {
			mu.Lock()
			defer mu.Unlock()
			q.Read(&mu)
		}, 1},
		"closing": {(*Queue).DropUnread, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var q Queue
			q.Init(frame.V1, 1)
			unknown := reader(func(uint64, func([]*frame.Frame)) {})
			q.Recover(Replay{UploadID: "cat", Frames: []*frame.Frame{message(1), message(2)}, Source: unknown})
			q.Send(message(0), false)
			f, _, b := q.Pop()
			q.Written(b, f)
			test.end(&q)
			n := 0
			for ; q.Writable(); n++ {
				f, _, b := q.Pop()
				q.Written(b, f)
			}
			if n != test.left || !q.Empty() || q.Bytes() != 0 || q.Unread() {
				t.Errorf("%d frames came, empty %v, %d bytes", n, q.Empty(), q.Bytes())
			}
		})
	}
}
