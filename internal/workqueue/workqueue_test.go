package workqueue

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

const minPause, maxPause = 50 * time.Millisecond, 400 * time.Millisecond

// look is one call of Do.
type look struct {
	at     time.Duration // since the list was made
	worker int
	keys   []string
}

// looks notes the calls of Do.
type looks struct {
	began time.Time

	mu  sync.Mutex
	all []look
}

func (l *looks) note(worker int, keys []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, look{time.Since(l.began), worker, slices.Clone(keys)})
}

// of returns when a key was looked at.
func (l *looks) of(key string) (at []time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, one := range l.all {
		for _, k := range one.keys {
			if k == key {
				at = append(at, one.at)
			}
		}
	}
	return at
}

// open returns a queue that records every processed key and then calls do, unless do is nil.
func open(t *testing.T, cfg Config, do func(ctx context.Context, keys []string) (again []string)) (*Queue, *looks) {
	t.Helper()
	seen := &looks{began: time.Now()}
	cfg.MinPause, cfg.MaxPause = minPause, maxPause
	cfg.Do = func(ctx context.Context, worker int, keys []string) []string {
		seen.note(worker, keys)
		if do == nil {
			return nil
		}
		return do(ctx, keys)
	}
	l := New(cfg)
	t.Cleanup(l.Close)
	return l, seen
}

func wantLooks(t *testing.T, seen *looks, key string, want ...time.Duration) {
	t.Helper()
	if got := seen.of(key); !slices.Equal(got, want) {
		t.Errorf("%q was looked at at %v, want %v", key, got, want)
	}
}

func TestAdd_PendingKeyIsHandledOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, seen := open(t, Config{Workers: 1, Batch: 10}, nil)
		for range 5 {
			l.AddAfter("cat", time.Second)
		}
		<-time.After(time.Minute)
		wantLooks(t, seen, "cat", time.Second)
		l.Add("cat")
		synctest.Wait()
		wantLooks(t, seen, "cat", time.Second, time.Minute)
	})
}

func TestAdd_EarlierTurnCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, seen := open(t, Config{Workers: 1, Batch: 10}, nil)
		l.AddAfter("cat", 2*time.Second)
		l.AddAfter("cat", time.Second)
		l.AddAfter("cat", 3*time.Second)
		l.AddAfter("dog", time.Hour/2)
		synctest.Wait()
		l.AddAfter("dog", time.Second/2) // while the worker sleeps until much later
		<-time.After(2 * time.Hour)
		wantLooks(t, seen, "cat", time.Second)
		wantLooks(t, seen, "dog", time.Second/2)
	})
}

// TestAdd_OutdatedTurnDoesNotCount: a stale entry, superseded by an earlier one, must not apply when the key is added
// again.
func TestAdd_OutdatedTurnDoesNotCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, seen := open(t, Config{Workers: 1, Batch: 10}, nil)
		l.AddAfter("cat", time.Second)
		l.Add("cat")
		synctest.Wait()
		l.AddAfter("cat", 2*time.Second)
		<-time.After(time.Minute)
		wantLooks(t, seen, "cat", 0, 2*time.Second)
	})
}

func TestAdd_KeyInWorkIsHandledAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l *Queue
		begun, goOn := make(chan struct{}, 2), make(chan struct{})
		l, seen := open(t, Config{Workers: 1, Batch: 10}, func(context.Context, []string) []string {
			begun <- struct{}{}
			<-goOn
			return nil
		})
		l.Add("cat")
		<-begun
		l.Add("cat")
		close(goOn)
		synctest.Wait()
		wantLooks(t, seen, "cat", 0, 0)
	})
}

func TestWorker_KeyStaysWithWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const workers = 4
		l, seen := open(t, Config{Workers: workers, Batch: 3}, nil)
		for range 5 {
			for i := range 100 {
				l.Add(fmt.Sprint(i))
			}
			synctest.Wait()
		}
		of, busy := map[string]int{}, map[int]bool{}
		for _, one := range seen.all {
			busy[one.worker] = true
			for _, key := range one.keys {
				if before, ok := of[key]; ok && before != one.worker {
					t.Fatalf("%q reached the workers %d and %d", key, before, one.worker)
				}
				of[key] = one.worker
			}
		}
		if len(of) != 100 || len(busy) != workers {
			t.Errorf("%d keys came to %d workers, want 100 and %d", len(of), len(busy), workers)
		}
	})
}

func TestBatch_BoundedAndFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, seen := open(t, Config{Workers: 1, Batch: 7}, nil)
		for i := range 50 {
			l.AddAfter(fmt.Sprint(i), time.Second)
		}
		<-time.After(time.Second)
		synctest.Wait()
		left := 50
		for _, one := range seen.all {
			if len(one.keys) != min(7, left) || one.at != time.Second {
				t.Errorf("at %v %d keys came at once, want %d at 1s", one.at, len(one.keys), min(7, left))
			}
			left -= len(one.keys)
		}
		if left != 0 {
			t.Errorf("%d keys did not come", left)
		}
	})
}

func TestRetry_Backoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failures := 5
		l, seen := open(t, Config{Workers: 1, Batch: 10}, func(_ context.Context, keys []string) []string {
			if failures--; failures >= 0 {
				return keys
			}
			return nil
		})
		const ms = time.Millisecond
		l.Add("cat")
		<-time.After(time.Hour)
		// Pauses of 50, 100, 200, 400 and 400 ms.
		wantLooks(t, seen, "cat", 0, 50*ms, 150*ms, 350*ms, 750*ms, 1150*ms)
		synctest.Wait()
		failures = 1
		l.Add("cat") // after a success the pause is short again
		<-time.After(time.Hour)
		if all := seen.of("cat"); len(all) != 8 || all[7]-all[6] != minPause {
			t.Errorf("was looked at at %v, want twice more with %v between", all, minPause)
		}
	})
}

func TestRetry_OnlyFailedKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failed := false
		l, seen := open(t, Config{Workers: 1, Batch: 10}, func(context.Context, []string) []string {
			if failed {
				return nil
			}
			failed = true
			return []string{"dog"}
		})
		l.AddAfter("cat", time.Second)
		l.AddAfter("dog", time.Second)
		<-time.After(time.Hour)
		wantLooks(t, seen, "cat", time.Second)
		wantLooks(t, seen, "dog", time.Second, time.Second+minPause)
	})
}

// TestClose_EndsWork: Close cancels the context of running calls, waits for them and starts no more.
func TestClose_EndsWork(t *testing.T) {
	for range 50 {
		synctest.Test(t, func(t *testing.T) {
			l, seen := open(t, Config{Workers: 1, Batch: 1}, func(ctx context.Context, _ []string) []string {
				<-ctx.Done()
				return nil
			})
			for i := range 10 {
				l.Add(fmt.Sprint(i))
			}
			synctest.Wait()
			l.Close()
			if len(seen.all) != 1 {
				t.Errorf("%d calls were made, want the one that was under way", len(seen.all))
			}
			l.Add("late")
			l.Close()
			synctest.Wait()
			wantLooks(t, seen, "late")
		})
	}
}

// TestQueue_IdleHoldsNothing: processed keys leave no memory behind.
func TestQueue_IdleHoldsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _ := open(t, Config{Workers: 2, Batch: 3}, nil)
		for i := range 1000 {
			l.AddAfter(fmt.Sprint(i%100), time.Duration(1000-i)*time.Millisecond)
		}
		<-time.After(time.Minute)
		synctest.Wait()
		for i, w := range l.workers {
			if len(w.due) > 0 || len(w.others) > 0 {
				t.Errorf("worker %d holds %d keys in %d entries", i, len(w.due), len(w.others))
			}
		}
	})
}

// TestQueue_LosesNothing: every added key is processed afterwards, with concurrent producers and retries.
func TestQueue_LosesNothing(t *testing.T) {
	const adders, rounds, keys = 8, 500, 20
	var mu sync.Mutex
	var all sync.WaitGroup
	added, seen := map[string]int{}, map[string]int{}
	l := New(Config{Workers: 3, Batch: 4, MinPause: time.Microsecond, MaxPause: time.Millisecond,
		Do: func(_ context.Context, _ int, ids []string) (again []string) {
			mu.Lock()
			defer mu.Unlock()
			for i, id := range ids {
				if added[id]%7 == 3 && seen[id] != added[id]-1 { // now and then it fails
					again = append(again, ids[i])
					seen[id] = added[id] - 1
					continue
				}
				seen[id] = added[id]
			}
			return again
		}})
	defer l.Close()
	for a := range adders {
		all.Go(func() {
			for r := range rounds {
				key := fmt.Sprint((a*31 + r*7) % keys)
				mu.Lock()
				added[key]++
				mu.Unlock()
				l.AddAfter(key, time.Duration(r%3)*100*time.Microsecond)
			}
		})
	}
	all.Wait()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(time.Minute)
	for {
		mu.Lock()
		done := maps.Equal(added, seen)
		mu.Unlock()
		if done {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("added were %v, looked at were %v", added, seen)
		case <-tick.C:
		}
	}
}
