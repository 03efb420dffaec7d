package outqueue_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/manager/outqueue"
)

// fataler is the part of a test that the helpers use.
type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

// client is the client of a Queue. It checks that the messages of each upload follow its position.
type client struct {
	uploads map[string]*progress
	got     int
	// complete: no history is lost, so that an answer that is not recovered skips nothing of a followed upload.
	complete bool
}

// progress is a client's place in an upload.
type progress struct {
	manager.Position
	// newest: the newest message comes next, with any offset up to Offset.
	newest bool
}

type answer struct {
	manager.Position
	Recovered bool `json:"recovered"`
	Expired   bool `json:"expired"`
}

func newClient() *client { return &client{uploads: map[string]*progress{}} }

// positions returns from where the client would resume.
func (c *client) positions() map[string]manager.Position {
	since := map[string]manager.Position{}
	for id, p := range c.uploads {
		since[id] = p.Position
		if p.newest && p.Offset > 0 {
			since[id] = manager.Position{Epoch: p.Epoch, Offset: p.Offset - 1}
		}
	}
	return since
}

func (c *client) receive(t fataler, m outqueue.Message) {
	t.Helper()
	var head struct {
		Action   string `json:"action"`
		UploadID string `json:"upload_id"`
		answer
		Uploads map[string]answer `json:"uploads"`
	}
	text := m.AppendJSON(nil)
	if err := json.Unmarshal(text, &head); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	switch head.Action {
	case "subscribed":
		c.answered(t, head.UploadID, head.answer)
	case "resumed":
		for id, a := range head.Uploads {
			c.answered(t, id, a)
		}
	default:
		p := c.uploads[m.UploadID()]
		if p == nil {
			t.Fatalf("message %s of an upload without an answer", text)
		}
		offset := m.Offset()
		switch {
		case p.newest && offset <= p.Offset:
		case offset != p.Offset+1:
			t.Fatalf("upload %s: message %d follows %d", m.UploadID(), offset, p.Offset)
		default:
			p.Offset = offset
		}
		p.newest = false
		c.got++
	}
}

func (c *client) answered(t fataler, id string, a answer) {
	t.Helper()
	p := c.uploads[id]
	switch {
	case p != nil && !a.Recovered && c.complete:
		if a.Position != p.Position || p.newest {
			t.Fatalf("upload %s: the client is told %v and is at %v", id, a.Position, *p)
		}
	case p == nil || !a.Recovered:
		c.uploads[id] = &progress{Position: a.Position, newest: a.Offset > 0 && !a.Expired && !a.Recovered}
	case a.Epoch != p.Epoch || a.Offset < p.Offset:
		t.Fatalf("upload %s has recovered %v from %v", id, a.Position, p.Position)
	}
}

func event(t fataler, n, pad int) manager.Message {
	t.Helper()
	e, err := manager.NewEvent("note", map[string]any{"n": n, "pad": strings.Repeat("x", pad)})
	if err != nil {
		t.Fatalf("%v", err)
	}
	return e
}

func create(t fataler, opt manager.Options) *manager.Manager {
	t.Helper()
	m, err := manager.New(opt)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return m
}

// Invariant 9: a client that reads recovers all that the history holds, in one attempt, with any limits of its queue.
func TestReplay_RecoversAllInOneAttempt(t *testing.T) {
	for _, opt := range []outqueue.Options{
		{}, {MaxMessages: 1}, {MaxMessages: 16, MaxBytes: 100}, {MaxBytes: 5000}, {MaxBytes: -1, MaxMessages: -1},
	} {
		opt.Variant = manager.VariantV1
		for _, pad := range []int{10, 6_000} {
			t.Run(fmt.Sprintf("%d messages, %d bytes, %d bytes each", opt.MaxMessages, opt.MaxBytes, pad), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { recoverAll(t, opt, pad) })
			})
		}
	}
}

func recoverAll(t *testing.T, opt outqueue.Options, pad int) {
	const uploads, each = 20, 64
	m := create(t, manager.Options{HistoryMessages: 100, HistoryBytes: -1})
	defer func() { _ = m.Close(t.Context()) }()
	c := newClient()
	for i := range uploads {
		id := fmt.Sprint("upload ", i)
		for n := range each {
			p, err := m.Publish(t.Context(), id, event(t, n, pad))
			if err != nil {
				t.Fatal(err)
			}
			c.uploads[id] = &progress{Position: manager.Position{Epoch: p.Epoch}}
		}
	}
	q := outqueue.New(opt)
	if err := m.Connect("ann", q); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Resume(t.Context(), "ann", q, c.positions()); err != nil {
		t.Fatal(err)
	}
	// Live messages follow, while the client takes its time: longer than a burst may last, and than MaxAge in all.
	for n := range 2 * uploads {
		if _, err := m.Publish(t.Context(), fmt.Sprint("upload ", n%uploads), event(t, n, 1)); err != nil {
			t.Fatal(err)
		}
	}
	for message, ok := q.TryNext(); ok; message, ok = q.TryNext() {
		c.receive(t, message)
		<-time.After(30 * time.Millisecond)
	}
	if want := uploads*each + 2*uploads; c.got != want {
		t.Errorf("%d messages came, want %d", c.got, want)
	}
	q.Abort()
}

// A connection that is unregistered gets nothing more of its replays, messages that are published later least of all; one
// that the manager closes gets the queued messages.
func TestReplay_EndsWithItsConnection(t *testing.T) {
	for name, test := range map[string]struct {
		end  func(ctx context.Context, m *manager.Manager, q *outqueue.Queue) error
		rest bool
	}{
		"Disconnect": {func(_ context.Context, m *manager.Manager, q *outqueue.Queue) error {
			m.Disconnect("ann", q)
			return nil
		}, false},
		"DisconnectUser": {func(ctx context.Context, m *manager.Manager, _ *outqueue.Queue) error {
			_, err := m.DisconnectUser(ctx, "ann", manager.CloseReason{})
			return err
		}, true},
		"Drain": {func(ctx context.Context, m *manager.Manager, q *outqueue.Queue) error {
			ctx, cancel := context.WithCancel(ctx)
			cancel() // the connection ends when its client has read the rest
			return m.DrainConns(ctx, 0, []manager.UserConn{{UserID: "ann", Conn: q}})
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			m := create(t, manager.Options{})
			defer func() { _ = m.Close(context.Background()) }()
			c, q := newClient(), outqueue.New(outqueue.Options{Variant: manager.VariantV1, MaxBytes: 3000})
			publish := func() manager.Position {
				p, err := m.Publish(t.Context(), "a", event(t, 1, 1000))
				if err != nil {
					t.Fatal(err)
				}
				return p
			}
			c.uploads["a"] = &progress{Position: publish()}
			for range 20 {
				publish()
			}
			if err := m.Connect("ann", q); err != nil {
				t.Fatal(err)
			}
			if _, err := m.Resume(t.Context(), "ann", q, c.positions()); err != nil {
				t.Fatal(err)
			}
			if err := test.end(t.Context(), m, q); err != nil && !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
			for range 3 {
				publish()
			}
			for message, ok := q.TryNext(); ok; message, ok = q.TryNext() {
				c.receive(t, message)
			}
			if (c.got > 0) != test.rest || c.got >= 20 {
				t.Errorf("%d messages came", c.got)
			}
			q.Abort()
		})
	}
}

// In a new epoch a replay reads on from the position that was queued last, so that it skips no message.
func TestReplay_ContinuesInNewEpoch(t *testing.T) {
	m := create(t, manager.Options{HistoryMessages: 1000})
	defer func() { _ = m.Close(context.Background()) }()
	c, q := newClient(), outqueue.New(outqueue.Options{Variant: manager.VariantV1, MaxBytes: 20_000})
	publish := func(pad int) manager.Position {
		p, err := m.Publish(t.Context(), "a", event(t, 1, pad))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	c.uploads["a"] = &progress{Position: publish(10)}
	for range 40 {
		publish(300)
	}
	if err := m.Connect("ann", q); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Resume(t.Context(), "ann", q, c.positions()); err != nil {
		t.Fatal(err)
	}
	if err := m.Forget(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	for range 60 {
		publish(5000) // the first exceeds the bound
	}
	for message, ok := q.TryNext(); ok; message, ok = q.TryNext() {
		c.receive(t, message)
	}
	if c.got != 100 {
		t.Errorf("%d messages came, want 100", c.got)
	}
	m.Disconnect("ann", q)
	q.Abort()
}

// For any sequence of publications, subscriptions, resumes and reads, with any limits: the messages of each upload follow
// the position that the client was told, and in the end it has all of them, or the queue was closed.
func TestReplay_OrderOfAnySequence(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { rapid.SyncTest(t, anySequence) })
}

func anySequence(t *rapid.T) {
	const enough = 10_000
	history := rapid.SampledFrom([]int{3, enough}).Draw(t, "history")
	forgets := rapid.Bool().Draw(t, "forgets")
	m := create(t, manager.Options{HistoryMessages: history})
	ctx := context.Background()
	var q *outqueue.Queue
	defer func() {
		q.Abort()
		_ = m.Close(ctx)
	}()
	opt := outqueue.Options{
		Variant: manager.VariantV1, MaxAge: -1,
		MaxBytes:    rapid.SampledFrom([]int{0, 300, 2000}).Draw(t, "bytes"),
		MaxMessages: rapid.SampledFrom([]int{0, 4}).Draw(t, "messages"),
	}
	ids := []string{"a", "b", "c"}
	upload := rapid.SampledFrom(ids)
	c := newClient()
	c.complete = history == enough && !forgets
	connect := func() {
		q = outqueue.New(opt)
		if err := m.Connect("ann", q); err != nil {
			t.Fatalf("%v", err)
		}
	}
	connect()
	read := func() bool {
		message, ok := q.TryNext()
		if ok {
			c.receive(t, message)
		}
		return ok
	}
	published := map[string]manager.Position{}
	n := 0
	actions := map[string]func(*rapid.T){
		"publish": func(t *rapid.T) {
			n++
			id := upload.Draw(t, "upload")
			p, err := m.Publish(ctx, id, event(t, n, rapid.SampledFrom([]int{1, 250}).Draw(t, "pad")))
			if err != nil {
				t.Fatalf("%v", err)
			}
			published[id] = p
		},
		"forget": func(t *rapid.T) {
			id := upload.Draw(t, "upload")
			if err := m.Forget(ctx, id); err != nil {
				t.Fatalf("%v", err)
			}
			delete(published, id)
		},
		"read": func(*rapid.T) { read() },
		"subscribe": func(t *rapid.T) {
			err := m.SubscribeConn(ctx, "ann", q, upload.Draw(t, "upload"), manager.SubscribeOptions{Acknowledge: true})
			if err != nil {
				t.Fatalf("%v", err)
			}
		},
		"resume": func(t *rapid.T) {
			// The client returns with its positions, and asks for some uploads that it does not know too.
			m.Disconnect("ann", q)
			q.Abort()
			connect()
			since := c.positions()
			for _, id := range ids {
				if _, known := since[id]; !known && rapid.Bool().Draw(t, "unknown") {
					since[id] = manager.Position{}
				}
			}
			kept := slices.Collect(maps.Keys(since))
			maps.DeleteFunc(c.uploads, func(id string, _ *progress) bool { return !slices.Contains(kept, id) })
			for id := range c.uploads {
				c.uploads[id] = &progress{Position: since[id]}
			}
			if _, err := m.Resume(ctx, "ann", q, since); err != nil {
				t.Fatalf("%v", err)
			}
		},
	}
	if !forgets {
		delete(actions, "forget")
	}
	t.Repeat(actions)
	for read() {
	}
	var closed *outqueue.ClosedError
	if _, err := q.Next(canceled()); errors.As(err, &closed) {
		return
	}
	for id, p := range c.uploads {
		if at, ok := published[id]; ok && p.Position != (manager.Position{Epoch: at.Epoch, Offset: at.Offset}) {
			t.Fatalf("upload %s: the client is at %v, the newest message at %v", id, p.Position, at)
		}
	}
}

func canceled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// Resumes and publications that run at the same time leave no gap either.
func TestReplay_ConcurrentPublications(t *testing.T) {
	const uploads, rounds, each = 30, 20, 300
	m := create(t, manager.Options{HistoryMessages: 1 << 14, HistoryBytes: -1})
	defer func() { _ = m.Close(context.Background()) }()
	since := map[string]manager.Position{}
	for i := range uploads {
		id := fmt.Sprint("upload ", i)
		if _, err := m.Publish(t.Context(), id, event(t, 0, 1)); err != nil {
			t.Fatal(err)
		}
		since[id] = manager.Position{Epoch: "gone", Offset: 3}
	}
	for round := range rounds {
		var publishers sync.WaitGroup
		for p := range 2 {
			publishers.Go(func() {
				for n := range each {
					if _, err := m.Publish(t.Context(), fmt.Sprint("upload ", (n+p)%uploads), event(t, n, 1)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		q := outqueue.New(outqueue.Options{Variant: manager.VariantV1, MaxBytes: 2000})
		user := fmt.Sprint("user ", round)
		if err := m.Connect(user, q); err != nil {
			t.Fatal(err)
		}
		if _, err := m.Resume(t.Context(), user, q, since); err != nil {
			t.Fatal(err)
		}
		c := newClient()
		publishers.Go(func() {
			for {
				message, err := q.Next(t.Context())
				if err != nil {
					return
				}
				c.receive(errorer{t}, message)
			}
		})
		m.Disconnect(user, q)
		q.Close(manager.NormalClosure)
		publishers.Wait()
	}
}

// errorer makes a failure of a helper one that may come from any goroutine.
type errorer struct{ *testing.T }

func (e errorer) Fatalf(format string, args ...any) { e.Errorf(format, args...) }

// Replays, and live messages of their uploads, wait for the answer that precedes them.
func TestReplay_WaitsForItsAnswer(t *testing.T) {
	q := outqueue.New(outqueue.Options{Variant: manager.VariantV1})
	q.HoldReplays()
	q.Replay(manager.Replay{UploadID: "a", Frames: []*manager.Frame{message("a", manager.ClassEvent, 1)}})
	q.Replay(manager.Replay{UploadID: "b"})
	for i, id := range []string{"a", "b"} {
		q.Send(message(id, manager.ClassEvent, 2+i))
	}
	if m, ok := q.TryNext(); ok {
		t.Errorf("%s came before the answer", m.AppendJSON(nil))
	}
	q.ReleaseReplays(message("", manager.ClassEvent, 9))
	var all []uint64
	for m, ok := q.TryNext(); ok; m, ok = q.TryNext() {
		all = append(all, m.Offset())
	}
	if len(all) != 4 || all[0] != 9 {
		t.Errorf("messages %v came, want the answer 9 and then 1, 2 and 3", all)
	}
}

// A further subscription without a position repeats nothing, and its answer follows all that the client is owed: the
// missed messages, in memory or still to be read, and the live ones behind them.
func TestReplay_SubscribingAgainLosesNothing(t *testing.T) {
	for _, maxBytes := range []int{0, 300} {
		for _, recovers := range []bool{true, false} {
			t.Run(fmt.Sprintf("%d bytes, recovers: %v", maxBytes, recovers), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { subscribeAgain(t, maxBytes, recovers) })
			})
		}
	}
}

func subscribeAgain(t *testing.T, maxBytes int, recovers bool) {
	m := create(t, manager.Options{})
	q := outqueue.New(outqueue.Options{Variant: manager.VariantV1, MaxBytes: maxBytes})
	defer func() {
		q.Abort()
		_ = m.Close(t.Context())
	}()
	if err := m.Connect("ann", q); err != nil {
		t.Fatal(err)
	}
	first := publishTo(t, m, "cat", 10)
	c := newClient()
	c.complete = true
	opt := manager.SubscribeOptions{Acknowledge: true}
	if recovers {
		opt.Since = &manager.Position{Epoch: first.Epoch, Offset: 1}
		c.uploads["cat"] = &progress{Position: *opt.Since}
	}
	for range 3 {
		if err := m.SubscribeConn(t.Context(), "ann", q, "cat", opt); err != nil {
			t.Fatal(err)
		}
		opt.Since = nil
		publishTo(t, m, "cat", 5)
	}
	answers := 0
	for message, ok := q.TryNext(); ok; message, ok = q.TryNext() {
		c.receive(t, message)
		if message.Offset() == 0 {
			answers++
		}
	}
	if at := c.uploads["cat"]; at == nil || at.Offset != 25 || at.newest || answers != 3 {
		t.Errorf("the client is at %+v after %d answers, want 25 and 3", at, answers)
	}
}

// publishTo publishes events and returns the position of the last.
func publishTo(t fataler, m *manager.Manager, uploadID string, count int) (p manager.Position) {
	t.Helper()
	for n := range count {
		var err error
		if p, err = m.Publish(context.Background(), uploadID, event(t, n, 1)); err != nil {
			t.Fatalf("%v", err)
		}
	}
	return p
}

// recovering returns a manager, and a queue that has missed messages of the upload cat and is recovering them.
func recovering(t *testing.T, opt outqueue.Options) (*manager.Manager, *outqueue.Queue) {
	t.Helper()
	m := create(t, manager.Options{})
	q := outqueue.New(opt)
	t.Cleanup(func() {
		q.Abort()
		_ = m.Close(context.Background())
	})
	if err := m.Connect("ann", q); err != nil {
		t.Fatal(err)
	}
	since := manager.Position{Epoch: publishTo(t, m, "cat", 20).Epoch}
	err := m.SubscribeConn(t.Context(), "ann", q, "cat", manager.SubscribeOptions{Acknowledge: true, Since: &since})
	if err != nil {
		t.Fatal(err)
	}
	return m, q
}

// offsets returns the offsets of the messages that Next returns now.
func offsets(q *outqueue.Queue) (all []uint64) {
	for m, ok := q.TryNext(); ok; m, ok = q.TryNext() {
		if m.Offset() > 0 {
			all = append(all, m.Offset())
		}
	}
	return all
}

// A replay ends with the subscription, by either way of ending it: messages published later do not come.
func TestReplay_EndsWithItsSubscription(t *testing.T) {
	for name, end := range map[string]func(*manager.Manager, *outqueue.Queue){
		"UnsubscribeUpload": func(m *manager.Manager, _ *outqueue.Queue) { m.UnsubscribeUpload("ann", "cat") },
		"UnsubscribeConn":   func(m *manager.Manager, q *outqueue.Queue) { m.UnsubscribeConn("ann", q, "cat") },
	} {
		for _, maxBytes := range []int{0, 300} {
			t.Run(fmt.Sprintf("%s, %d bytes", name, maxBytes), func(t *testing.T) {
				m, q := recovering(t, outqueue.Options{Variant: manager.VariantV1, MaxBytes: maxBytes})
				end(m, q)
				publishTo(t, m, "cat", 5)
				if got := offsets(q); len(got) != 0 {
					t.Errorf("messages %v came", got)
				}
			})
		}
	}
}

// A connection that gives up its claim while its user follows the upload with another one loses no message.
func TestReplay_GoesOnWhileTheUserFollows(t *testing.T) {
	for _, maxBytes := range []int{0, 300} {
		t.Run(fmt.Sprint(maxBytes), func(t *testing.T) {
			m, q := recovering(t, outqueue.Options{Variant: manager.VariantV1, MaxBytes: maxBytes})
			if err := m.SubscribeUpload(t.Context(), "ann", "cat"); err != nil {
				t.Fatal(err)
			}
			publishTo(t, m, "cat", 5)
			m.UnsubscribeConn("ann", q, "cat")
			publishTo(t, m, "cat", 5)
			// The claim is new, so its answer has the newest message once more; nothing that is owed is lost by it.
			err := m.SubscribeConn(t.Context(), "ann", q, "cat", manager.SubscribeOptions{Acknowledge: true})
			if err != nil {
				t.Fatal(err)
			}
			got := slices.Compact(offsets(q))
			for i, offset := range got {
				if offset != uint64(i+1) {
					t.Fatalf("messages %v came", got)
				}
			}
			if len(got) != 30 {
				t.Errorf("messages %v came, want all up to 30", got)
			}
		})
	}
}

// A base connection gets the missed messages of a resume without the answer, which it would not understand.
func TestReplay_BaseGetsNoAnswer(t *testing.T) {
	m, q := recovering(t, outqueue.Options{})
	pos := publishTo(t, m, "dog", 3)
	if _, err := m.Resume(t.Context(), "ann", q, map[string]manager.Position{"dog": {Epoch: pos.Epoch}}); err != nil {
		t.Fatal(err)
	}
	for message, ok := q.TryNext(); ok; message, ok = q.TryNext() {
		if message.Offset() == 0 {
			t.Errorf("%s came", message.Body())
		}
	}
}

// A base connection cannot be told that live messages behind a replay are no longer held: it is closed.
func TestReplay_BaseIsClosedWhereMessagesAreLost(t *testing.T) {
	m := create(t, manager.Options{HistoryMessages: 4})
	q := outqueue.New(outqueue.Options{MaxBytes: 1000})
	defer func() {
		q.Abort()
		_ = m.Close(t.Context())
	}()
	publishTo(t, m, "cat", 1)
	if err := m.Connect("ann", q); err != nil {
		t.Fatal(err)
	}
	if err := m.SubscribeConn(t.Context(), "ann", q, "cat", manager.SubscribeOptions{}); err != nil {
		t.Fatal(err)
	}
	publishTo(t, m, "cat", 30)
	for i, offset := range offsets(q) {
		if offset != uint64(i+1) {
			t.Fatalf("message %d came as number %d", offset, i+1)
		}
	}
	wantClosed(t, q, manager.SlowConsumer)
}

// Where the broker stores no messages, the newest one has no offset by which a client could tell that it comes again: two
// resumes, one right after the other, bring it once.
func TestReplay_PipelinedResumesBringTheNewestOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := broker.NewMemory(broker.MemoryOptions{})
		m := create(t, manager.Options{Broker: struct{ broker.Broker }{hub.Node()}})
		<-time.After(2 * time.Second) // it has joined
		q := outqueue.New(outqueue.Options{Variant: manager.VariantV1})
		defer func() {
			q.Abort()
			_ = m.Close(context.Background())
		}()
		if err := m.Connect("ann", q); err != nil {
			t.Fatal(err)
		}
		other := outqueue.New(outqueue.Options{})
		if err := m.Connect("bob", other); err != nil {
			t.Fatal(err)
		}
		if err := m.SubscribeConn(t.Context(), "bob", other, "cat", manager.SubscribeOptions{}); err != nil {
			t.Fatal(err)
		}
		publishTo(t, m, "cat", 3)
		synctest.Wait()
		for range 2 {
			_, err := m.Resume(t.Context(), "ann", q, map[string]manager.Position{"cat": {Epoch: "gone", Offset: 1}})
			if err != nil {
				t.Fatal(err)
			}
		}
		var got []string
		for message, ok := q.TryNext(); ok; message, ok = q.TryNext() {
			if message.UploadID() == "" {
				got = append(got, "answer")
			} else {
				got = append(got, "newest")
			}
		}
		if !slices.Equal(got, []string{"answer", "answer", "newest"}) {
			t.Errorf("got %v", got)
		}
		other.Abort()
	})
}
