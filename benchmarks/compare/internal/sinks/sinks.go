// Package sinks runs this project's manager in a process of its own, with connections that only count the messages they
// receive: as many of them as there is memory for, and no kernel between publisher and receiver.
package sinks

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sync/errgroup"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/message"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/systems"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/worker"
	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/shard"
)

// cost is the number of operations, their time, and by how many bytes the heap has grown, to heap.
type cost struct {
	operations  uint64
	took        time.Duration
	grown, heap int64
	// collected is the time of a garbage collection during the work, and pause the longest time for which all goroutines
	// were stopped.
	collected, pause time.Duration
}

func (c cost) perSecond() float64 { return float64(c.operations) / c.took.Seconds() }

func (c cost) each() float64 { return float64(c.took) / float64(c.operations) }

// Sinks is the service of a process with a manager and sinks, each of which follows the upload of its own number modulo Channels.
type Sinks struct {
	results.Timed
	manager *manager.Manager
	conns   []*sink
}

// Close ends the manager.
func (s *Sinks) Close() error {
	if s.manager == nil {
		return nil
	}
	return s.manager.Close(context.Background())
}

// sink is a connection that counts. It fills a cache line, as the part of a real one does that a broadcast touches. Only the
// holder of the upload's lock writes to it.
type sink struct {
	received uint64
	_        [56]byte
}

// Touched is how many bytes of memory a broadcast touches for each receiver: its slot in the upload, and the sink.
const Touched = unsafe.Sizeof(shard.Receiver[manager.Conn, struct{}]{}) + unsafe.Sizeof(sink{})

func (s *sink) Send(*manager.Frame) manager.Outcome { s.received++; return manager.Queued }

func (s *sink) Close(manager.CloseReason) {}

func userID(i int) string { return "user-" + strconv.Itoa(i) }

// Measure connects the users, subscribes them and measures the work.
func (s *Sinks) Measure(q results.Timed, a *results.Figures) (failed error) {
	run := func(c cost, err error) cost {
		failed = errors.Join(failed, err)
		return c
	}
	if s.manager, failed = manager.New(manager.Options{}); failed != nil {
		return failed
	}
	s.Timed = q
	connected, subscribed := run(s.connect()), run(s.subscribe())
	switch s.Work {
	case results.Publish:
		*a = results.Figures{results.Operations: run(s.publishing(false)).perSecond()}
	case results.Churn:
		*a = results.Figures{results.Operations: run(s.churning()).perSecond()}
	case results.Broadcast, results.Shuffled:
		c := run(s.broadcasting())
		*a = results.Figures{results.Operations: c.perSecond(), results.PerReceiver: c.each()}
	default:
		filled := run(costOf(s.Channels, s.publish)) // the first message of each upload
		n := float64(s.Connections)
		*a = results.Figures{
			results.ConnectTime: connected.each(), results.SubscribeTime: subscribed.each(),
			results.RegistryConnection: float64(connected.grown) / n, results.RegistrySubscription: float64(subscribed.grown) / n,
			results.HeldMessage: float64(filled.grown) / float64(s.Channels), results.Heap: float64(filled.heap),
			results.ResidentTotal: float64(worker.UsageOf(os.Getpid()).Resident),
		}
		if s.Work == results.OneUpload {
			break // one publish takes as long as the upload has receivers, which another sweep measures
		}
		(*a)[results.Operations] = run(s.publishing(false)).perSecond()
		c := run(s.publishing(true))
		(*a)[results.Collected], (*a)[results.Pause] = c.collected.Seconds()*1e3, c.pause.Seconds()*1e3
	}
	return failed
}

// connect connects the users, with a connection each.
func (s *Sinks) connect() (cost, error) {
	s.conns = make([]*sink, s.Connections)
	for i := range s.conns {
		s.conns[i] = new(sink) // not a part of the measurement
	}
	return costOf(len(s.conns), func(i int) error { return s.manager.Connect(userID(i), s.conns[i]) })
}

// subscribe subscribes all connections.
func (s *Sinks) subscribe() (cost, error) {
	order := s.order()
	c, err := costOf(len(order), func(i int) error { return s.follow(order[i], order[i]%s.Channels) })
	if n := s.manager.Stats().Subscriptions; err == nil && n != s.Connections {
		err = fmt.Errorf("sinks: %d of %d connections are subscribed", n, s.Connections)
	}
	return c, err
}

// order is the order in which the connections subscribe, and so lie in their upload. In a server that has run for a while
// it has nothing to do with their addresses in memory.
func (s *Sinks) order() []int {
	order := rand.New(rand.NewPCG(1, 2)).Perm(len(s.conns)) // the same each time
	if s.Work != results.Shuffled {
		slices.Sort(order)
	}
	return order
}

func (s *Sinks) follow(i, upload int) error {
	return s.manager.SubscribeConn(context.Background(), userID(i), s.conns[i], message.Channel(upload), manager.SubscribeOptions{})
}

// publish does all that a message takes, from the application's value on: validation, encoding, history, delivery.
func (s *Sinks) publish(upload int) error {
	m := message.Message{Channel: message.Channel(upload), Size: s.Bytes}
	_, err := s.manager.Publish(context.Background(), m.Channel, systems.Progress(m))
	return err
}

// broadcasting sends an encoded message to the first upload repeatedly. The operations are its receivers. The clock is read
// once in a few thousand receivers, so that it does not count.
func (s *Sinks) broadcasting() (c cost, err error) {
	const often = 8192
	upload := message.Channel(0)
	encoded, err := manager.Parse(upload, message.Message{Channel: upload, Size: s.Bytes}.JSON(), time.Now())
	if err != nil {
		return c, err
	}
	receivers := (len(s.conns) + s.Channels - 1) / s.Channels
	send := func() error {
		d, err := s.manager.SendToUploadSubscribers(upload, encoded)
		if err == nil && d.Queued != receivers {
			err = fmt.Errorf("sinks: a message to %d receivers resulted in %+v", receivers, d)
		}
		return err
	}
	if err := send(); err != nil { // the caches warm up
		return c, err
	}
	began := time.Now()
	for c.operations == 0 || time.Since(began) < s.For {
		for range 1 + often/receivers {
			if err := send(); err != nil {
				return c, err
			}
			c.operations += uint64(receivers) //nolint:gosec // not negative
		}
	}
	c.took = time.Since(began)
	return c, nil
}

// publishing publishes to random uploads, from GOMAXPROCS goroutines, with one garbage collection if collect is set.
func (s *Sinks) publishing(collect bool) (cost, error) {
	return repeat(s.For, collect, func(random *rand.Rand) error { return s.publish(random.IntN(s.Channels)) })
}

// churning has random users follow another upload and leave it again, from GOMAXPROCS goroutines.
func (s *Sinks) churning() (cost, error) {
	return repeat(s.For, false, func(random *rand.Rand) error {
		i, upload := random.IntN(len(s.conns)), random.IntN(s.Channels)
		if i%s.Channels == upload { // it stays with its own
			return nil
		}
		if err := s.follow(i, upload); err != nil {
			return err
		}
		s.manager.UnsubscribeConn(userID(i), s.conns[i], message.Channel(upload))
		return nil
	})
}

// costOf returns the cost of doing something for every number below n, once.
func costOf(n int, do func(i int) error) (c cost, err error) {
	before := worker.Heap()
	began := time.Now()
	for i := range n {
		if err := do(i); err != nil {
			return c, err
		}
	}
	c.operations, c.took = uint64(n), time.Since(began) //nolint:gosec // not negative
	c.heap = worker.Heap()
	c.grown = c.heap - before
	return c, nil
}

// repeat does something as often as possible for a time, at least once, from as many goroutines as there are processors.
func repeat(d time.Duration, collect bool, do func(*rand.Rand) error) (c cost, err error) {
	const often = 64 // operations between two readings of the clock
	var done atomic.Uint64
	began := time.Now()
	var working errgroup.Group
	for i := range runtime.GOMAXPROCS(0) {
		working.Go(func() error {
			random := rand.New(rand.NewPCG(uint64(i), 1)) //nolint:gosec // the same each time; i is not negative
			for first := true; first || time.Since(began) < d; first = false {
				for range often {
					if err := do(random); err != nil {
						return err
					}
				}
				done.Add(often)
			}
			return nil
		})
	}
	if collect {
		var before, after debug.GCStats
		debug.ReadGCStats(&before)
		collecting := time.Now()
		runtime.GC()
		c.collected = time.Since(collecting)
		debug.ReadGCStats(&after)
		c.pause = slices.Max(after.Pause[:after.NumGC-before.NumGC]) // the latest are the first
	}
	err = working.Wait()
	c.operations, c.took = done.Load(), time.Since(began)
	return c, err
}
