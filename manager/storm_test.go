package manager

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// storm is many goroutines that do everything at once to a few users and uploads.
type storm struct {
	m *Manager
	// conns are the connections of each user, some of which are registered.
	conns map[string][]*flaky
}

// flaky is a connection that stores nothing and loses a message at times. Its size is not zero, because pointers to
// distinct zero-size variables may be equal.
type flaky struct{ _ byte }

func (c *flaky) Send(*Frame) Outcome {
	return [8]Outcome{Conflated, Dropped, Queued, Queued, Queued, Queued, Queued, Queued}[rand.IntN(8)]
}

func (c *flaky) Close(CloseReason) {}

// follower is a connection that must receive every message of one upload. Its offsets may restart only after a Forget
// of the upload, about which it is notified.
type follower struct {
	t      *testing.T
	mu     sync.Mutex
	offset uint64 // protected by mu
}

func (c *follower) Send(f *Frame) Outcome {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case f.Offset() == 0:
		c.offset = read(c.t, f).Offset
	case f.Offset() != c.offset+1:
		c.t.Errorf("offset %d came after %d", f.Offset(), c.offset)
		fallthrough
	default:
		c.offset = f.Offset()
	}
	return Queued
}

func (c *follower) Close(reason CloseReason) { c.t.Errorf("a follower was closed: %v", reason) }

const (
	stormUsers   = 4
	stormUploads = 5
)

// stormTable says how often each action comes.
var stormTable = []struct {
	weight int
	do     func(s *storm, user, upload string, c *flaky) error
}{
	{30, func(s *storm, _, upload string, _ *flaky) error {
		_, err := s.m.Publish(context.Background(), upload, stormMessage())
		return err
	}},
	{10, func(s *storm, user, _ string, _ *flaky) error {
		_, err := s.m.SendToUser(context.Background(), user, UploadFailed{UploadID: "own", ErrorMessage: "for all tabs"})
		return err
	}},
	{15, func(s *storm, user, _ string, c *flaky) error { return s.m.Connect(user, c) }},
	{10, func(s *storm, user, _ string, c *flaky) error {
		s.m.Disconnect(user, c)
		return nil
	}},
	{10, func(s *storm, user, upload string, _ *flaky) error {
		return s.m.SubscribeUpload(context.Background(), user, upload)
	}},
	{5, func(s *storm, user, upload string, _ *flaky) error {
		s.m.UnsubscribeUpload(user, upload)
		return nil
	}},
	{15, func(s *storm, user, upload string, c *flaky) error {
		return s.m.SubscribeConn(context.Background(), user, c, upload, SubscribeOptions{Acknowledge: rand.IntN(2) == 0})
	}},
	{10, func(s *storm, user, upload string, c *flaky) error {
		s.m.UnsubscribeConn(user, c, upload)
		return nil
	}},
	{5, func(s *storm, user, upload string, c *flaky) error {
		_, pos, _ := newest(s.m, upload)
		pos.Offset -= min(pos.Offset, uint64(rand.IntN(4)))
		_, err := s.m.Resume(context.Background(), user, c, map[string]Position{upload: pos})
		return err
	}},
	{1, func(s *storm, _, upload string, _ *flaky) error { return s.m.Forget(context.Background(), upload) }},
	{1, func(s *storm, user, _ string, _ *flaky) error {
		_, _ = s.m.DisconnectUser(context.Background(), user, NormalClosure)
		return nil
	}},
	{5, func(s *storm, _, upload string, _ *flaky) error {
		s.m.Stats()
		s.m.UploadSubscriberIDs(upload)
		held(s.m, upload, Position{})
		return nil
	}},
}

func stormMessage() Message {
	if rand.IntN(10) == 0 {
		return UploadCompleted{Description: "done"}
	}
	return UploadProgress{Status: StatusAnalyzing, Stage: StageIndexing, Percent: 50}
}

func newStorm(m *Manager) *storm {
	s := &storm{m: m, conns: map[string][]*flaky{}}
	for u := range stormUsers {
		user := fmt.Sprint("user ", u)
		for range 4 {
			s.conns[user] = append(s.conns[user], &flaky{})
		}
	}
	return s
}

// rage does one action after the other as long as more says so.
func (s *storm) rage(t *testing.T, more func() bool) {
	total := 0
	for _, a := range stormTable {
		total += a.weight
	}
	for more() {
		user, upload := fmt.Sprint("user ", rand.IntN(stormUsers)), fmt.Sprint("upload ", rand.IntN(stormUploads))
		conns := s.conns[user]
		at := rand.IntN(total)
		for _, a := range stormTable {
			if at -= a.weight; at >= 0 {
				continue
			}
			err := a.do(s, user, upload, conns[rand.IntN(len(conns))])
			if err != nil && !errors.Is(err, ErrNotConnected) && !errors.Is(err, ErrTooManySubscriptions) &&
				!errors.Is(err, ErrTooManyPending) && !errors.Is(err, ErrTooManyConnections) {
				t.Error(err)
			}
			break
		}
	}
}

// leave disconnects all users, after verifying that the registered connections match the counts.
func (s *storm) leave(t *testing.T) {
	t.Helper()
	registered := 0
	s.m.registry.EachConnection(func(string, Conn) { registered++ })
	if got := s.m.Stats(); got.Connections != registered {
		t.Errorf("counted are %d connections, registered %d", got.Connections, registered)
	}
	for user, conns := range s.conns {
		for _, c := range conns {
			s.m.Disconnect(user, c)
		}
	}
	if got := s.m.Stats(); got.Connections != 0 || got.Users != got.Pending {
		t.Errorf("when all have left, there are %+v", got)
	}
}

// TestInvariant3NothingIsLeft runs the storm, including drains, and verifies that nothing is left afterwards.
func TestInvariant3NothingIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := open(t, Options{Shards: 2, MaxConnectionsPerUser: 3, MaxSubscriptionsPerUser: 4, MaxPending: 2})
		s := newStorm(m)
		var work sync.WaitGroup
		for range 8 {
			left := 400
			work.Go(func() { s.rage(t, func() bool { left--; return left >= 0 }) })
		}
		work.Go(func() {
			for range 20 {
				if err := m.DisconnectAll(context.Background()); err != nil {
					t.Error(err)
				}
			}
		})
		work.Wait()
		s.leave(t)
		<-time.After(time.Hour) // all that waits or is remembered expires
		if got := m.registry.Counts(); got.Users+got.Uploads+got.Subscriptions+got.Pending != 0 {
			t.Errorf("left over are %+v", got)
		}
	})
}

// TestStress has the storm rage for as long as SHOAL_STRESS says, 2s by default, beside followers that must
// miss nothing of it.
func TestStress(t *testing.T) {
	const ttl = 50 * time.Millisecond
	duration := stressDuration(t)
	m := open(t, Options{
		MaxConnectionsPerUser: 3, MaxSubscriptionsPerUser: 4, MaxPending: 2, HistoryTTL: ttl, PendingTTL: ttl,
	})
	followers := map[string]*follower{}
	for u := range stormUploads {
		upload, c := fmt.Sprint("upload ", u), &follower{t: t}
		followers[upload] = c
		must(t, m.Connect("follower of "+upload, c))
		must(t, m.SubscribeUpload(t.Context(), "follower of "+upload, upload))
	}
	s := newStorm(m)
	end := time.Now().Add(duration)
	var work sync.WaitGroup
	for range 8 {
		work.Go(func() { s.rage(t, func() bool { return time.Now().Before(end) }) })
	}
	work.Wait()
	t.Logf("%+v", m.Stats())
	for upload, c := range followers {
		if _, pos, known := newest(m, upload); known && pos.Offset != c.offset {
			t.Errorf("the follower of %s is at %d, the upload at %d", upload, c.offset, pos.Offset)
		}
		m.Disconnect("follower of "+upload, c)
	}
	s.leave(t)
	inTime("expiring what is left", func() {
		for got := m.registry.Counts(); got.Users+got.Uploads != 0; got = m.registry.Counts() {
			<-time.After(ttl / 10)
		}
	})
}

func stressDuration(t *testing.T) time.Duration {
	t.Helper()
	text, set := os.LookupEnv("SHOAL_STRESS")
	if !set {
		return 2 * time.Second
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		t.Fatalf("SHOAL_STRESS is %q, must be a duration such as 30s", text)
	}
	return d
}
