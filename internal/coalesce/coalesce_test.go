package coalesce

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// must sends, and wants this position and no error.
func must(t *testing.T, th *Coalescer[int, int], key string, n int, state bool, want int) {
	t.Helper()
	if pos, err := th.Send(t.Context(), key, n, state); err != nil || pos != want {
		t.Errorf("sending %s%d: %d, %v; want %d", key, n, pos, err, want)
	}
}

func wantLog(t *testing.T, e *engine, want ...string) {
	t.Helper()
	if got := e.log(); !slices.Equal(got, want) {
		t.Errorf("sent %q, want %q", got, want)
	}
}

func TestState_NewestLeavesAfterInterval(t *testing.T) {
	inBubble(t, Config[int, int]{}, func(t *testing.T, th *Coalescer[int, int], e *engine) {
		must(t, th, "a", 1, true, 1)
		must(t, th, "b", 2, true, 2)
		must(t, th, "a", 3, true, 1)
		pass(40 * time.Millisecond)
		must(t, th, "a", 4, true, 1)
		if got := th.Counts(); got != (Counts{Replaced: 1, Waiting: 1}) {
			t.Errorf("the counts are %+v", got)
		}
		pass(time.Second)
		wantLog(t, e, "a1@0", "b2@0", "a4@100")
		empty(t, th)
	})
}

func TestEvent_LeavesAtOnceAndInOrder(t *testing.T) {
	inBubble(t, Config[int, int]{}, func(t *testing.T, th *Coalescer[int, int], e *engine) {
		must(t, th, "a", 1, true, 1)
		must(t, th, "a", 2, true, 1)
		pass(10 * time.Millisecond)
		must(t, th, "a", 3, false, 3)
		must(t, th, "a", 4, false, 4)
		must(t, th, "a", 5, true, 4)
		pass(time.Second)
		wantLog(t, e, "a1@0", "a2@10", "a3@10", "a4@10", "a5@110")
		empty(t, th)
	})
}

func TestEvent_AwaitsStateInFlight(t *testing.T) {
	inBubble(t, Config[int, int]{}, func(t *testing.T, th *Coalescer[int, int], e *engine) {
		e.becomes(func(string, int) (time.Duration, error) { return 30 * time.Millisecond, nil })
		must(t, th, "a", 1, true, 1)
		must(t, th, "a", 2, true, 1)
		pass(80 * time.Millisecond)   // 2 is in flight since 100 ms
		must(t, th, "a", 3, true, 1)  // and does not wait for it
		must(t, th, "a", 4, false, 4) // but this does
		wantLog(t, e, "a1@0", "a2@100", "a3@130", "a4@160")
	})
}

func TestState_FirstOfManyLeavesAtOnce(t *testing.T) {
	inBubble(t, Config[int, int]{}, func(t *testing.T, th *Coalescer[int, int], e *engine) {
		e.becomes(func(string, int) (time.Duration, error) { return 250 * time.Millisecond, nil })
		go func() { _, _ = th.Send(context.Background(), "a", 1, true) }()
		synctest.Wait()
		must(t, th, "a", 2, true, 0)
		pass(time.Second)
		wantLog(t, e, "a1@0", "a2@250")
		empty(t, th)
	})
}

func TestTurn_InOrder(t *testing.T) {
	inBubble(t, Config[int, int]{}, func(t *testing.T, th *Coalescer[int, int], e *engine) {
		e.becomes(func(string, int) (time.Duration, error) { return time.Millisecond, nil })
		var want []string
		for n := range 50 {
			go func() { _, _ = th.Send(context.Background(), "a", n, false) }()
			synctest.Wait()
			want = append(want, fmt.Sprintf("a%d@%d", n, n))
		}
		pass(time.Second)
		wantLog(t, e, want...)
		empty(t, th)
	})
}

func TestTurn_EndsWithContext(t *testing.T) {
	inBubble(t, Config[int, int]{}, func(t *testing.T, th *Coalescer[int, int], e *engine) {
		e.becomes(func(string, int) (time.Duration, error) { return time.Second, nil })
		go func() { _, _ = th.Send(context.Background(), "a", 1, false) }()
		synctest.Wait()
		for _, state := range []bool{false, true} {
			ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
			began := time.Now()
			_, err := th.Send(ctx, "a", 2, state)
			cancel()
			if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != 100*time.Millisecond {
				t.Errorf("after %v: %v", time.Since(began), err)
			}
		}
		must(t, th, "a", 3, false, 3)
		wantLog(t, e, "a1@0", "a3@1000")
		empty(t, th)
	})
}

func TestState_ImmediateFailureIsReturned(t *testing.T) {
	inBubble(t, Config[int, int]{}, func(t *testing.T, th *Coalescer[int, int], e *engine) {
		e.away()
		for n := range 3 {
			if _, err := th.Send(t.Context(), "a", n, true); !errors.Is(err, errAway) {
				t.Errorf("the error is %v, want the engine's each time", err)
			}
		}
		if e.attempts() != 3 {
			t.Errorf("%d attempts, want 3", e.attempts())
		}
		empty(t, th)
	})
}

func TestBackground_RetriesWithBackoff(t *testing.T) {
	var failed []string
	cfg := Config[int, int]{Retry: interval, RetryMost: 300 * time.Millisecond,
		Failed: func(key string, err error) { failed = append(failed, key+" "+err.Error()) }}
	inBubble(t, cfg, func(t *testing.T, th *Coalescer[int, int], e *engine) {
		must(t, th, "a", 1, true, 1)
		must(t, th, "a", 2, true, 1)
		e.away()
		pass(time.Second)
		var starts []time.Duration
		for _, s := range e.all[1:] {
			starts = append(starts, s.start/time.Millisecond)
		}
		if want := []time.Duration{100, 200, 500, 800}; !slices.Equal(starts, want) {
			t.Errorf("tried at %d, want %d", starts, want)
		}
		if len(failed) != 4 || failed[0] != "a the engine is away" || th.Counts().Failed != 4 {
			t.Errorf("heard of %q, counted %d", failed, th.Counts().Failed)
		}
		must(t, th, "a", 3, true, 1)
		if _, err := th.Send(t.Context(), "a", 4, false); !errors.Is(err, errAway) {
			t.Errorf("an event overtook a state that cannot be sent: %v", err)
		}
		e.back()
		pass(time.Second)
		must(t, th, "a", 5, false, 5)
		wantLog(t, e, "a1@0", "a3@1300", "a5@2000")
		pass(time.Second)
		empty(t, th)
		if got := th.Counts(); got.Replaced != 1 {
			t.Errorf("%d are counted as replaced, want 1", got.Replaced)
		}
	})
}

// TestState_ResendsFailed: a waiting state whose attempt failed is sent with Resend from then on, also before an event; a
// newer one that replaces it is sent with Send.
func TestState_ResendsFailed(t *testing.T) {
	var resent []int
	cfg := Config[int, int]{Retry: time.Second, RetryMost: time.Second}
	cfg.Resend = func(_ context.Context, _ string, n int) (int, error) {
		resent = append(resent, n)
		return n, errAway
	}
	inBubble(t, cfg, func(t *testing.T, th *Coalescer[int, int], e *engine) {
		must(t, th, "a", 1, true, 1)
		e.away()
		must(t, th, "a", 2, true, 1)
		pass(interval) // the first attempt fails
		e.back()
		pass(2 * time.Second)
		if _, err := th.Send(t.Context(), "a", 3, false); !errors.Is(err, errAway) {
			t.Errorf("an event before which a state fails: %v", err)
		}
		must(t, th, "a", 4, true, 1)
		pass(2 * time.Second)
		if want := []int{2, 2, 2}; !slices.Equal(resent, want) {
			t.Errorf("sent again were %v, want %v", resent, want)
		}
		if got := e.log(); len(got) != 2 || !strings.HasPrefix(got[1], "a4@") {
			t.Errorf("sent were %v, want 1 and 4", got)
		}
	})
}

func TestState_FailedYieldsToNewer(t *testing.T) {
	inBubble(t, Config[int, int]{Retry: interval}, func(t *testing.T, th *Coalescer[int, int], e *engine) {
		e.becomes(func(_ string, n int) (time.Duration, error) {
			if n == 2 {
				return 50 * time.Millisecond, errAway
			}
			return 0, nil
		})
		must(t, th, "a", 1, true, 1)
		must(t, th, "a", 2, true, 1)
		pass(120 * time.Millisecond)
		must(t, th, "a", 3, true, 1)
		pass(time.Second)
		wantLog(t, e, "a1@0", "a3@250")
		if got := th.Counts(); got != (Counts{Replaced: 1, Failed: 1}) {
			t.Errorf("the counts are %+v", got)
		}
		empty(t, th)
	})
}

func TestBackground_HangingAttemptIsCancelled(t *testing.T) {
	inBubble(t, Config[int, int]{Patience: time.Second}, func(t *testing.T, th *Coalescer[int, int], e *engine) {
		must(t, th, "a", 1, true, 1)
		must(t, th, "a", 2, true, 1)
		e.becomes(func(string, int) (time.Duration, error) { return time.Hour, nil })
		pass(interval + 999*time.Millisecond)
		e.back()
		pass(time.Second)
		wantLog(t, e, "a1@0", "a2@1350")
	})
}

func TestBackground_ConcurrencyIsBounded(t *testing.T) {
	inBubble(t, Config[int, int]{Parallel: 3}, func(t *testing.T, th *Coalescer[int, int], e *engine) {
		for n := range 20 {
			must(t, th, fmt.Sprint("k", n), 1, true, 1)
			must(t, th, fmt.Sprint("k", n), 2, true, 1)
		}
		e.most = 0
		e.becomes(func(string, int) (time.Duration, error) { return 10 * time.Millisecond, nil })
		pass(time.Second)
		if e.most != 3 || e.attempts() != 60-20 {
			t.Errorf("%d at a time, %d in all; want 3 and 40", e.most, e.attempts())
		}
		empty(t, th)
	})
}

func TestCoalescer_WaitingIsBounded(t *testing.T) {
	inBubble(t, Config[int, int]{Keys: 2, Parallel: 1}, func(t *testing.T, th *Coalescer[int, int], e *engine) {
		for _, key := range []string{"a", "b", "c"} {
			must(t, th, key, 1, true, 1)
		}
		must(t, th, "a", 2, true, 1)
		must(t, th, "b", 2, true, 1)
		must(t, th, "c", 2, true, 2)
		must(t, th, "c", 3, true, 3)
		must(t, th, "a", 3, true, 1)
		if got := th.Counts(); got != (Counts{Replaced: 1, Waiting: 2}) {
			t.Errorf("the counts are %+v", got)
		}
		pass(time.Second)
		wantLog(t, e, "a1@0", "b1@0", "c1@0", "c2@0", "c3@0", "a3@100", "b2@100")
		empty(t, th)
	})
}

func TestCoalescer_ManyKeysDueTogether(t *testing.T) {
	inBubble(t, Config[int, int]{}, func(t *testing.T, th *Coalescer[int, int], e *engine) {
		for n := range 3 * batch {
			must(t, th, fmt.Sprint("k", n), 1, true, 1)
			must(t, th, fmt.Sprint("k", n), 2, true, 1)
		}
		pass(interval)
		if got := e.attempts(); got != 6*batch {
			t.Errorf("%d are sent, want %d", got, 6*batch)
		}
		pass(interval)
		empty(t, th)
	})
}

func TestClose_SendsWaiting(t *testing.T) {
	inBubble(t, Config[int, int]{}, func(t *testing.T, th *Coalescer[int, int], e *engine) {
		must(t, th, "a", 1, true, 1)
		must(t, th, "a", 2, true, 1)
		must(t, th, "b", 3, true, 3)
		for range 2 {
			if err := th.Close(t.Context()); err != nil {
				t.Error(err)
			}
		}
		wantLog(t, e, "a1@0", "b3@0", "a2@0")
		if _, err := th.Send(t.Context(), "a", 4, false); !errors.Is(err, ErrClosed) {
			t.Errorf("sending after Close: %v", err)
		}
	})
}

func TestClose_ReportsUnsent(t *testing.T) {
	inBubble(t, Config[int, int]{}, func(t *testing.T, th *Coalescer[int, int], e *engine) {
		for _, key := range []string{"a", "b", "c"} {
			must(t, th, key, 1, true, 1)
			must(t, th, key, 2, true, 1)
		}
		e.becomes(func(key string, _ int) (time.Duration, error) {
			if key == "b" {
				return 0, nil
			}
			return 0, errAway
		})
		for range 2 {
			if err := th.Close(t.Context()); err == nil || !strings.Contains(err.Error(), "2 waiting messages") {
				t.Errorf("the error is %v, want that 2 could not be sent", err)
			}
		}
		if got := e.attempts(); got != 6 {
			t.Errorf("%d attempts, want one more for each key", got)
		}
		empty(t, th)
	})
}

func TestClose_EndsWithContext(t *testing.T) {
	inBubble(t, Config[int, int]{}, func(t *testing.T, th *Coalescer[int, int], e *engine) {
		must(t, th, "a", 1, true, 1)
		must(t, th, "a", 2, true, 1)
		e.becomes(func(string, int) (time.Duration, error) { return time.Hour, nil })
		pass(interval + time.Millisecond) // an attempt is under way
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		err := th.Close(ctx)
		if err == nil || !strings.Contains(err.Error(), "1 waiting message") || time.Since(began) != time.Second {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
	})
}

func TestClose_AwaitsCallerWithTurn(t *testing.T) {
	inBubble(t, Config[int, int]{}, func(t *testing.T, th *Coalescer[int, int], e *engine) {
		must(t, th, "a", 1, true, 1)
		e.becomes(func(string, int) (time.Duration, error) { return 300 * time.Millisecond, nil })
		go func() { _, _ = th.Send(context.Background(), "a", 2, false) }()
		synctest.Wait()
		must(t, th, "a", 3, true, 1)
		if err := th.Close(t.Context()); err != nil {
			t.Error(err)
		}
		wantLog(t, e, "a1@0", "a2@0", "a3@300")
	})
}
