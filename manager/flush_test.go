package manager

import (
	"fmt"
	"testing"
)

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
	for i, c := range conns {
		if got := len(c.received(t)); got != 2 || c.flushes != 2 {
			t.Errorf("connection %d got %d messages and was flushed %d times, want 2 and 2", i, got, c.flushes)
		}
	}
	if m.Stats().Panics != 2 {
		t.Errorf("%d panics are counted, want 2", m.Stats().Panics)
	}
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
