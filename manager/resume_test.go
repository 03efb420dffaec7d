package manager

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/shoal/broker"
)

// meanwhile connects a connection that calls happen right after it was sent `resumed`: between the answer and the
// subscription.
func meanwhile(t *testing.T, m *Manager, happen func()) *fakeConn {
	t.Helper()
	c := &fakeConn{}
	c.onSend = func(f *Frame) Outcome {
		if read(t, f).Action == "resumed" {
			happen()
		}
		return Queued
	}
	must(t, m.Connect("ann", c))
	return c
}

func resume(t *testing.T, m *Manager, c Conn, since map[string]Position) {
	t.Helper()
	refused, err := m.Resume(t.Context(), "ann", c, since)
	if err != nil || len(refused) > 0 {
		t.Fatalf("refused: %v, %v", refused, err)
	}
}

func TestResume_ContinuesFromItsAnswer(t *testing.T) {
	m := open(t, Options{HistoryMessages: 5})
	seen := publish(t, m, "cat", 2)
	now := publish(t, m, "cat", 4)
	c := meanwhile(t, m, func() { publish(t, m, "cat", 3) }) // which drops the first that were missed
	resume(t, m, c, map[string]Position{"cat": seen})
	publish(t, m, "cat", 1)
	answer := c.received(t)[0].Uploads["cat"]
	if answer.Position != now || !answer.Recovered {
		t.Errorf("the answer is %+v, want %+v", answer, now)
	}
	wantConsecutive(t, c.offsets(), seen.Offset+1, 10)
}

func TestResume_GapAfterTheAnswerCloses(t *testing.T) {
	for name, happen := range map[string]func(*testing.T, *Manager){
		"forgotten": func(t *testing.T, m *Manager) { must(t, m.Forget(t.Context(), "cat")) },
		"forgotten and published again": func(t *testing.T, m *Manager) {
			must(t, m.Forget(t.Context(), "cat"))
			publish(t, m, "cat", 9)
		},
		"more than the history holds": func(t *testing.T, m *Manager) { publish(t, m, "cat", 6) },
	} {
		t.Run(name, func(t *testing.T) {
			m := open(t, Options{HistoryMessages: 5})
			seen := publish(t, m, "cat", 3)
			c := meanwhile(t, m, func() { happen(t, m) })
			resume(t, m, c, map[string]Position{"cat": seen})
			if got := c.closed(); len(got) != 1 || got[0] != SlowConsumer {
				t.Errorf("the connection is closed with %v", got)
			}
			if got := c.offsets(); len(got) != 0 {
				t.Errorf("the connection received %v", got)
			}
		})
	}
}

func TestResume_ManyUploads(t *testing.T) {
	m := open(t, Options{HistoryMessages: 5})
	since := map[string]Position{}
	for i := range 10 {
		upload := fmt.Sprint("upload ", i)
		since[upload] = publish(t, m, upload, 1)
		publish(t, m, upload, i) // more than 5: not recovered
	}
	c := connect(t, m, "ann")
	resume(t, m, c, since)
	got := c.received(t)
	if len(got[0].Uploads) != 10 {
		t.Fatalf("the answer is %+v", got[0])
	}
	for i := range 10 {
		upload := fmt.Sprint("upload ", i)
		var offsets []uint64
		for n, f := range c.frames {
			if f.UploadID() == upload {
				offsets = append(offsets, got[n].Offset)
			}
		}
		recovered := i <= 5
		if answer := got[0].Uploads[upload]; answer.Recovered != recovered || answer.Offset != uint64(i+1) {
			t.Errorf("%s: the answer is %+v", upload, answer)
		}
		if recovered {
			wantConsecutive(t, offsets, 2, uint64(i+1))
		} else if !slices.Equal(offsets, []uint64{uint64(i + 1)}) {
			t.Errorf("%s: received were %v, want the newest", upload, offsets)
		}
	}
}

// A client that has not recovered gets every message after its answer too.
func TestResume_UnrecoveredContinuesFromItsAnswer(t *testing.T) {
	m := open(t, Options{})
	publish(t, m, "cat", 2)
	c := meanwhile(t, m, func() { publish(t, m, "cat", 3) })
	resume(t, m, c, map[string]Position{"cat": {Epoch: "gone", Offset: 7}})
	publish(t, m, "cat", 1)
	wantConsecutive(t, c.offsets(), 2, 6)
}

// A connection that follows an upload already gets live messages while it resumes. As it is no Replayer, these would
// precede the missed ones: it is closed.
func TestResume_OfFollowedUploadClosesRatherThanReorder(t *testing.T) {
	m := open(t, Options{})
	seen := publish(t, m, "cat", 1)
	publish(t, m, "cat", 2)
	must(t, m.Connect("ann", &fakeConn{}))
	must(t, m.SubscribeUpload(t.Context(), "ann", "cat"))
	c := meanwhile(t, m, func() { publish(t, m, "cat", 1) })
	resume(t, m, c, map[string]Position{"cat": seen})
	if got := c.closed(); len(got) != 1 || got[0] != SlowConsumer {
		t.Errorf("the connection is closed with %v", got)
	}
	if got := c.offsets(); !slices.Equal(got, []uint64{3, 4}) {
		t.Errorf("the connection received %v, want the newest and the live message", got)
	}
}

// So is one that gets them by the claim of another connection of its user.
func TestResume_OfUploadThatAnotherConnFollowsCloses(t *testing.T) {
	m := open(t, Options{})
	seen := publish(t, m, "cat", 1)
	publish(t, m, "cat", 2)
	other := connect(t, m, "ann")
	must(t, m.SubscribeConn(t.Context(), "ann", other, "cat", SubscribeOptions{}))
	c := meanwhile(t, m, func() { publish(t, m, "cat", 1) })
	resume(t, m, c, map[string]Position{"cat": seen})
	if got := c.closed(); len(got) != 1 || got[0] != SlowConsumer {
		t.Errorf("the connection is closed with %v", got)
	}
	if got := c.offsets(); !slices.Equal(got, []uint64{4}) {
		t.Errorf("the connection received %v, want the live message once", got)
	}
}

// A client is told when no newest message follows its answer, since that is no longer held: it continues from there.
func TestAcknowledgements_TellThatTheNewestHasExpired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := open(t, Options{HistoryTTL: time.Second})
		follower := connect(t, m, "bob") // keeps the position
		must(t, m.SubscribeConn(t.Context(), "bob", follower, "cat", SubscribeOptions{}))
		seen := publish(t, m, "cat", 1)
		pos := publish(t, m, "cat", 1)
		<-time.After(2 * time.Second)
		c := connect(t, m, "ann")
		must(t, m.SubscribeConn(t.Context(), "ann", c, "cat", SubscribeOptions{Acknowledge: true}))
		resume(t, m, c, map[string]Position{"cat": seen})
		resume(t, m, c, map[string]Position{"cat": pos})
		for i, recovered := range []string{`false,"expired":true`, `false,"expired":true`, "true"} {
			want := `"epoch":"` + pos.Epoch + `","offset":2,"recovered":` + recovered + "}"
			if got := string(c.frames[i].Body()); !strings.Contains(got, want) {
				t.Errorf("frame %d is\n%s, want\n%s", i, got, want)
			}
		}
		if len(c.frames) != 3 {
			t.Errorf("there are %d frames, want 3", len(c.frames))
		}
	})
}

// TestAcknowledgements_OnTheWire: before `subscribed` or `resumed`, a client has no position from which to count
// the following messages.
func TestAcknowledgements_OnTheWire(t *testing.T) {
	m := open(t, Options{})
	pos := publish(t, m, "cat", 2)
	c := connect(t, m, "ann")
	must(t, m.SubscribeConn(t.Context(), "ann", c, "cat", SubscribeOptions{Acknowledge: true}))
	resume(t, m, c, map[string]Position{"cat": pos, "dog": {}})
	_, dog, _ := newest(m, "dog")
	for i, want := range map[int]string{
		0: `{"action":"subscribed","upload_id":"cat","epoch":"` + pos.Epoch + `","offset":2,"recovered":false}`,
		2: `{"action":"resumed","uploads":{"cat":{"epoch":"` + pos.Epoch + `","offset":2,"recovered":true},` +
			`"dog":{"epoch":"` + dog.Epoch + `","offset":0,"recovered":false}}}`,
	} {
		if got := string(c.frames[i].Body()); got != want {
			t.Errorf("frame %d is\n%s, want\n%s", i, got, want)
		}
	}
	if len(c.frames) != 3 {
		t.Errorf("there are %d frames, want 3", len(c.frames))
	}
}

func TestForget_BeginsAnEpochForFollowers(t *testing.T) {
	m := open(t, Options{})
	c := connect(t, m, "ann")
	must(t, m.SubscribeUpload(t.Context(), "ann", "cat"))
	before := publish(t, m, "cat", 3)
	must(t, m.Forget(t.Context(), "cat"))
	after := publish(t, m, "cat", 1)
	if after.Epoch == before.Epoch || after.Offset != 1 {
		t.Errorf("the position is %+v, before it was %+v", after, before)
	}
	got := c.received(t)
	if told := got[3]; told.Action != "subscribed" || told.Position != (Position{Epoch: after.Epoch}) || told.Recovered {
		t.Errorf("the follower is told %+v", told)
	}
	if h := held(m, "cat", before); h.Complete || len(h.Messages) != 1 {
		t.Errorf("the history is %+v", h)
	}
	must(t, m.Forget(t.Context(), "unheard of"))
	if _, _, known := newest(m, "unheard of"); known {
		t.Error("forgetting made something known")
	}
}

func TestEpoch_IsNeverReused(t *testing.T) {
	seen := map[string]bool{}
	for range 3 {
		m := open(t, Options{})
		for i := range 100 {
			seen[publish(t, m, fmt.Sprint(i), 1).Epoch] = true
		}
	}
	if len(seen) != 300 {
		t.Errorf("300 uploads of 3 processes have %d epochs", len(seen))
	}
}

func TestResume_RefusedDoesNothing(t *testing.T) {
	m := open(t, Options{})
	c := connect(t, m, "ann")
	_, err := m.Resume(t.Context(), "ann", c, map[string]Position{"cat": {}, "": {}})
	var invalid *InvalidError
	if !errors.As(err, &invalid) || len(c.frames) > 0 || m.Stats().Uploads > 0 {
		t.Errorf("the error is %v, %d frames were sent, there are %+v", err, len(c.frames), m.Stats())
	}
}

// A connection that has been told one epoch must not get the messages of another as if they followed.
func TestResume_ForgottenUploadCloses(t *testing.T) {
	m := open(t, Options{})
	publish(t, m, "cat", 3)
	c := meanwhile(t, m, func() {
		must(t, m.Forget(t.Context(), "cat"))
		publish(t, m, "cat", 1)
	})
	_, err := m.Resume(t.Context(), "ann", c, map[string]Position{"cat": {Epoch: "lost", Offset: 1}})
	must(t, err)
	if got := c.closed(); !slices.Contains(got, SlowConsumer) {
		t.Error("the connection is still open")
	}
}

func TestResume_IsBounded(t *testing.T) {
	m := open(t, Options{MaxSubscriptionsPerUser: 2})
	c := connect(t, m, "ann")
	many := map[string]Position{"a": {}, "b": {}, "c": {}}
	if _, err := m.Resume(t.Context(), "ann", c, many); !errors.Is(err, ErrTooManySubscriptions) {
		t.Errorf("err = %v, want ErrTooManySubscriptions", err)
	}
	if _, err := m.Resume(t.Context(), "bob", c, map[string]Position{"a": {}}); !errors.Is(err, ErrNotConnected) {
		t.Errorf("err = %v, want ErrNotConnected", err)
	}
	if n := m.Stats().Uploads; n != 0 {
		t.Errorf("%d uploads are known, want none", n)
	}
}

// Nothing is read from the broker, or waited for, for an upload that the limit refuses.
func TestResume_RefusedUploadsAreNotRead(t *testing.T) {
	inCluster(t, 1, Options{MaxSubscriptionsPerUser: 1}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		n := nodes[0]
		at := publish(t, n.Manager, "dog", 5)
		n.follower(t, "bob", "dog")
		c := n.follower(t, "ann", "cat")
		before, begin := n.link.made("Kept"), time.Now()
		for _, offset := range []uint64{1, at.Offset + 100} {
			refused, err := n.Resume(t.Context(), "ann", c, map[string]Position{"dog": {Epoch: at.Epoch, Offset: offset}})
			if err != nil || !errors.Is(refused["dog"], ErrTooManySubscriptions) {
				t.Fatalf("refused are %v, %v", refused, err)
			}
		}
		if reads, took := n.link.made("Kept")-before, time.Since(begin); reads != 0 || took != 0 {
			t.Errorf("%d reads, and it took %v", reads, took)
		}
	})
}

// An upload that the user can no longer follow when its position has been sent was part of the answer, so the
// connection is closed: its client would take it for followed.
func TestResume_LimitReachedAfterTheAnswerCloses(t *testing.T) {
	m := open(t, Options{MaxSubscriptionsPerUser: 1})
	c := meanwhile(t, m, func() { must(t, m.SubscribeUpload(t.Context(), "ann", "dog")) })
	refused, err := m.Resume(t.Context(), "ann", c, map[string]Position{"cat": {}})
	if err != nil || !errors.Is(refused["cat"], ErrTooManySubscriptions) {
		t.Fatalf("refused are %v, %v", refused, err)
	}
	if got := c.closed(); len(got) != 1 || got[0] != SlowConsumer {
		t.Errorf("the connection was closed with %v, want %v", got, SlowConsumer)
	}
}

// turnsConn is a Replayer that gives way to other goroutines in the middle of a resume.
type turnsConn struct{ fakeConn }

func (c *turnsConn) Replay(Replay) Outcome { return Queued }
func (c *turnsConn) CancelReplay(string)   {}
func (c *turnsConn) HoldReplays()          { runtime.Gosched() }

func (c *turnsConn) ReleaseReplays(answer *Frame) {
	for range 5 {
		runtime.Gosched()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.frames = append(c.frames, answer)
}

// Of concurrent resumes of one connection none answers with a position before the one of an earlier answer.
func TestResume_ConcurrentAnswersAreInOrder(t *testing.T) {
	for name, c := range map[string]interface {
		Conn
		received(t tester) []received
	}{"Replayer": &turnsConn{}, "other": &fakeConn{onSend: func(*Frame) Outcome { runtime.Gosched(); return Queued }}} {
		t.Run(name, func(t *testing.T) {
			m := open(t, Options{})
			since := map[string]Position{"cat": publish(t, m, "cat", 1)}
			must(t, m.Connect("ann", c))
			var resuming sync.WaitGroup
			for range 4 {
				resuming.Go(func() {
					for range 300 {
						if _, err := m.Publish(t.Context(), "cat", note(t, 1)); err != nil {
							t.Error(err)
						}
						if _, err := m.Resume(t.Context(), "ann", c, since); err != nil {
							t.Error(err)
						}
					}
				})
			}
			resuming.Wait()
			at, answers := uint64(0), 0
			for _, r := range c.received(t) {
				if r.Action != "resumed" {
					continue
				}
				answers++
				if offset := r.Uploads["cat"].Offset; offset < at {
					t.Fatalf("the answer with offset %d follows the one with %d", offset, at)
				} else {
					at = offset
				}
			}
			if answers != 4*300 {
				t.Errorf("%d answers came", answers)
			}
			if n := len(m.resuming.held); n != 0 {
				t.Errorf("%d locks are left", n)
			}
		})
	}
}
