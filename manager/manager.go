package manager

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/internal/frame"
	"github.com/shoal-go/shoal/internal/history"
	"github.com/shoal-go/shoal/shard"
)

// Manager tracks connections and subscriptions and delivers each message to all subscribers of its upload. It is safe
// for concurrent use. Only DisconnectAll, Drain, DrainConns and Close wait for clients.
type Manager struct {
	opt        Options
	registry   *shard.Registry[Conn, uploadState]
	limits     history.Limits
	vocabulary vocabulary
	keys       *broker.Keys // of PublishOnce, on a node that is alone
	fans       *fanOut
	bursts     bursts
	counters   counters
	// run and epochs make the names of epochs: unique over processes, and within this one.
	run    string
	epochs atomic.Uint64

	// started is the zero of clock.
	started time.Time
	guard   guard
	// resuming orders concurrent calls of Resume for one connection.
	resuming connLocks
	// tracing is nil without Options.Tracer.
	tracing *tracing
	held    historyUse
	// ages measures the ages of connections and close orders.
	ages ageClock
	// orders are the recent orders to close connections.
	orders *orderLog

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

// uploadState is the manager's state of an upload. The upload's lock protects it.
type uploadState struct {
	// log is nil until the upload's position is needed, and again after it expired.
	log *history.Log[*frame.Frame]
	// follow is nil without a broker, and while the upload has no local followers.
	follow *follow
	// burst is nil unless the upload has a large audience.
	burst *burst
}

// idle reports whether the state can be discarded. The registry calls it once the upload has no subscribers.
func (s *uploadState) idle() bool {
	if s.follow != nil {
		s.follow.lastFollowerLeft()
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
		opt:        opt,
		limits:     history.Limits{Messages: opt.HistoryMessages, Bytes: opt.HistoryBytes, TTL: opt.HistoryTTL},
		vocabulary: newVocabulary(opt),
		keys:       broker.NewKeys(opt.HistoryTTL, opt.MaxKeys),
		run:        strconv.FormatUint(rand.Uint64(), 36),
		stop:       make(chan struct{}),

		started: time.Now(),
		guard:   guard{logger: opt.Logger},
	}
	m.held.wake = make(chan struct{}, 1)
	m.fans = newFanOut(&m.guard)
	m.tracing = newTracing(opt.Tracer, &m.guard)
	m.bursts.fans, m.bursts.counters, m.bursts.tracing = m.fans, &m.counters, m.tracing
	m.registry = shard.New(shard.Config[Conn, uploadState]{
		Shards: opt.Shards,
		Idle:   (*uploadState).idle,
		Flush:  m.bursts.flush,
		Claim:  m.claimChanged,
		Left:   m.cancelReplay,
	})
	m.bursts.withUpload = m.registry.WithKnown
	m.orders = newOrderLog(m.run, &m.ages)
	if opt.Broker != nil {
		var err error
		if m.cluster, err = newCluster(m); err != nil {
			m.bursts.close()
			m.fans.close()
			m.tracing.close()
			return nil, err
		}
		m.cluster.run() // from here on other nodes ask for the counts of m.cluster
	}
	m.sweeping.Go(m.sweep)
	m.sweeping.Go(m.evictInBackground)
	return m, nil
}

// Close closes every connection as DisconnectAll does, refuses new connections and all further messages, ends the
// subscriptions of users without a connection, announces its departure to the other nodes, and stops the manager's
// goroutines. It blocks until then, at most until ctx ends; the error is DisconnectAll's, or names the unsent messages,
// the calls of Options.Broker, Options.Tracer and connections that have not returned, and an eviction that has not
// ended: they and their goroutines end later. It may be called repeatedly and concurrently: a further call waits for
// the first, at most until its own ctx ends.
func (m *Manager) Close(ctx context.Context) error {
	if err := m.checkCreated(); err != nil {
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
			return fmt.Errorf("manager: close not finished: %w", ctx.Err())
		}
	}
	defer close(m.closing)
	m.closed.Store(true)
	err := m.DisconnectAll(ctx)
	m.registry.ExpirePending(math.MaxInt64)
	close(m.stop)
	if m.cluster != nil {
		err = errors.Join(err, m.cluster.close(ctx))
	}
	m.bursts.close()
	m.fans.close()
	return errors.Join(err, m.awaitGoroutines(ctx))
}

// awaitGoroutines waits for the goroutines that may take long, at most until ctx ends: those that drop expired and
// evicted data, and those that call a connection or the tracer without a lock.
func (m *Manager) awaitGoroutines(ctx context.Context) error {
	ctx, cancel := withGrace(ctx)
	defer cancel()
	parts := []part{ending("expired and evicted messages have not been dropped", m.sweeping.Wait)}
	if m.guard.end() {
		const what = "Conn.Close or Options.Logger, called after a panic, has not returned"
		parts = append(parts, ending(what, m.guard.running.Wait))
	}
	if m.tracing != nil {
		parts = append(parts, ending("Options.Tracer: Delivered has not returned", m.tracing.close))
	}
	return awaitEnds(ctx, parts...)
}

// eachUpload calls fn for every upload, with the upload locked, until the manager is closed.
func (m *Manager) eachUpload(fn func(*upload)) {
	stopped := func() bool {
		select {
		case <-m.stop:
			return true
		default:
			return false
		}
	}
	if stopped() {
		return
	}
	m.registry.EachUpload(func(u *upload) {
		if !stopped() {
			fn(u)
		}
	})
}

// clock returns the time since the manager was made, in nanoseconds. It is monotonic.
func (m *Manager) clock() int64 { return int64(time.Since(m.started)) }

// sweepInterval is the interval of sweeps: an eighth of the shortest TTL, so that no data outlives its TTL by more than
// that.
func (m *Manager) sweepInterval() time.Duration {
	return max(min(m.opt.HistoryTTL, m.opt.PendingTTL)/8, time.Millisecond)
}

// sweep drops expired data periodically until the manager is closed.
func (m *Manager) sweep() {
	tick := time.NewTicker(m.sweepInterval())
	defer tick.Stop()
	for {
		select {
		case <-m.stop:
			return
		case now := <-tick.C:
			m.registry.ExpirePending(m.clock() - int64(m.opt.PendingTTL))
			m.eachUpload(func(u *upload) { m.expire(u, now) })
			m.keys.Expire()
			m.guard.forgetUnregistered(m.registry.EachConnection)
		}
	}
}

// checkCreated returns an error for a Manager that New has not returned.
func (m *Manager) checkCreated() error {
	if m == nil || m.registry == nil {
		return errNotMade
	}
	return nil
}

// check returns ErrClosed, or an error for a Manager that New has not returned.
func (m *Manager) check() error {
	if err := m.checkCreated(); err != nil {
		return err
	}
	if m.closed.Load() {
		return ErrClosed
	}
	return nil
}
