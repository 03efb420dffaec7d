package workqueue

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestQueue_AgreesWithMap adds keys at random and holds the list to a map of when each key's turn is: a key
// is looked at when its turn has come, never before, and once.
func TestQueue_AgreesWithMap(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		steps := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) step {
			return step{
				key:   fmt.Sprint(rapid.IntRange(0, 4).Draw(rt, "key")),
				after: time.Duration(rapid.IntRange(0, 9).Draw(rt, "after")) * time.Millisecond,
				pause: time.Duration(rapid.IntRange(0, 3).Draw(rt, "pause")) * time.Millisecond,
			}
		}), 1, 40).Draw(rt, "steps")
		workers, batch := rapid.IntRange(1, 3).Draw(rt, "workers"), rapid.IntRange(1, 3).Draw(rt, "batch")
		var complaint string
		synctest.Test(t, func(*testing.T) { complaint = follow(steps, workers, batch) })
		if complaint != "" {
			rt.Fatal(complaint)
		}
	})
}

type step struct {
	key          string
	after, pause time.Duration
}

// follow executes the steps and returns a description of the first violation, or "".
func follow(steps []step, workers, batch int) (complaint string) {
	seen := &looks{began: time.Now()}
	l := New(Config{Workers: workers, Batch: batch, MinPause: minPause, MaxPause: maxPause,
		Do: func(_ context.Context, worker int, keys []string) []string {
			seen.note(worker, keys)
			return nil
		}})
	defer l.Close()
	due, want := map[string]time.Duration{}, map[string][]time.Duration{}
	pass := func(now time.Duration) {
		for key, at := range due {
			if at <= now {
				want[key] = append(want[key], at)
				delete(due, key)
			}
		}
	}
	for _, s := range steps {
		now := time.Since(seen.began)
		if before, ok := due[s.key]; !ok || now+s.after < before {
			due[s.key] = now + s.after
		}
		l.AddAfter(s.key, s.after)
		synctest.Wait()
		<-time.After(s.pause)
		synctest.Wait()
		pass(time.Since(seen.began))
	}
	<-time.After(time.Second)
	synctest.Wait()
	pass(time.Since(seen.began))
	for key := range maps.Keys(want) {
		if got := seen.of(key); !slices.Equal(got, want[key]) {
			return fmt.Sprintf("%q was looked at at %v, want %v", key, got, want[key])
		}
	}
	for _, one := range seen.all {
		if len(one.keys) > batch || len(want[one.keys[0]]) == 0 {
			return fmt.Sprintf("%v came at once, %d may", one.keys, batch)
		}
	}
	return ""
}

// TestQueue_FirstKeysPrecedeOthers: a key that is added first is processed next however long the backlog is, also if it
// was part of the backlog, and after it has failed.
func TestQueue_FirstKeysPrecedeOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex // protects order
		var order []string
		l := New(Config{Workers: 1, Batch: 1, MinPause: time.Millisecond, MaxPause: time.Second,
			Do: func(_ context.Context, _ int, keys []string) []string {
				<-time.After(10 * time.Millisecond)
				mu.Lock()
				defer mu.Unlock()
				order = append(order, keys...)
				if keys[0] == "subscriber" && len(order) < 5 {
					return keys
				}
				return nil
			}})
		defer l.Close()
		for i := range 100 {
			l.Add(fmt.Sprint("backlog-", i))
		}
		l.Add("subscriber")
		synctest.Wait()
		l.AddFirst("subscriber")
		<-time.After(65 * time.Millisecond)
		synctest.Wait()
		mu.Lock()
		first := slices.Clone(order)
		mu.Unlock()
		if n := len(first); n != 6 || first[1] != "subscriber" || first[3] != "subscriber" {
			t.Errorf("the order was %v, want the subscriber after each other key at most", first)
		}
		<-time.After(2 * time.Second)
		synctest.Wait()
		mu.Lock()
		seen := slices.Clone(order)
		mu.Unlock()
		slices.Sort(seen)
		if len(slices.Compact(seen)) != 101 {
			t.Errorf("%d keys were processed, want 101", len(seen))
		}
	})
}

// TestQueue_BacklogCountsKeysByAge: untried keys are those that no worker had time for, failing ones those that Do
// returns or has not finished; a success ends both.
func TestQueue_BacklogCountsKeysByAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		goOn, fails := make(chan struct{}), true
		l := New(Config{Workers: 1, Batch: 1, MinPause: time.Millisecond, MaxPause: time.Second,
			Do: func(_ context.Context, _ int, keys []string) []string {
				switch {
				case keys[0] == "long":
					<-goOn
				case keys[0] == "bad" && fails:
					return keys
				}
				return nil
			}})
		defer l.Close()
		want := func(age time.Duration, untried, failing int) {
			t.Helper()
			synctest.Wait()
			if u, f := l.Backlog(age); u != untried || f != failing {
				t.Errorf("%d untried and %d failing keys, want %d and %d", u, f, untried, failing)
			}
		}
		l.AddAfter("later", time.Hour)
		l.Add("bad")
		want(0, 0, 1)
		<-time.After(10 * time.Second)
		want(5*time.Second, 0, 1)
		l.Add("long")
		synctest.Wait()
		l.Add("waiting")
		<-time.After(10 * time.Second)
		want(5*time.Second, 1, 2)
		want(15*time.Second, 0, 1)
		if n := l.Len(); n != 4 {
			t.Errorf("the queue has %d keys, want 4", n)
		}
		fails = false
		close(goOn)
		<-time.After(10 * time.Second)
		want(0, 0, 0)
	})
}

// TestQueue_RepeatedAddsKeepTheAge: a key that is added while Do processes it, and that Do returns each time, is failing
// since its first attempt; after a success only the adding since then counts.
func TestQueue_RepeatedAddsKeepTheAge(t *testing.T) {
	for name, add := range map[string]func(l *Queue, key string){"others": (*Queue).Add, "first": (*Queue).AddFirst} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var succeeds atomic.Bool
				l, _ := open(t, Config{Workers: 1, Batch: 1}, func(_ context.Context, keys []string) []string {
					<-time.After(3 * time.Second)
					if succeeds.Load() {
						return nil
					}
					return keys
				})
				for range 10 {
					add(l, "cat")
					add(l, "cat")
					if n := l.Len(); n != 1 {
						t.Errorf("the queue has %d keys, want 1", n)
					}
					<-time.After(2 * time.Second)
					synctest.Wait()
				}
				if u, f := l.Backlog(19 * time.Second); u != 0 || f != 1 {
					t.Errorf("%d untried and %d failing keys after 20 s, want 1 failing", u, f)
				}
				succeeds.Store(true)
				<-time.After(4 * time.Second) // an attempt that had begun has succeeded
				add(l, "cat")
				synctest.Wait()
				if u, f := l.Backlog(4 * time.Second); u+f != 0 {
					t.Errorf("%d untried and %d failing keys after a success", u, f)
				}
			})
		})
	}
}
