package deadline

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestWithMargin_LeavesATenthAndAtMostHalfASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for remaining, want := range map[time.Duration]time.Duration{
			time.Second: 100 * time.Millisecond, 10 * time.Second: 500 * time.Millisecond, 0: 0,
		} {
			ctx, cancel := context.WithTimeout(t.Context(), remaining)
			earlier, stop := WithMargin(ctx)
			outer, _ := ctx.Deadline()
			if inner, ok := earlier.Deadline(); !ok || outer.Sub(inner) != want {
				t.Errorf("with %v left the context ends %v earlier, want %v", remaining, outer.Sub(inner), want)
			}
			stop()
			cancel()
		}
	})
}

func TestBefore_LeavesHalfOfTheTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		earlier, stop := Before(ctx, time.Minute)
		defer stop()
		if inner, _ := earlier.Deadline(); time.Until(inner) != time.Second/2 {
			t.Errorf("the context ends in %v, want half a second", time.Until(inner))
		}
		unbounded, end := Before(context.WithoutCancel(ctx), time.Second)
		if _, ok := unbounded.Deadline(); ok {
			t.Error("without a deadline there is one")
		}
		end()
	})
}
