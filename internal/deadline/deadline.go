// Package deadline makes contexts that end before the deadline of another one.
package deadline

import (
	"context"
	"time"
)

// Before returns a context that ends before the deadline of ctx, if it has one, by a time, at most by half of the
// remaining one.
func Before(ctx context.Context, by time.Duration) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	return context.WithDeadline(ctx, deadline.Add(-min(by, time.Until(deadline)/2)))
}

// WithMargin returns a context that ends before the deadline of ctx by a tenth of the remaining time, at most half a
// second: the time that connections need to end after they were cut off.
func WithMargin(ctx context.Context) (context.Context, context.CancelFunc) {
	const most = 500 * time.Millisecond
	deadline, _ := ctx.Deadline() // without one, Before ignores the time
	return Before(ctx, min(time.Until(deadline)/10, most))
}
