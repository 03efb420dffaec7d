package manager

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoal-go/shoal/internal/frame"
	"github.com/shoal-go/shoal/internal/history"
	"github.com/shoal-go/shoal/shard"
)

// Manager knows who is connected and who follows what, and brings each message to all of them. All methods
// may be called from any number of goroutines. None waits for a client.
type Manager struct {
	opt      Options
	registry *shard.Registry[Conn, uploadState]
	limits   history.Limits
	fans     *fanOut
	relay    *relay
	counters counters
	// run and epochs make the names of epochs: unique over processes, and within this one.
	run    string
	epochs atomic.Uint64

	// started is the zero of clock.
	started time.Time
	guard   guard

	closed atomic.Bool
	// closing is made by the first call of Close and closed when that returns. By closeMu.
	closeMu  sync.Mutex
	closing  chan struct{}
	stop     chan struct{}
	sweeping sync.WaitGroup

	// cluster is nil on a node that is alone.
	cluster *cluster
}

// upload and receiver are the registry's, for the connections of this package.
type (
	upload   = shard.Upload[Conn, uploadState]
	receiver = shard.Receiver[Conn, uploadState]
)

// uploadState is what the manager keeps of an upload. It belongs to the upload's lock.
type uploadState struct {
	// log is nil as long as nobody needs to know the upload's position, and again when nobody can.
	log *history.Log[*frame.Frame]
	// follow is nil on a node that is alone, and as long as nobody here follows the upload.
	follow *follow
}

// idle reports whether nothing of it is needed any more. The registry asks once nobody is subscribed.
func (s *uploadState) idle() bool {
	if s.follow != nil {
		s.follow.deserted()
		return false
	}
	return s.log == nil
}

// New returns a running manager, to be closed with Close. The error names every option that makes no sense.
func New(opt Options) (*Manager, error) {
	opt = opt.withDefaults()
	if err := opt.validate(); err != nil {
		return nil, err
	}
	m := &Manager{
		opt:    opt,
		limits: history.Limits{Messages: opt.HistoryMessages, Bytes: opt.HistoryBytes, TTL: opt.HistoryTTL},
		run:    strconv.FormatUint(rand.Uint64(), 36),
		stop:   make(chan struct{}),

		started: time.Now(),
		guard:   guard{logger: opt.Logger},
	}
	m.fans = newFanOut(&m.guard)
	m.relay = newRelay(m.fans, &m.counters)
	m.registry = shard.New(shard.Config[Conn, uploadState]{
		Shards: opt.Shards,
		Idle:   (*uploadState).idle,
		Settle: m.relay.settle,
	})
	m.relay.start(m.registry.Settle)
	if opt.Broker != nil {
		var err error
		if m.cluster, err = newCluster(m); err != nil {
			m.relay.close()
			m.fans.close()
			return nil, err
		}
	}
	m.sweeping.Go(m.sweep)
	return m, nil
}

// Close closes every connection as DisconnectAll does, refuses new ones and all messages from now on, takes
// leave of the other nodes, and ends the manager's goroutines. It blocks until then, at most until ctx ends;
// the error is that of DisconnectAll, or says what could not be sent. It may be called again and concurrently: a further call
// waits for the first, at most until its own ctx ends.
func (m *Manager) Close(ctx context.Context) error {
	if err := m.made(); err != nil {
		return err
	}
	m.closeMu.Lock()
	first := m.closing == nil
	if first {
		m.closing = make(chan struct{})
	}
	m.closeMu.Unlock()
	if !first {
		select {
		case <-m.closing:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("manager: closing has not ended: %w", ctx.Err())
		}
	}
	defer close(m.closing)
	m.closed.Store(true)
	err := m.DisconnectAll(ctx)
	close(m.stop)
	if m.cluster != nil {
		err = errors.Join(err, m.cluster.close(ctx))
	}
	m.sweeping.Wait()
	m.relay.close()
	m.fans.close()
	return err
}

// clock returns the time since the manager was made, in nanoseconds. It is monotonic.
func (m *Manager) clock() int64 { return int64(time.Since(m.started)) }

// sweepInterval is how often the manager looks for what has become too old, so that nothing outlives its
// time by more than an eighth.
func (m *Manager) sweepInterval() time.Duration {
	return max(min(m.opt.HistoryTTL, m.opt.PendingTTL)/8, time.Millisecond)
}

// sweep forgets what has become too old until the manager is closed.
func (m *Manager) sweep() {
	tick := time.NewTicker(m.sweepInterval())
	defer tick.Stop()
	for {
		select {
		case <-m.stop:
			return
		case now := <-tick.C:
			m.registry.ExpirePending(m.clock() - int64(m.opt.PendingTTL))
			m.registry.EachUpload(func(u *upload) { m.expire(u, now) })
		}
	}
}
