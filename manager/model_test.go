package manager

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/shoal-go/shoal/internal/model"
	"github.com/shoal-go/shoal/shard"
)

// TestModel_ManagerBehavesLikeIt runs random operations on a manager and on the reference model, over so few ids
// that they meet all the time, and compares all that can be seen from outside after each of them.
func TestModel_ManagerBehavesLikeIt(t *testing.T) { rapid.Check(t, twinOperations) }

// FuzzModel is the same with operations that a fuzzer chooses.
func FuzzModel(f *testing.F) { f.Fuzz(rapid.MakeFuzz(twinOperations)) }

func twinOperations(t *rapid.T) {
	rapid.SyncTest(t, func(t *rapid.T) {
		w := newTwins(t)
		defer w.close(t)
		actions := rapid.StateMachineActions(w)
		t.Repeat(actions)
		t.Repeat(actions) // run again: rare states take some steps to occur
		w.leave(t)
	})
}

// The limits of both twins. The manager sweeps once a second, and everything else happens half a second
// later, so that it does not matter in which order things happen within one instant.
const (
	modelConnections   = 2
	modelSubscriptions = 2
	modelPending       = 1
	modelHistory       = 3
	modelPendingTTL    = 8 * time.Second
	modelHistoryTTL    = 12 * time.Second
)

var (
	modelUsers   = []string{"ann", "bob"}
	modelUploads = []string{"cat.mp4", "dog.mp4", "eel.mp4"}
	// modelConns are the connections of a user: one more than the limit allows. A connection may come back.
	modelConns = []string{"/1", "/2", "/3"}
)

// twins are a manager and a model to which the same things happen.
type twins struct {
	manager *Manager
	model   *model.Model
	conns   map[string]*fakeConn // by user and connection
	// epochs are the manager's names of the model's epochs, as far as they were seen.
	epochs map[int]string
	// notes counts messages, queued the messages that had to reach a connection.
	notes, queued int
}

func newTwins(t *rapid.T) *twins {
	m, err := New(Options{
		Shards: 2, HistoryMessages: modelHistory, HistoryTTL: modelHistoryTTL, PendingTTL: modelPendingTTL,
		MaxConnectionsPerUser: modelConnections, MaxSubscriptionsPerUser: modelSubscriptions, MaxPending: modelPending,
	})
	must(t, err)
	w := &twins{
		manager: m,
		model: model.New(model.Limits{
			Connections: modelConnections, Subscriptions: modelSubscriptions, Pending: modelPending,
			History: modelHistory, HistoryTTL: modelHistoryTTL, PendingTTL: modelPendingTTL,
		}),
		conns:  map[string]*fakeConn{},
		epochs: map[int]string{},
	}
	for _, user := range modelUsers {
		for _, conn := range modelConns {
			w.conns[user+conn] = &fakeConn{}
		}
	}
	<-time.After(time.Second / 2)
	return w
}

// close ends the manager's goroutines, which a bubble has to be left without.
func (w *twins) close(t *rapid.T) { must(t, w.manager.Close(context.Background())) }

// leave takes everything out again: nothing may be left of it.
func (w *twins) leave(t *rapid.T) {
	for _, user := range modelUsers {
		for _, conn := range modelConns {
			w.manager.Disconnect(user, w.conns[user+conn])
			w.model.Disconnect(user, user+conn)
		}
	}
	w.pass(max(modelHistoryTTL, modelPendingTTL) + time.Second)
	w.Check(t)
	wantEqual(t, "left over", w.manager.registry.Counts(), shard.Counts{})
}

func (w *twins) pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func anyUser(t *rapid.T) string   { return rapid.SampledFrom(modelUsers).Draw(t, "user") }
func anyUpload(t *rapid.T) string { return rapid.SampledFrom(modelUploads).Draw(t, "upload") }

// conn returns a connection that is a user's own, nearly always.
func (w *twins) conn(t *rapid.T, user string) (string, *fakeConn) {
	if rapid.IntRange(0, 9).Draw(t, "stranger") == 0 {
		user = rapid.SampledFrom(modelUsers).Draw(t, "owner")
	}
	name := user + rapid.SampledFrom(modelConns).Draw(t, "connection")
	return name, w.conns[name]
}

// since returns a position of an upload as a client may have it: often a good one.
func (w *twins) since(t *rapid.T, upload string) (model.Position, Position) {
	_, _, at := w.model.History(upload, model.Position{})
	if rapid.IntRange(0, 3).Draw(t, "astray") == 0 {
		at.Epoch = rapid.IntRange(0, len(w.epochs)).Draw(t, "epoch")
	}
	at.Offset = rapid.Uint64Range(0, at.Offset+1).Draw(t, "offset")
	name, known := w.epochs[at.Epoch]
	if !known {
		name = "unheard of"
	}
	return at, Position{Epoch: name, Offset: at.Offset}
}

// note returns a message of any class, which the manager treats alike as long as no connection is slow.
func (w *twins) note(t *rapid.T) (Encoded, string) {
	w.notes++
	content := map[string]int{"n": w.notes}
	var (
		e   Encoded
		err error
	)
	switch rapid.SampledFrom([]Class{ClassEvent, ClassState, ClassTerminal}).Draw(t, "class") {
	case ClassState:
		e, err = NewState("note", rapid.SampledFrom([]string{"", "1"}).Draw(t, "key"), content)
	case ClassTerminal:
		e, err = NewTerminal("note", content)
	default:
		e, err = NewEvent("note", content)
	}
	must(t, err)
	return e, string(e.Payload())
}

// wantSame fails unless the manager and the model refuse the same operations for the same reason.
func wantSame(t *rapid.T, got, want error) {
	t.Helper()
	reasons := map[error]error{
		nil: nil, model.ErrUnknown: ErrNotConnected, model.ErrLimit: ErrTooManySubscriptions, model.ErrPending: ErrTooManyPending,
		model.ErrFull: ErrTooManyConnections,
	}
	if !errors.Is(got, reasons[want]) {
		t.Fatalf("the manager answers %v, the model %v", got, want)
	}
}

func wantEqual[T comparable](t *rapid.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Fatalf("%s: the manager has %v, the model %v", what, got, want)
	}
}

// wantPosition fails unless an epoch of the manager stands for the same one of the model each time.
func (w *twins) wantPosition(t *rapid.T, what string, got Position, want model.Position) {
	t.Helper()
	name, known := w.epochs[want.Epoch]
	if !known {
		name = got.Epoch
		for _, other := range w.epochs {
			if other == name {
				t.Fatalf("%s: epoch %q stands for two", what, name)
			}
		}
		w.epochs[want.Epoch] = name
	}
	wantEqual(t, what, got, Position{Epoch: name, Offset: want.Offset})
}

// Check compares the observable state. Reading an upload makes the manager drop its expired messages.
func (w *twins) Check(t *rapid.T) {
	w.model.Expire(time.Now())
	for _, upload := range modelUploads {
		w.checkUpload(t, upload)
	}
	for name, conn := range w.conns {
		w.checkConn(t, name, conn)
	}
	got, want := w.manager.Stats(), w.model.Counts()
	wantEqual(t, "counts", model.Counts{
		Connections: got.Connections, Users: got.Users, Uploads: got.Uploads,
		Subscriptions: got.Subscriptions, Pending: got.Pending,
	}, want)
	wantEqual(t, "queued", int(got.Queued), w.queued)
	wantEqual(t, "conflated or dropped", got.Conflated+got.Dropped, 0)
}

func (w *twins) checkUpload(t *rapid.T, upload string) {
	held, _, at := w.model.History(upload, model.Position{Epoch: -1})
	newest, pos, known := newest(w.manager, upload)
	wantEqual(t, "known", known, at.Epoch > 0)
	if known {
		w.wantPosition(t, "newest", pos, at)
	}
	var want model.Message
	if len(held) > 0 {
		want = held[len(held)-1]
	}
	wantEqual(t, "newest", newest.Offset, want.Offset)
	wantEqual(t, "newest", string(newest.Payload), want.Body)
	if got, want := w.manager.UploadSubscriberIDs(upload), w.model.Subscribers(upload); !slices.Equal(got, want) {
		t.Fatalf("%s: the manager's subscribers are %v, the model's %v", upload, got, want)
	}
}

func (w *twins) checkConn(t *rapid.T, name string, conn *fakeConn) {
	all := w.records(t, conn)
	for _, upload := range append([]string{""}, modelUploads...) {
		want := w.model.Received(name, upload)
		got := all[upload]
		if len(got) != len(want) {
			t.Fatalf("connection %s has of upload %q\n%+v\nand the model\n%+v", name, upload, got, want)
		}
		for i := range got {
			if want[i].Position.Epoch > 0 {
				w.wantPosition(t, name, got[i].position, want[i].Position)
				got[i].Position = want[i].Position
			}
			wantEqual(t, name, got[i].Record, want[i])
		}
	}
}
