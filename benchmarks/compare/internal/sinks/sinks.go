// Package sinks runs this project's manager in a process of its own, with connections that only count the messages they
// receive: as many of them as there is memory for, and no kernel between publisher and receiver.
package sinks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/shard"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/message"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/systems"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/worker"
)

// MaxUploads is how many there can be: their names have to be short.
const MaxUploads = 1_000_000

// Population describes the connections: each follows the upload of its own number modulo Uploads, subscribed in no order if
// Shuffled. Bytes is the size of a message.
type Population struct {
	Connections, Uploads, Bytes int
	Shuffled                    bool
}

// Cost is the number of operations, their time, and by how many bytes the heap has grown, to Heap.
type Cost struct {
	Operations  uint64
	Took        time.Duration
	Grown, Heap int64
	// Collected is the time of a garbage collection during the work, and Pause the longest time for which all goroutines
	// were stopped.
	Collected, Pause time.Duration
}

// Work is repeated while For lasts, with one garbage collection during it if Collect is set.
type Work struct {
	For     time.Duration
	Collect bool
}

// service is the service of the process.
type service struct {
	worker.Process
	Population
	manager *manager.Manager
	conns   []*sink
}

// Run answers calls until in ends. Then it ends the manager.
func Run(in io.Reader, out io.Writer) error {
	m, err := manager.New(manager.Options{})
	if err != nil {
		return err
	}
	s := &service{manager: m}
	err = worker.Serve(in, out, s)
	return errors.Join(err, s.Stop(), m.Close(context.Background()))
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

// Connect connects the users, with a connection each.
func (s *service) Connect(p Population, c *Cost) error {
	s.Population, s.conns = p, make([]*sink, p.Connections)
	for i := range s.conns {
		s.conns[i] = new(sink) // not a part of the measurement
	}
	return c.of(len(s.conns), func(i int) error { return s.manager.Connect(userID(i), s.conns[i]) })
}

// Subscribe subscribes all connections.
func (s *service) Subscribe(_ worker.None, c *Cost) error {
	order := s.order()
	err := c.of(len(order), func(i int) error { return s.follow(order[i], order[i]%s.Uploads) })
	if n := s.manager.Stats().Subscriptions; err == nil && n != s.Connections {
		err = fmt.Errorf("sinks: %d of %d connections are subscribed", n, s.Connections)
	}
	return err
}

// order is the order in which the connections subscribe, and so lie in their upload. In a server that has run for a while
// it has nothing to do with their addresses in memory.
func (s *service) order() []int {
	if s.Shuffled {
		return rand.New(rand.NewPCG(1, 2)).Perm(len(s.conns)) // the same each time
	}
	order := make([]int, len(s.conns))
	for i := range order {
		order[i] = i
	}
	return order
}

func (s *service) follow(i, upload int) error {
	return s.manager.SubscribeConn(context.Background(), userID(i), s.conns[i], message.Channel(upload), manager.SubscribeOptions{})
}

// Fill publishes the first message of each upload.
func (s *service) Fill(_ worker.None, c *Cost) error { return c.of(s.Uploads, s.publish) }

// publish does all that a message takes, from the application's value on: validation, encoding, history, delivery.
func (s *service) publish(upload int) error {
	m := message.Message{Channel: message.Channel(upload), Size: s.Bytes}
	_, err := s.manager.Publish(context.Background(), m.Channel, systems.Progress(m))
	return err
}

// Broadcast sends an encoded message to the first upload repeatedly. The operations are its receivers. The clock is read
// once in a few thousand receivers, so that it does not count.
func (s *service) Broadcast(w Work, c *Cost) error {
	const often = 8192
	upload := message.Channel(0)
	encoded, err := manager.Parse(upload, message.Message{Channel: upload, Size: s.Bytes}.JSON(), time.Now())
	if err != nil {
		return err
	}
	receivers := (len(s.conns) + s.Uploads - 1) / s.Uploads
	send := func() error {
		d, err := s.manager.SendToUploadSubscribers(upload, encoded)
		if err == nil && d.Queued != receivers {
			err = fmt.Errorf("sinks: a message to %d receivers resulted in %+v", receivers, d)
		}
		return err
	}
	if err := send(); err != nil { // the caches warm up
		return err
	}
	began := time.Now()
	for c.Operations == 0 || time.Since(began) < w.For {
		for range 1 + often/receivers {
			if err := send(); err != nil {
				return err
			}
			c.Operations += uint64(receivers) //nolint:gosec // not negative
		}
	}
	c.Took = time.Since(began)
	return nil
}

// Publish publishes to random uploads, from GOMAXPROCS goroutines.
func (s *service) Publish(w Work, c *Cost) error {
	return c.repeat(w, func(random *rand.Rand) error { return s.publish(random.IntN(s.Uploads)) })
}

// Churn has random users follow another upload and leave it again, from GOMAXPROCS goroutines.
func (s *service) Churn(w Work, c *Cost) error {
	return c.repeat(w, func(random *rand.Rand) error {
		i, upload := random.IntN(len(s.conns)), random.IntN(s.Uploads)
		if i%s.Uploads == upload { // it stays with its own
			return nil
		}
		if err := s.follow(i, upload); err != nil {
			return err
		}
		s.manager.UnsubscribeConn(userID(i), s.conns[i], message.Channel(upload))
		return nil
	})
}

// of does something for every number below n, once.
func (c *Cost) of(n int, do func(i int) error) error {
	before := worker.Heap()
	began := time.Now()
	for i := range n {
		if err := do(i); err != nil {
			return err
		}
	}
	c.Operations, c.Took = uint64(n), time.Since(began) //nolint:gosec // not negative
	c.Heap = worker.Heap()
	c.Grown = c.Heap - before
	return nil
}

// repeat does something as often as possible, at least once, from as many goroutines as there are processors.
func (c *Cost) repeat(w Work, do func(*rand.Rand) error) error {
	const often = 64 // operations between two readings of the clock
	var done atomic.Uint64
	failures := make([]error, runtime.GOMAXPROCS(0))
	began := time.Now()
	var working sync.WaitGroup
	for i := range failures {
		working.Go(func() {
			random := rand.New(rand.NewPCG(uint64(i), 1)) //nolint:gosec // the same each time; i is not negative
			for first := true; failures[i] == nil && (first || time.Since(began) < w.For); first = false {
				for n := 0; n < often && failures[i] == nil; n++ {
					failures[i] = do(random)
				}
				done.Add(often)
			}
		})
	}
	if w.Collect {
		c.collect()
	}
	working.Wait()
	c.Operations, c.Took = done.Load(), time.Since(began)
	return errors.Join(failures...)
}

// collect collects the garbage.
func (c *Cost) collect() {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	before := m.NumGC
	began := time.Now()
	runtime.GC()
	c.Collected = time.Since(began)
	runtime.ReadMemStats(&m)
	for n := before + 1; n <= m.NumGC; n++ {
		c.Pause = max(c.Pause, time.Duration(m.PauseNs[(n+255)%256])) //nolint:gosec // not negative
	}
}
