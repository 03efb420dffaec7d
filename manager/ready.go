package manager

import (
	"context"
	"fmt"
	"time"
)

// readyInterval is the interval at which WaitReady checks.
const readyInterval = 10 * time.Millisecond

// WaitReady blocks until Ready returns nil, for the start of a node with a broker. The error is ctx's, with the reason
// of Ready.
func (m *Manager) WaitReady(ctx context.Context) error {
	err := m.Ready()
	if err == nil || m.made() != nil {
		return err
	}
	tick := time.NewTicker(readyInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", err, ctx.Err())
		}
		if err = m.Ready(); err == nil {
			return nil
		}
	}
}
