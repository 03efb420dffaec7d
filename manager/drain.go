package manager

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/shoal-go/shoal/internal/deadline"
)

// DisconnectAll unregisters every connection and closes it with ServerReloading. It blocks until all of them have
// ended, at most until ctx ends. Shortly before a deadline, the earlier the more of them are left, it cuts off the
// connections that are still open, and at the deadline the ones that it had no time to close; the error contains their
// number. If ctx is cancelled it returns as soon as it has closed all of them, and they end by themselves. Connections
// made after the call began are not affected.
func (m *Manager) DisconnectAll(ctx context.Context) error {
	return m.Drain(ctx, 0)
}

// Drain is DisconnectAll with the closing spread evenly over a time, in random order, so that the clients do not
// all return in the same instant. If ctx ends before that, the remaining ones are closed at once: at a deadline early
// enough to receive their close frames, and if ctx is cancelled without waiting for their end. The error is that of
// DisconnectAll.
func (m *Manager) Drain(ctx context.Context, spread time.Duration) error {
	if err := m.checkCreated(); err != nil {
		return err
	}
	var all []UserConn
	m.registry.EachConnection(func(userID string, c Conn) { all = append(all, UserConn{userID, c}) })
	return m.DrainConns(ctx, spread, all)
}

// UserConn is a connection with the user that it is registered for.
type UserConn struct {
	UserID string
	Conn   Conn
}

// DrainConns is Drain for some connections, which need not be registered. It reorders the slice, and blocks and fails
// as Drain does.
func (m *Manager) DrainConns(ctx context.Context, spread time.Duration, all []UserConn) error {
	if err := m.checkCreated(); err != nil {
		return err
	}
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })

	patience, cancel := deadline.WithMargin(ctx)
	defer cancel()
	spreading, stop := deadline.WithMargin(patience) // leaves the last ones time to read their close frames
	defer stop()
	closed := m.closeSpread(ctx, spreading, all, spread)
	const each = 60 * time.Microsecond // takes the end of a connection with TLS, on two busy processors
	untilCutOff, hurry := deadline.Before(patience, time.Duration(m.open(all))*each)
	defer hurry()
	err := m.awaitAll(ctx, untilCutOff, all)
	if left := len(all) - closed; left > 0 {
		err = errors.Join(err, fmt.Errorf("manager: %d connections were not closed in time: %w", left, ctx.Err()))
	}
	return err
}

// closeSpread closes connections, evenly over a time, or without pauses as soon as spreading ends, and stops at the
// deadline of ctx. It does not wait for the turn of one that has left by itself. It returns how many it has closed.
func (m *Manager) closeSpread(ctx, spreading context.Context, all []UserConn, spread time.Duration) (closed int) {
	const batch = 256 // connections between two checks of the deadline
	start := time.Now()
	for i, x := range all {
		if i%batch == batch-1 && expired(ctx) {
			return i
		}
		due := start.Add(time.Duration(float64(spread) * float64(i) / float64(len(all))))
		awaitTurn(spreading, m.guard.done(x.Conn), time.Until(due))
		m.disconnectAndClose(x.UserID, x.Conn, ServerReloading)
	}
	return len(all)
}

// expired reports whether the deadline of a context has passed, which it need not have when ctx was cancelled.
func expired(ctx context.Context) bool {
	deadline, ok := ctx.Deadline()
	return ok && !time.Now().Before(deadline)
}

// awaitTurn returns after a time, or as soon as the connection is gone or the context ends.
func awaitTurn(ctx context.Context, gone <-chan struct{}, wait time.Duration) {
	if wait <= 0 || ctx.Err() != nil {
		return
	}
	turn := time.NewTimer(wait)
	defer turn.Stop()
	select {
	case <-turn.C:
	case <-gone:
	case <-ctx.Done():
	}
}

// awaitAll waits until all closed connections have ended, and returns when ctx does. It cuts off the remaining ones
// when patience ends, unless that is because the caller no longer waits: they have been closed and end by themselves.
func (m *Manager) awaitAll(ctx, patience context.Context, all []UserConn) error {
	var cutOff []<-chan struct{}
	left := 0
	for _, x := range all {
		done := m.guard.done(x.Conn)
		if done == nil || ended(patience, done) {
			continue
		}
		if errors.Is(ctx.Err(), context.Canceled) {
			left++
			continue
		}
		m.guard.call("Abort", x.Conn, x.Conn.(Terminator).Abort) // it has a Done
		cutOff = append(cutOff, done)
	}
	if left > 0 {
		return fmt.Errorf("manager: %d connections are closed but have not ended: %w", left, ctx.Err())
	}
	if len(cutOff) == 0 {
		return nil
	}
	cause := patience.Err()
	for _, done := range cutOff {
		if !ended(ctx, done) {
			cause = ctx.Err()
			break
		}
	}
	return fmt.Errorf("manager: %d connections had not ended and were cut off, though their clients may have the close "+
		"code: %w", len(cutOff), cause)
}

// ended waits until done is closed, at most until ctx ends, and reports whether it is.
func ended(ctx context.Context, done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	case <-ctx.Done():
	}
	select {
	case <-done:
		return true
	default:
		return false
	}
}

// open returns how many of the connections that can be waited for have not ended.
func (m *Manager) open(all []UserConn) (n int) {
	for _, x := range all {
		done := m.guard.done(x.Conn)
		select {
		case <-done:
		default:
			if done != nil {
				n++
			}
		}
	}
	return n
}
