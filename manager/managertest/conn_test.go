package managertest_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/shoal-go/shoal/internal/frame"
	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/manager/managertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start returns a running manager with a connection of ann, who follows an upload.
func start(t *testing.T, ann *managertest.Conn) *manager.Manager {
	t.Helper()
	m, err := manager.New(manager.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = m.Close(ctx)
	})
	if err := m.Connect("ann", ann); err != nil {
		t.Fatal(err)
	}
	if err := m.SubscribeConn(t.Context(), "ann", ann, "cat", manager.SubscribeOptions{Acknowledge: true}); err != nil {
		t.Fatal(err)
	}
	return m
}

func publish(t *testing.T, m *manager.Manager, n int) {
	t.Helper()
	e, err := manager.Parse("cat", fmt.Appendf(nil, `{"action":"note","n":%d}`, n), time.Now())
	if err != nil {
		t.Error(err)
	}
	if _, err := m.Publish(t.Context(), "cat", e); err != nil {
		t.Error(err)
	}
}

// The zero value is a connection of the base protocol.
func TestConn_ZeroValueIsReady(t *testing.T) {
	ann := new(managertest.Conn)
	m := start(t, ann)
	go publish(t, m, 1)
	if got := ann.Wait(t, 1); got[0].Position != (manager.Position{Epoch: got[0].Position.Epoch, Offset: 1}) ||
		strings.Contains(got[0].JSON, "offset") {
		t.Errorf("received %+v", got)
	}
	before := ann.Done()
	m.Disconnect("ann", ann)
	ann.Close(manager.NormalClosure)
	ann.Abort()
	<-before
	<-ann.Done()
}

func TestConn_RecordsInEachForm(t *testing.T) {
	ann, base := managertest.NewConn(), managertest.NewBaseConn()
	m := start(t, ann)
	if err := m.Connect("ann", base); err != nil {
		t.Fatal(err)
	}
	go publish(t, m, 1)
	got := ann.Wait(t, 2)
	if got[0].Action() != "subscribed" || got[0].Position != (manager.Position{}) || got[1].JSON != `{"action":"note","n":1,"offset":1,"upload_id":"cat"}` ||
		got[1].UploadID != "cat" || got[1].Position.Offset != 1 || got[1].Position.Epoch == "" || got[1].Class != manager.ClassEvent {
		t.Errorf("recorded %+v", got)
	}
	if got := base.Wait(t, 1); got[0].JSON != `{"action":"note","n":1}` || len(got) != 1 {
		t.Errorf("recorded %+v", got)
	}
	if n, err := m.DisconnectUser(t.Context(), "ann", manager.TryAgainLater); n != 2 || err != nil {
		t.Errorf("%d closed, %v", n, err)
	}
	if ann.WaitClosed(t) != manager.TryAgainLater || base.WaitClosed(t) != manager.TryAgainLater {
		t.Errorf("closed with %v and %v", ann.Reasons(), base.Reasons())
	}
}

// A resume is recorded in its order, although live messages come while its answer is being prepared.
func TestConn_RecordsResumeInOrder(t *testing.T) {
	ann := managertest.NewConn()
	m := start(t, ann)
	publish(t, m, 1)
	at := ann.Wait(t, 2)[1].Position
	publish(t, m, 2)
	bob := managertest.NewConn()
	if err := m.Connect("bob", bob); err != nil {
		t.Fatal(err)
	}
	bob.HoldReplays()
	if _, err := m.Resume(t.Context(), "bob", bob, map[string]manager.Position{"cat": at}); err != nil {
		t.Fatal(err)
	}
	publish(t, m, 3)
	if got := bob.Messages(); len(got) != 1 || got[0].Action() != "resumed" {
		t.Errorf("recorded %+v, want the answer alone while another is awaited", got)
	}
	bob.ReleaseReplays(nil)
	var all []uint64
	for _, message := range bob.Messages()[1:] {
		all = append(all, message.Position.Offset)
	}
	if fmt.Sprint(all) != "[2 3]" {
		t.Errorf("recorded offsets %v, want 2 and 3", all)
	}
}

func TestConn_RefusesAndBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ann := managertest.NewConn()
		m := start(t, ann)
		ann.Answer(func(message managertest.Message) manager.Outcome {
			if strings.Contains(message.JSON, `"n":1`) {
				return manager.Dropped
			}
			return manager.Conflated
		})
		publish(t, m, 1)
		publish(t, m, 2)
		release := ann.Block()
		published := make(chan struct{})
		go func() {
			defer close(published)
			publish(t, m, 3)
		}()
		synctest.Wait()
		select {
		case <-published:
			t.Error("Send does not block")
		default:
		}
		release()
		release()
		<-published
		if got := ann.Wait(t, 3); len(got) != 3 || m.Stats().Dropped != 1 || m.Stats().Conflated != 2 {
			t.Errorf("recorded %+v, counted %+v", got, m.Stats())
		}
	})
}

// Close of the manager aborts a connection that does not end.
func TestConn_StaysAfterCloseIfItSticks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ann := managertest.NewConn()
		ann.Stick()
		m := start(t, ann)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := m.Close(ctx); err == nil || !ann.Aborted() || ann.WaitClosed(t) != manager.ServerReloading {
			t.Errorf("Close: %v, aborted: %v", err, ann.Aborted())
		}
	})
}

// failing records that a test has failed.
type failing struct{ text string }

func (f *failing) Helper()                           {}
func (f *failing) Fatalf(format string, args ...any) { f.text = fmt.Sprintf(format, args...) }

func TestConn_WaitFailsTheTest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f failing
		managertest.NewConn().Wait(&f, 1)
		if !strings.Contains(f.text, "not within 30s; 0 messages") {
			t.Errorf("failed with %q", f.text)
		}
		managertest.NewConn().WaitClosed(&f)
	})
}

// During a resume a replay from a position replaces the messages of an earlier one of its upload.
func TestConn_ReplayReplacesTheOneBefore(t *testing.T) {
	stored := func(uploadID string, offset uint64) *manager.Frame {
		return frame.ForUpload(frame.Message{UploadID: uploadID, Offset: offset, Body: []byte(`{"action":"note"}`)})
	}
	c := managertest.NewConn()
	c.HoldReplays()
	c.Replay(manager.Replay{UploadID: "cat", Frames: []*manager.Frame{stored("cat", 1), stored("cat", 2)}})
	c.Replay(manager.Replay{UploadID: "dog", Frames: []*manager.Frame{stored("dog", 7)}})
	c.Replay(manager.Replay{UploadID: "cat", Frames: []*manager.Frame{stored("cat", 2)}})
	c.Send(stored("cat", 3))
	c.ReleaseReplays(frame.NewV1(frame.Event, []byte(`{"action":"resumed"}`)))
	var got []uint64
	for _, m := range c.Messages() {
		got = append(got, m.Position.Offset)
	}
	if want := []uint64{0, 7, 2, 3}; !slices.Equal(got, want) {
		t.Errorf("offsets %v came, want %v", got, want)
	}
}
