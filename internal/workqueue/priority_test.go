package workqueue

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

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
// returns; a success ends both.
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
		want(5*time.Second, 1, 1)
		want(15*time.Second, 0, 1)
		fails = false
		close(goOn)
		<-time.After(10 * time.Second)
		want(0, 0, 0)
	})
}
