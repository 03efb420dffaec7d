package manager

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/bits"
	"time"
)

// readyInterval is the interval at which WaitReady checks.
const readyInterval = 10 * time.Millisecond

// WaitReady blocks until Ready returns nil, for the start of a node with a broker. The error is ErrClosed, or ctx's
// with the reason of Ready.
func (m *Manager) WaitReady(ctx context.Context) error {
	err := m.Ready()
	if err == nil || m.check() != nil {
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
		if err = m.Ready(); err == nil || errors.Is(err, ErrClosed) {
			return err
		}
	}
}

// Ready returns nil if messages of other nodes come through and no upload has been behind for long, else why not. A
// node that is alone is ready until it is closed.
func (m *Manager) Ready() error {
	if err := m.check(); err != nil {
		return err
	}
	if m.cluster == nil {
		return nil
	}
	if why := m.cluster.health.Load(); why != nil {
		return errors.New("manager: the broker: " + *why)
	}
	if err := m.cluster.peers.Ready(); err != nil {
		return fmt.Errorf("manager: %w", err)
	}
	return m.cluster.current()
}

// maxBehind is how long an upload may wait for its turn to catch up before the node is not ready.
const maxBehind = 10 * time.Second

// current returns an error if uploads have been behind the broker for too long: because there are too many of them, or
// because the broker answers no questions about most of them. A single upload that cannot be read fails alone.
func (c *cluster) current() error {
	untried, failing := c.comparing.Backlog(maxBehind)
	if untried+failing > 0 {
		return fmt.Errorf("manager: the uploads have not been compared with the broker for more than %v", maxBehind)
	}
	untried, failing = c.catching.Backlog(maxBehind)
	switch {
	case untried > 0:
		return fmt.Errorf("manager: %d uploads have waited for more than %v to catch up", untried, maxBehind)
	case failing > 1 && 2*failing > c.manager.registry.Counts().Uploads:
		return fmt.Errorf("manager: %d uploads could not be read from the broker for more than %v", failing, maxBehind)
	}
	return nil
}

// BrokerFailed returns a channel that receives the permanent error that ended the broker, such as wrong credentials.
// The node is cut off from the others from then on. Without such an error the channel receives nothing, also after
// Close.
func (m *Manager) BrokerFailed() <-chan error {
	if m.checkCreated() != nil || m.cluster == nil {
		return nil
	}
	return m.cluster.failed
}

// Health records whether the broker is healthy. Until it was healthy for the first time there is no outage to warn of:
// the nodes of a new cluster wait for each other, and membership warns of a start that lasts too long.
func (c *cluster) Health(err error) {
	if err != nil {
		c.outages.Add(1)
		c.unhealthy(err.Error())
		level := slog.LevelInfo
		if c.wasHealthy.Load() {
			level = slog.LevelWarn
		}
		c.manager.opt.Logger.Log(context.Background(), level, "broker unhealthy", "error", err)
		return
	}
	c.health.Store(nil)
	c.wasHealthy.Store(true)
	c.peers.Connected()
	c.missedOrders()
	c.manager.opt.Logger.Info("broker healthy")
}

func (c *cluster) unhealthy(why string) { c.health.Store(&why) }

// subscribeFailed, readFailed and publishFailed count a failed call of the broker. At most one per second is logged:
// the broker's health is reported by itself, but a single channel may be refused while all else is well.
func (c *cluster) subscribeFailed(err error) {
	c.counters.subscribeFailures.Add(1)
	c.logFailure("broker subscription failed", err)
}

func (c *cluster) readFailed(err error) {
	c.counters.readFailures.Add(1)
	c.logFailure("broker history read failed", err)
}

func (c *cluster) publishFailed(err error) {
	c.counters.publishFailures.Add(1)
	c.logFailure("broker publish failed", err)
}

func (c *cluster) logFailure(message string, err error) {
	now, last := c.manager.clock(), c.counters.logged.Load()
	if last == 0 || now-last >= int64(time.Second) {
		if c.counters.logged.CompareAndSwap(last, now) {
			c.manager.opt.Logger.Warn(message, "error", err)
		}
	}
}

// refused counts a message from the broker that is invalid. It logs the channel, but never the message.
func (c *cluster) refused(channel string, err error) {
	n := c.counters.refused.Add(1)
	if bits.OnesCount64(n) == 1 || n%refusedToLog == 0 { // invalid messages must not flood the log
		c.manager.opt.Logger.Warn("message from the broker refused", "channel", channel, "error", err, "refused", n)
	}
}

// refusedToLog is the number of refused messages per log line, once many were refused.
const refusedToLog = 1024
