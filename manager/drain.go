package manager

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// DisconnectAll unregisters every connection and closes it with ServerReloading. It blocks until all of them have
// ended, at most until ctx ends: it cuts off connections that are still open shortly before the deadline, and abandons
// the ones that it had no time to close; the error contains their number. Connections made after the call began are not
// affected.
func (m *Manager) DisconnectAll(ctx context.Context) error {
	return m.Drain(ctx, 0)
}

// Drain is DisconnectAll with the closing spread evenly over a time, in random order, so that the clients do not
// all return in the same instant. If ctx ends before that, the remaining ones are closed at once shortly before, early
// enough to receive their close frames.
func (m *Manager) Drain(ctx context.Context, spread time.Duration) error {
	if err := m.made(); err != nil {
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

// DrainConns is Drain for some of the connections. It reorders the slice.
func (m *Manager) DrainConns(ctx context.Context, spread time.Duration, all []UserConn) error {
	if err := m.made(); err != nil {
		return err
	}
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })

	patience, cancel := withMargin(ctx)
	defer cancel()
	spreading, stop := withMargin(patience) // leaves the last ones time to read their close frames
	defer stop()
	closed := m.closeSpread(ctx, spreading, all, spread)
	err := awaitAll(ctx, patience, all[:closed])
	if left := len(all) - closed; left > 0 {
		err = errors.Join(err, fmt.Errorf("manager: %d connections were not closed in time: %w", left, ctx.Err()))
	}
	return err
}

// closeSpread closes connections, evenly over a time, or without pauses as soon as spreading ends, and stops when ctx
// ends. It does not wait for the turn of one that has left by itself. It returns how many it has closed.
func (m *Manager) closeSpread(ctx, spreading context.Context, all []UserConn, spread time.Duration) (closed int) {
	const batch = 256 // connections between two checks of the context
	start := time.Now()
	for i, x := range all {
		if i%batch == batch-1 && ctx.Err() != nil {
			return i
		}
		due := start.Add(time.Duration(float64(spread) * float64(i) / float64(len(all))))
		awaitTurn(spreading, x.Conn, time.Until(due))
		m.registry.Disconnect(x.UserID, x.Conn)
		m.guard.close(x.Conn, ServerReloading)
	}
	return len(all)
}

// awaitTurn returns after a time, or as soon as the connection is gone or the context ends.
func awaitTurn(ctx context.Context, c Conn, wait time.Duration) {
	if wait <= 0 || ctx.Err() != nil {
		return
	}
	var gone <-chan struct{} // none: never
	if t, ok := c.(Terminator); ok {
		gone = t.Done()
	}
	turn := time.NewTimer(wait)
	defer turn.Stop()
	select {
	case <-turn.C:
	case <-gone:
	case <-ctx.Done():
	}
}

// awaitAll waits until all closed connections have ended, cuts off the remaining ones when patience ends, and returns
// when ctx does.
func awaitAll(ctx, patience context.Context, all []UserConn) error {
	var stuck []Terminator
	for _, x := range all {
		t, ok := x.Conn.(Terminator)
		if !ok {
			continue
		}
		select {
		case <-t.Done():
		case <-patience.Done():
			select {
			case <-t.Done():
			default:
				t.Abort()
				stuck = append(stuck, t)
			}
		}
	}
	if len(stuck) == 0 {
		return nil
	}
	for _, t := range stuck {
		select {
		case <-t.Done():
		case <-ctx.Done():
			return fmt.Errorf("manager: %d connections were cut off: %w", len(stuck), ctx.Err())
		}
	}
	return fmt.Errorf("manager: %d connections were cut off: %w", len(stuck), patience.Err())
}

// withMargin returns a context that ends before ctx by a tenth of the remaining time, at most half a second: the time
// that connections need to end after they were cut off.
func withMargin(ctx context.Context) (context.Context, context.CancelFunc) {
	const most = 500 * time.Millisecond
	deadline, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	margin := min(time.Until(deadline)/10, most)
	return context.WithDeadline(ctx, deadline.Add(-margin))
}
