package manager

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/internal/coalesce"
	"github.com/shoal-go/shoal/internal/deadline"
	"github.com/shoal-go/shoal/internal/dispatch"
	"github.com/shoal-go/shoal/internal/membership"
	"github.com/shoal-go/shoal/internal/workqueue"
)

// cluster is the part of a manager that shares messages with other nodes through a broker. It is the broker's Handler;
// its methods are safe for concurrent use.
//
// A published message is sent to the broker only. The node delivers the messages that it receives from the broker,
// including its own, so that all nodes agree on the order.
type cluster struct {
	manager *Manager
	broker  broker.Broker
	history broker.HistoryBroker // nil if the broker stores no messages
	// dispatch holds the dispatch queues between the broker's callback and the fan-out.
	dispatch *dispatch.Queue[queued]
	// receipts counts the messages that were added to dispatch.
	receipts atomic.Uint64
	// outages counts the events after which the epochs of channels may have changed at the broker: it was unhealthy, or
	// reported lost messages on all channels.
	outages atomic.Uint64
	// interest queues the uploads whose subscription at the broker must be checked, catching the uploads that must
	// catch up with the broker's history. comparing holds the comparison of all uploads with the broker's positions,
	// which takes long and must not delay any of them.
	interest, catching, comparing *workqueue.Queue
	// readers holds a token for each read of older messages that may begin.
	readers chan struct{}
	// subscribed are the broker subscriptions, one map for each of interest's goroutines. The value is false after a
	// failed Unsubscribe, when the state of the subscription is unknown.
	subscribed []map[string]bool
	peers      *membership.Membership
	// ordersMissed wakes syncOrders.
	ordersMissed chan struct{}
	outgoing     *coalesce.Coalescer[outgoing, Position] // nil unless states are conflated between nodes

	health     atomic.Pointer[string] // nil: messages come through; else why not
	wasHealthy atomic.Bool            // whether they ever came through
	failed     chan error
	counters   clusterCounters

	stopPeers, hurryPeers, stopBroker context.CancelFunc
	peering, running                  sync.WaitGroup
}

// uploadChannel is the prefix of an upload's channel name.
const uploadChannel = "upload:"

const (
	// brokerPatience bounds one call of the broker that has no other bound.
	brokerPatience = 5 * time.Second
	// leaveDelay is the time for which this node stays subscribed after the last local follower of an upload left, so
	// that reloading a page causes no broker calls.
	leaveDelay = time.Second
	// Bounds of the dispatch queues, per core.
	dispatchMessages = 16 << 10
	dispatchBytes    = 32 << 20
	// How many goroutines call the broker at a time, and for how many uploads at once.
	interestWorkers, interestBatch = 4, 256
	catchingWorkers                = 32
	minPause, maxPause             = 50 * time.Millisecond, 2 * time.Second
)

// newCluster returns the cluster of m, which run starts. The error concerns m's options.
func newCluster(m *Manager) (_ *cluster, err error) {
	c := &cluster{
		manager: m, broker: m.opt.Broker, failed: make(chan error, 1), ordersMissed: make(chan struct{}, 1),
	}
	c.history, _ = c.broker.(broker.HistoryBroker)
	c.unhealthy("not connected yet")
	c.peers, err = membership.New(membership.Config{
		Broker: c.broker, Name: m.opt.NodeName, Answer: c.answer, Logger: m.opt.Logger,
		Settings: fingerprint(m.opt.Classes),
		Announce: func() uint64 { return m.orders.announce() },
		OnHello:  c.helloReceived,
	})
	if err != nil {
		return nil, fmt.Errorf("manager: Options.NodeName: %w", err)
	}
	m.orders = newOrderLog(c.peers.Process(), &m.ages)
	c.dispatch = dispatch.New(dispatch.Config[queued]{
		Lanes:    runtime.GOMAXPROCS(0),
		Messages: dispatchMessages,
		Bytes:    dispatchBytes,
		Channel:  func(q queued) string { return q.Channel },
		Size:     func(q queued) int { return len(q.Payload) },
		Handle:   c.arrived,
		Lost: func(channel string) {
			c.counters.overflowed.Add(1)
			c.lost(channel)
		},
	})
	c.subscribed = make([]map[string]bool, interestWorkers)
	for i := range c.subscribed {
		c.subscribed[i] = make(map[string]bool)
	}
	c.interest = workqueue.New(workqueue.Config{
		Workers: interestWorkers, Batch: interestBatch, Do: c.reconcile, MinPause: minPause, MaxPause: maxPause,
	})
	c.catching = workqueue.New(workqueue.Config{
		Workers: catchingWorkers, Batch: 1, Do: c.catchUp, MinPause: minPause, MaxPause: maxPause,
	})
	c.comparing = workqueue.New(workqueue.Config{
		Workers: 1, Batch: 1, Do: c.compareAll, MinPause: minPause, MaxPause: maxPause,
	})
	c.readers = make(chan struct{}, allOlderReaders)
	for range allOlderReaders {
		c.readers <- struct{}{}
	}
	c.throttle(m.opt.StateRate)
	return c, nil
}

// run starts the broker and the membership that uses it.
func (c *cluster) run() {
	var brokerCtx, peersCtx, leavingCtx context.Context
	brokerCtx, c.stopBroker = context.WithCancel(context.Background())
	peersCtx, c.stopPeers = context.WithCancel(context.Background())
	leavingCtx, c.hurryPeers = context.WithCancel(context.Background())
	c.running.Go(func() {
		err := c.broker.Run(brokerCtx, c)
		if brokerCtx.Err() != nil {
			return // Close has ended it
		}
		if err == nil {
			err = errBrokerEnded
		}
		c.unhealthy(err.Error())
		c.failed <- err
	})
	c.peering.Go(func() { c.peers.Run(peersCtx, leavingCtx) })
	c.peering.Go(func() { c.syncOrders(peersCtx) })
}

// errBrokerEnded is the failure of a broker that has ended by itself without an error.
var errBrokerEnded = errors.New("manager: Options.Broker: Run has returned although the node is not closed")

// queued is a message in the dispatch queues, with its number among the received ones.
type queued struct {
	broker.Message
	receipt uint64
}

// Receive enqueues a message from the broker.
func (c *cluster) Receive(b broker.Message) {
	if !c.peers.Receive(b) {
		c.dispatch.Put(queued{b, c.receipts.Add(1)})
	}
}

// Interrupted starts the catch-up of channels on which messages may have been lost.
func (c *cluster) Interrupted(channels ...string) {
	if len(channels) == 0 {
		c.outages.Add(1)
		c.lost("")
	}
	for _, channel := range channels {
		c.lost(channel)
	}
}

// lost has a channel brought up to date, or all of them if it is "".
func (c *cluster) lost(channel string) {
	if channel == "" {
		c.comparing.Add(allUploads)
	}
	if id, ok := strings.CutPrefix(channel, uploadChannel); ok {
		c.manager.registry.WithKnown(id, c.fallBehind)
		return
	}
	c.missedOrders() // the other channels are those of the nodes
}

// helloReceived handles a hello of another node.
func (c *cluster) helloReceived(h membership.Hello) {
	if h.Met || c.manager.orders.missed(h.Process, h.Announced) {
		c.missedOrders()
	}
}

// allUploads is the key of the comparison of all uploads.
const allUploads = ""

// endGrace is how long close waits for goroutines at least, even if closing the connections took all the time.
const endGrace = 20 * time.Millisecond

// withGrace returns ctx, or a context that ends after endGrace if ctx has ended.
func withGrace(ctx context.Context) (context.Context, context.CancelFunc) {
	if ctx.Err() != nil {
		return context.WithTimeout(context.WithoutCancel(ctx), endGrace)
	}
	return ctx, func() {}
}

// close announces the departure to the other nodes and ends all goroutines. It blocks until then, at most until ctx
// ends; calls of the broker end shortly before. The error names the parts that have not ended because the broker
// ignores its context: they end when the broker returns.
func (c *cluster) close(ctx context.Context) error {
	ctx, stop := withGrace(ctx)
	defer stop()
	patience, cancel := deadline.WithMargin(ctx)
	defer cancel()
	var unsent error
	if c.outgoing != nil {
		unsent = c.closeOutgoing(ctx, patience)
	}
	c.stopPeers()
	defer context.AfterFunc(patience, c.hurryPeers)()
	left := awaitEnds(ctx, ending("the node has not left the others", c.peering.Wait))
	c.hurryPeers() // its context has to end in any case
	c.stopBroker()
	stopped := awaitEnds(ctx,
		ending("Options.Broker: Run has not returned", c.running.Wait),
		ending("Options.Broker: Subscribe or Unsubscribe has not returned", c.interest.Close),
		ending("Options.Broker: History or Newest has not returned", c.catching.Close),
		ending("Options.Broker: Positions has not returned", c.comparing.Close),
		ending("the received messages have not been delivered", c.dispatch.Close))
	return errors.Join(unsent, left, stopped)
}

// closeOutgoing sends the states that wait until patience ends, and returns at the latest when ctx ends.
func (c *cluster) closeOutgoing(ctx, patience context.Context) error {
	closed := make(chan error, 1)
	go func() { closed <- c.outgoing.Close(patience) }()
	select {
	case err := <-closed:
		return err
	case <-ctx.Done():
		return fmt.Errorf("manager: Options.Broker: Store has not returned in time: %w", ctx.Err())
	}
}

// part is a part of the cluster that is ending.
type part struct {
	late string // the error if it is late
	done chan struct{}
}

// ending returns a part that has ended when a call returns.
func ending(late string, wait func()) part {
	p := part{late, make(chan struct{})}
	go func() {
		defer close(p.done)
		wait()
	}()
	return p
}

// awaitEnds waits for parts to end, at most until ctx ends, and returns an error that names the late ones.
func awaitEnds(ctx context.Context, parts ...part) error {
	var late []error
	for _, p := range parts {
		if !ended(ctx, p.done) {
			late = append(late, fmt.Errorf("manager: %s in time: %w", p.late, ctx.Err()))
		}
	}
	return errors.Join(late...)
}
