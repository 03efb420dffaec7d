package manager

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// publishBytes publishes a message of about a number of bytes.
func publishBytes(t *testing.T, m *Manager, uploadID string, bytes int) Position {
	t.Helper()
	body := `{"action":"note","text":"` + strings.Repeat("x", bytes) + `"}`
	e, err := Parse("", []byte(body), time.Time{})
	must(t, err)
	pos, err := m.Publish(context.Background(), uploadID, e)
	must(t, err)
	return pos
}

// heldOf returns the number of an upload's stored messages.
func heldOf(m *Manager, uploadID string) int { return len(held(m, uploadID, Position{}).Messages) }

// Beyond MaxUploads the upload that was published to longest ago loses its history, and a client's position in it
// is no longer continued.
func TestHistory_OldestUploadGivesWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := open(t, Options{MaxUploads: 3})
		old := publishBytes(t, m, "a", 10)
		for _, id := range []string{"b", "c", "a", "d"} {
			<-time.After(time.Minute)
			publishBytes(t, m, id, 10)
		}
		synctest.Wait()
		if heldOf(m, "a") != 2 || heldOf(m, "b") != 0 || heldOf(m, "c") != 1 || heldOf(m, "d") != 1 {
			t.Errorf("held: a %d, b %d, c %d, d %d", heldOf(m, "a"), heldOf(m, "b"), heldOf(m, "c"), heldOf(m, "d"))
		}
		if s := m.Stats(); s.HistoryUploads != 3 || s.HistoryEvicted != 1 || s.HistoryMessages != 4 {
			t.Errorf("stats are %+v", s)
		}
		if pos := publishBytes(t, m, "b", 10); pos.Epoch == old.Epoch || pos.Offset != 1 {
			t.Errorf("b continues at %+v", pos)
		}
	})
}

// A followed upload loses its history only when no other is left to lose one, and it keeps its position.
func TestHistory_FollowedUploadsGiveWayLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := open(t, Options{HistoryTotalBytes: 20_000})
		connect(t, m, "u")
		must(t, m.SubscribeUpload(t.Context(), "u", "followed"))
		first := publishBytes(t, m, "followed", 1000)
		for i := range 40 {
			<-time.After(time.Second)
			publishBytes(t, m, fmt.Sprint(i), 1000)
		}
		if heldOf(m, "followed") != 1 || heldOf(m, "0") != 0 || heldOf(m, "39") != 1 {
			t.Error("the followed upload lost its history, or an old one kept it")
		}
		for range 40 {
			publishBytes(t, m, "followed", 1000)
		}
		next := publishBytes(t, m, "followed", 1000)
		complete := held(m, "followed", first).Complete
		if complete || next.Epoch != first.Epoch || next.Offset != 42 {
			t.Errorf("continued at %+v after %+v, complete %v", next, first, complete)
		}
		if s := m.Stats(); s.HistoryBytes > 20_000 || s.HistoryEvicted == 0 {
			t.Errorf("stats are %+v", s)
		}
	})
}

// After any operations on uploads the counts equal the contents, the bound holds, and all memory is released in the end.
func TestHistory_CountsEqualContents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most = 100_000
		m := open(t, Options{HistoryTotalBytes: most, MaxUploads: 30, HistoryTTL: time.Minute})
		var working sync.WaitGroup
		for worker := range 4 {
			working.Go(func() {
				user := fmt.Sprint("u", worker)
				c := connect(t, m, user)
				for i := range 400 {
					visit(t, m, "visitor of "+user, fmt.Sprint("never published to ", worker, " ", i))
					id := fmt.Sprint((i*7 + worker*13) % 60)
					switch i % 5 {
					case 0:
						if err := m.SubscribeUpload(context.Background(), user, id); err != nil {
							t.Error(err)
						}
					case 1:
						m.UnsubscribeUpload(user, fmt.Sprint((i*3+worker)%60))
					case 2:
						if err := m.Forget(context.Background(), id); err != nil {
							t.Error(err)
						}
					}
					publishBytes(t, m, id, i*5)
					if s := m.Stats(); s.HistoryBytes > most+4*4000 {
						t.Errorf("%d bytes are held", s.HistoryBytes)
					}
				}
				m.Disconnect(user, c)
			})
		}
		working.Wait()
		synctest.Wait()
		messages := 0
		for i := range 60 {
			messages += heldOf(m, fmt.Sprint(i))
		}
		if s := m.Stats(); s.HistoryMessages != int64(messages) || s.HistoryUploads > 30 || s.HistoryUploads < 1 {
			t.Errorf("%d messages are held, stats are %+v", messages, s)
		}
		all, unfollowed, bytes := positionsOf(m)
		if all != m.held.positions.count.Load() || bytes != m.held.positions.bytes.Load() {
			t.Errorf("%d positions with %d bytes are held, counted are %d with %d",
				all, bytes, m.held.positions.count.Load(), m.held.positions.bytes.Load())
		}
		if uploads := m.Stats().HistoryUploads; unfollowed+uploads > 30 {
			t.Errorf("%d uploads with messages and %d positions without followers are held", uploads, unfollowed)
		}
		<-time.After(2 * time.Minute)
		synctest.Wait()
		if s := m.Stats(); s.HistoryMessages != 0 || s.HistoryUploads != 0 || s.HistoryBytes != 0 || s.Uploads != 0 {
			t.Errorf("left over: %+v", s)
		}
		if count, bytes := m.held.positions.count.Load(), m.held.positions.bytes.Load(); count != 0 || bytes != 0 {
			t.Errorf("left over are %d positions with %d bytes", count, bytes)
		}
	})
}

// visit follows uploads on a connection that ends at once.
func visit(t *testing.T, m *Manager, user string, uploadIDs ...string) {
	t.Helper()
	c := connect(t, m, user)
	since := make(map[string]Position, len(uploadIDs))
	for _, id := range uploadIDs {
		since[id] = Position{}
	}
	if _, err := m.Resume(context.Background(), user, c, since); err != nil {
		t.Error(err)
	}
	m.Disconnect(user, c)
}

// positionsOf counts the logs without messages, those of them whose uploads have no followers, and their memory.
func positionsOf(m *Manager) (all, unfollowed, bytes int64) {
	m.registry.EachUpload(func(u *upload) {
		if log := u.State.log; log == nil || log.Len() > 0 {
			return
		}
		all++
		bytes += int64(UploadOverhead + len(u.ID()))
		if u.Subscribers() == 0 {
			unfollowed++
		}
	})
	return all, unfollowed, bytes
}

// ids returns a number of ids of uploads with a prefix.
func ids(prefix string, n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprint(prefix, i)
	}
	return all
}

// Clients that follow uploads and leave, time after time, cannot make a node hold more positions than histories.
func TestHistory_PositionsOfFormerFollowersAreBounded(t *testing.T) {
	for name, opt := range map[string]Options{
		"by number": {MaxUploads: 50}, "by memory": {HistoryTotalBytes: 50 * (UploadOverhead + len("visit-00-00"))},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := open(t, opt)
				for i := range 20 {
					visit(t, m, "ann", ids(fmt.Sprintf("visit-%02d-", i), 40)...)
					synctest.Wait()
				}
				<-time.After(m.sweepInterval())
				synctest.Wait()
				if all, _, _ := positionsOf(m); all > 50 || m.Stats().Uploads != int(all) {
					t.Errorf("%d positions are held, stats are %+v", all, m.Stats())
				}
				if s := m.Stats(); s.HistoryEvicted != 0 {
					t.Errorf("%d uploads are said to have lost messages", s.HistoryEvicted)
				}
			})
		})
	}
}

// Followers that come while positions are counted cost no histories, although their positions seem to be too many.
func TestHistory_NewFollowersCostNoHistories(t *testing.T) {
	m := open(t, Options{MaxUploads: 50})
	published := ids("published-", 20)
	for _, id := range published {
		publishBytes(t, m, id, 10)
	}
	m.held.positions.add(60, 60*UploadOverhead) // not among the uploads that evict visits
	m.evict()
	for _, id := range published {
		if heldOf(m, id) != 1 {
			t.Errorf("%s has lost its message", id)
		}
	}
}

// Positions of uploads with followers are kept, however many there are, and cost others neither histories nor positions.
func TestHistory_FollowedPositionsAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := open(t, Options{MaxUploads: 50})
		c := connect(t, m, "ann")
		followed := ids("followed-", 200)
		at := make(map[string]Position)
		for _, id := range followed {
			must(t, m.SubscribeConn(t.Context(), "ann", c, id, SubscribeOptions{Acknowledge: true}))
			at[id] = held(m, id, Position{}).Position
		}
		published := ids("published-", 20)
		for _, id := range published {
			publishBytes(t, m, id, 10)
		}
		for i := range 20 {
			visit(t, m, "bob", ids(fmt.Sprintf("visit-%02d-", i), 40)...)
			synctest.Wait()
		}
		for _, id := range followed {
			if now := held(m, id, Position{}).Position; now != at[id] {
				t.Errorf("%s has moved from %+v to %+v", id, at[id], now)
			}
		}
		for _, id := range published {
			if heldOf(m, id) != 1 {
				t.Errorf("%s has lost its message", id)
			}
		}
		m.Disconnect("ann", c)
		<-time.After(m.sweepInterval())
		synctest.Wait()
		if _, unfollowed, _ := positionsOf(m); unfollowed > 50 {
			t.Errorf("%d positions without followers are held", unfollowed)
		}
	})
}

// A newly followed upload without messages makes no eviction due where the last one could not free more, until there are
// as many as would reach the bound.
func TestHistory_FollowedPositionsSeldomMakeEvictionDue(t *testing.T) {
	const most = 640
	m := open(t, Options{MaxUploads: most, HistoryTotalBytes: -1})
	for i := range most - most/evictFrom {
		publish(t, m, fmt.Sprint("full ", i), 1)
	}
	c := connect(t, m, "ann")
	follow := func(i int) {
		must(t, m.SubscribeConn(t.Context(), "ann", c, fmt.Sprint("empty ", i), SubscribeOptions{Acknowledge: true}))
	}
	follow(0)
	m.evict() // if the goroutine has not done so yet
	for i := 1; i <= most/evictFrom; i++ {
		if follow(i); m.evictionDue() {
			t.Fatalf("an eviction is due after %d further positions", i)
		}
	}
	if got := m.held.evicted.Load(); got != 0 {
		t.Errorf("%d histories were evicted, want none", got)
	}
}

// However many publishers there are, and however they publish, the bound is exceeded by one message at most.
func TestHistory_BoundHoldsForAnyNumberOfPublishers(t *testing.T) {
	const publishers, size, most = 64, 32 << 10, 10 * 32 << 10
	text := fmt.Appendf(nil, `{"action":"note","text":%q}`, strings.Repeat("x", size))
	var keys atomic.Int64
	for name, send := range map[string]func(m *Manager, uploadID string, e Encoded) error{
		"Publish": func(m *Manager, uploadID string, e Encoded) error {
			_, err := m.Publish(context.Background(), uploadID, e)
			return err
		},
		"PublishOnce": func(m *Manager, uploadID string, e Encoded) error {
			_, _, err := m.PublishOnce(context.Background(), uploadID, e, Once{Key: fmt.Sprint(keys.Add(1))})
			return err
		},
		"SendToUploadSubscribers": func(m *Manager, uploadID string, e Encoded) error {
			_, err := m.SendToUploadSubscribers(uploadID, e)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := open(t, Options{HistoryTotalBytes: most})
			e, err := Parse("", text, time.Time{})
			must(t, err)
			var highest atomic.Int64
			slow := &fakeConn{onSend: func(*Frame) Outcome { // while other publishers go on
				for range 100 {
					runtime.Gosched()
				}
				highest.Store(max(highest.Load(), m.Stats().HistoryBytes))
				return Queued
			}}
			must(t, m.Connect("ann", slow))
			var publishing sync.WaitGroup
			for i := range publishers {
				must(t, m.SubscribeUpload(t.Context(), "ann", fmt.Sprint(i)))
				publishing.Go(func() {
					for range 5 {
						if err := send(m, fmt.Sprint(i), e); err != nil {
							t.Error(err)
						}
					}
				})
			}
			publishing.Wait()
			if got := highest.Load(); got > most+size+2*MessageOverhead+2*UploadOverhead {
				t.Errorf("up to %d bytes were held, the bound is %d", got, most)
			}
			if got := m.held.arriving.Load(); got != 0 {
				t.Errorf("%d bytes count as arriving", got)
			}
		})
	}
}

// A publisher that has made room at the bound delivers its message without keeping others from doing the same.
func TestHistory_FanOutAtTheBoundDelaysNoPublisher(t *testing.T) {
	m := open(t, Options{HistoryTotalBytes: 100_000})
	begun, goOn := make(chan struct{}), make(chan struct{})
	var publishing sync.WaitGroup
	publishing.Go(func() {
		m.storeAtBound("cat", 1000, func(*upload) {
			close(begun)
			<-goOn
		})
	})
	<-begun
	inTime("storing another message", func() { m.storeAtBound("dog", 1000, func(*upload) {}) })
	close(goOn)
	publishing.Wait()
}

// A message that has found room, and whose upload is locked, keeps its room from those that come next.
func TestHistory_RoomIsReserved(t *testing.T) {
	const size, most = 32 << 10, 10 * 32 << 10
	m := open(t, Options{HistoryTotalBytes: most})
	e, err := Parse("", fmt.Appendf(nil, `{"action":"note","text":%q}`, strings.Repeat("x", size)), time.Time{})
	must(t, err)
	var highest atomic.Int64
	must(t, m.Connect("ann", &fakeConn{onSend: func(*Frame) Outcome {
		highest.Store(max(highest.Load(), m.Stats().HistoryBytes))
		return Queued
	}}))
	must(t, m.SubscribeUpload(t.Context(), "ann", "late"))
	publish := func(uploadID string) {
		_, err := m.Publish(t.Context(), uploadID, e)
		must(t, err)
	}
	for i := range 8 {
		publish(fmt.Sprint(i))
	}
	var publishing sync.WaitGroup
	m.registry.With("late", func(*upload) {
		publishing.Go(func() { publish("late") })
		for m.held.arriving.Load() == 0 {
			runtime.Gosched()
		}
		var done atomic.Bool
		publishing.Go(func() {
			publish("next")
			publish("last")
			done.Store(true)
		})
		for busy := 0; !done.Load() && busy < 10_000; busy++ { // else an eviction waits for the locked upload
			if m.held.evicting.TryLock() {
				m.held.evicting.Unlock()
				busy = 0
			}
			runtime.Gosched()
		}
	})
	publishing.Wait()
	if got := highest.Load(); got == 0 || got > most {
		t.Errorf("up to %d bytes were held, the bound is %d", got, most)
	}
}

// Clients that follow uploads and leave evict the positions that exceed a bound themselves: no other goroutine has to
// keep up with them.
func TestHistory_SubscribersEvictPositions(t *testing.T) {
	const most, each = 50, 10
	m := open(t, Options{MaxUploads: most})
	for i := range 100 {
		m.held.pause.count.Store(math.MaxInt64) // nothing is evicted in the background
		m.held.pause.bytes.Store(math.MaxInt64)
		visit(t, m, "ann", ids(fmt.Sprintf("visit-%03d-", i), each)...)
		if all, _, _ := positionsOf(m); all > most+each {
			t.Fatalf("%d positions are held", all)
		}
	}
}
