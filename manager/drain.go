package manager

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"
)

// DisconnectAll closes every connection with ServerReloading and takes it out. It blocks until they are gone,
// at most until ctx ends: connections that are still there shortly before its deadline are cut off, which the
// error says. Connections that come meanwhile are not touched.
func (m *Manager) DisconnectAll(ctx context.Context) error {
	return m.Drain(ctx, 0)
}

// Drain is DisconnectAll with the closing spread evenly over a time, in no order, so that the clients do not
// all come back in the same instant.
func (m *Manager) Drain(ctx context.Context, spread time.Duration) error {
	m.relay.flush() // a connection that is closing takes nothing in
	var all []connected
	m.registry.EachConnection(func(userID string, c Conn) { all = append(all, connected{userID, c}) })
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })

	patience, cancel := withMargin(ctx)
	defer cancel()
	m.closeSpread(patience, all, spread)
	return awaitAll(ctx, patience, all)
}

// connected is a connection with the user that it belongs to.
type connected struct {
	userID string
	conn   Conn
}

// closeSpread closes all connections, evenly over a time, or at once as soon as the context ends. It does not
// wait for the turn of one that has left by itself.
func (m *Manager) closeSpread(ctx context.Context, all []connected, spread time.Duration) {
	start := time.Now()
	for i, x := range all {
		due := start.Add(time.Duration(float64(spread) * float64(i) / float64(len(all))))
		awaitTurn(ctx, x.conn, time.Until(due))
		x.conn.Close(ServerReloading)
		m.registry.Disconnect(x.userID, x.conn)
	}
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

// awaitAll waits until all closed connections are gone, cuts off those that are left when patience ends, and
// gives up when ctx does.
func awaitAll(ctx, patience context.Context, all []connected) error {
	var stuck []Terminator
	for _, x := range all {
		t, ok := x.conn.(Terminator)
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

// withMargin returns a context that ends a tenth, at most half a second, before ctx does: the time in which
// what was cut off can end.
func withMargin(ctx context.Context) (context.Context, context.CancelFunc) {
	const most = 500 * time.Millisecond
	deadline, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	margin := min(time.Until(deadline)/10, most)
	return context.WithDeadline(ctx, deadline.Add(-margin))
}
