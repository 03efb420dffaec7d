package manager

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// counter is a connection that counts its frames and always returns the same outcome.
type counter struct {
	sent    atomic.Int64
	outcome Outcome
}

func (c *counter) Send(*Frame) Outcome {
	c.sent.Add(1)
	return c.outcome
}

func (c *counter) Close(CloseReason) {}

// audience makes n users follow the upload "cat". Their connections answer Queued, Conflated and Dropped in turn.
func audience(t testing.TB, m *Manager, n int) []*counter {
	t.Helper()
	conns := make([]*counter, n)
	for i := range conns {
		conns[i] = &counter{outcome: Queued + Outcome(i%3)}
		user := fmt.Sprint("user ", i)
		must(t, m.Connect(user, conns[i]))
		must(t, m.SubscribeConn(t.Context(), user, conns[i], "cat", SubscribeOptions{}))
	}
	return conns
}

// audiences are sizes below, at and above the borders of a fan-out's parts.
var audiences = []int{0, 1, 2, 3, fanOutPart, fanOutAlone - 1, fanOutAlone, fanOutAlone + 1, 3*fanOutPart + 1}

func TestFanOut_ReachesEachReceiverOnce(t *testing.T) {
	for _, n := range audiences {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			m := open(t, Options{})
			conns := audience(t, m, n)
			const messages = 5
			for i := range messages {
				d, err := m.SendToUploadSubscribers("cat", note(t, i))
				must(t, err)
				if want := (Delivery{Queued: (n + 2) / 3, Conflated: (n + 1) / 3, Dropped: n / 3}); d != want {
					t.Errorf("the delivery to %d is %+v, want %+v", n, d, want)
				}
			}
			for i, c := range conns {
				if got := c.sent.Load(); got != messages {
					t.Fatalf("connection %d of %d was sent %d of %d messages", i, n, got, messages)
				}
			}
			s := m.Stats()
			if total := s.Queued + s.Conflated + s.Dropped; total != uint64(n*messages) || s.Published != messages {
				t.Errorf("counted are %+v", s)
			}
		})
	}
}

// TestFanOut_Concurrent has several broadcasts want the same helpers.
func TestFanOut_Concurrent(t *testing.T) {
	f := newFanOut(&guard{logger: slog.New(slog.DiscardHandler)})
	defer f.close()
	const n, broadcasts = 4 * fanOutPart, 50
	var wait sync.WaitGroup
	for range 4 {
		receivers := make([]receiver, n)
		for i := range receivers {
			receivers[i].Conn = &counter{outcome: Queued}
		}
		wait.Go(func() {
			for range broadcasts {
				if d := f.send(receivers, nil); d.Queued != n {
					t.Errorf("%d of %d were reached", d.Queued, n)
				}
			}
			for _, r := range receivers {
				if got := r.Conn.(*counter).sent.Load(); got != broadcasts { // made above
					t.Errorf("a connection was sent %d of %d messages", got, broadcasts)
				}
			}
		})
	}
	wait.Wait()
}

// TestFanOut_WithoutHelpers: a broadcast that is under way when the manager is closed still reaches everybody.
func TestFanOut_WithoutHelpers(t *testing.T) {
	f := newFanOut(&guard{logger: slog.New(slog.DiscardHandler)})
	f.close()
	f.close()
	receivers := make([]receiver, 3*fanOutPart)
	for i := range receivers {
		receivers[i].Conn = &counter{outcome: Queued}
	}
	receivers[7].Conn = nil // a user that waits for a connection
	if d := f.send(receivers, nil); d.Queued != len(receivers)-1 {
		t.Errorf("%d of %d were reached", d.Queued, len(receivers)-1)
	}
}

// TestFanOut_HelpersTakeTheirPart shows that a large broadcast is worked on by several goroutines: the first Send of
// each part waits for those of all others.
func TestFanOut_HelpersTakeTheirPart(t *testing.T) {
	const cores = 4
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(cores))
	synctest.Test(t, func(t *testing.T) {
		f := newFanOut(&guard{logger: slog.New(slog.DiscardHandler)})
		defer f.close()
		synctest.Wait() // for the helpers to be idle
		var begun sync.WaitGroup
		begun.Add(cores)
		receivers := make([]receiver, cores*fanOutPart)
		for i := range receivers {
			receivers[i].Conn = &counter{outcome: Queued}
			if i%fanOutPart == 0 {
				receivers[i].Conn = &fakeConn{onSend: func(*Frame) Outcome {
					begun.Done()
					begun.Wait()
					return Queued
				}}
			}
		}
		if d := f.send(receivers, nil); d.Queued != len(receivers) {
			t.Errorf("%d of %d were reached", d.Queued, len(receivers))
		}
	})
}

// TestFanOut_AllocatesNothingPerReceiver: the allocations of a broadcast, apart from its encoding, are independent of
// the number of receivers.
func TestFanOut_AllocatesNothingPerReceiver(t *testing.T) {
	for _, n := range []int{1, 2, fanOutAlone - 1, 4 * fanOutAlone} {
		m := open(t, Options{})
		audience(t, m, n)
		msg := note(t, 1)
		for range 100 { // fills the history
			publish(t, m, "cat", 1)
		}
		allocations := testing.AllocsPerRun(100, func() {
			if _, err := m.SendToUploadSubscribers("cat", msg); err != nil {
				t.Error(err)
			}
		})
		if allocations > 2 {
			t.Errorf("a broadcast to %d takes %v allocations, at most 2 are planned", n, allocations)
		}
	}
}

// flushingConn is a Flusher whose calls a test observes.
type flushingConn struct {
	fakeConn
	onFlush func()
	flushes int
}

func (c *flushingConn) SendDeferred(f *Frame) (o Outcome, flush bool) { return c.Send(f), true }

func (c *flushingConn) Flush() {
	c.flushes++
	if c.onFlush != nil {
		c.onFlush()
	}
}

// followFlushing returns connections of users of their own that follow upload "cat".
func followFlushing(t *testing.T, m *Manager, n int) (conns []*flushingConn) {
	t.Helper()
	for i := range n {
		c, user := &flushingConn{}, fmt.Sprint("user ", i)
		must(t, m.Connect(user, c))
		must(t, m.SubscribeUpload(t.Context(), user, "cat"))
		conns = append(conns, c)
	}
	return conns
}

// TestFlusher_IsFlushedByThePublisherWithoutLocks: a publisher flushes each connection of a small audience once, when
// the upload is no longer locked; a panic of one keeps no other from being flushed.
func TestFlusher_IsFlushedByThePublisherWithoutLocks(t *testing.T) {
	m := open(t, Options{})
	conns := followFlushing(t, m, maxDeferred)
	for i, c := range conns {
		c.onFlush = func() {
			if got := len(m.UploadSubscriberIDs("cat")); got != maxDeferred { // locks the upload
				t.Errorf("%d subscribers", got)
			}
			if i == 0 {
				panic("a bug in somebody's connection")
			}
		}
	}
	publish(t, m, "cat", 1)
	_, _, err := m.PublishOnce(t.Context(), "cat", note(t, 2), Once{Key: "key"})
	must(t, err)
	for i, c := range conns[1:] {
		if got := len(c.offsets()); got != 2 || c.flushes != 2 {
			t.Errorf("connection %d got %d messages and was flushed %d times, want 2 and 2", i+1, got, c.flushes)
		}
	}
	// The one that panics is closed, and gets the second message only if that is done before.
	wantPanics(t, m, 1)
}

// TestFlusher_OfLargeAudienceIsLeftAlone: beyond maxDeferred receivers a publisher writes to none itself.
func TestFlusher_OfLargeAudienceIsLeftAlone(t *testing.T) {
	m := open(t, Options{})
	for i, c := range followFlushing(t, m, maxDeferred+1) {
		if i == 0 {
			publish(t, m, "cat", 1)
		}
		if got := len(c.received(t)); got != 1 || c.flushes != 0 {
			t.Errorf("connection %d got %d messages and was flushed %d times, want 1 and 0", i, got, c.flushes)
		}
	}
}

// TestFlusher_IsFlushedBeforeAnEviction: until then nobody else writes to the connection, and an eviction takes long.
func TestFlusher_IsFlushedBeforeAnEviction(t *testing.T) {
	for name, send := range map[string]func(m *Manager) error{
		"Publish": func(m *Manager) error {
			_, err := m.Publish(context.Background(), "cat", UploadFailed{})
			return err
		},
		"PublishOnce": func(m *Manager) error {
			_, _, err := m.PublishOnce(context.Background(), "cat", UploadFailed{}, Once{Key: "key"})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := open(t, Options{MaxUploads: 1})
			publish(t, m, "dog", 1)
			flushed, published := make(chan struct{}), make(chan error)
			followFlushing(t, m, 1)[0].onFlush = func() { close(flushed) }
			m.held.evicting.Lock() // an eviction is under way
			go func() { published <- send(m) }()
			select {
			case <-flushed:
			case <-time.After(10 * time.Second):
				t.Error("the connection waits for the eviction")
			}
			m.held.evicting.Unlock()
			must(t, <-published)
		})
	}
}
