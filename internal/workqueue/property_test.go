package workqueue

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// TestListDoesAsThePlainMap adds keys at random and holds the list to a map of when each key's turn is: a key
// is looked at when its turn has come, never before, and once.
func TestListDoesAsThePlainMap(t *testing.T) {
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
