package natsbroker

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// calls sends requests to the server and matches the responses. Its methods are safe for concurrent use. All
// requests share one inbox subscription; the number in flight is bounded.
type calls struct {
	conn      *nats.Conn
	prefix    string
	responses chan *nats.Msg
	// timeout bounds a request whose context has no deadline.
	timeout time.Duration
	// slots limits requests in flight, reads limits channels that are read at once.
	slots, reads chan struct{}

	mu      sync.Mutex // guards the fields below; never held while blocking
	last    uint64
	waiting map[uint64]*call
}

// call is a request in flight. Its fields are written under calls.mu until done receives.
type call struct {
	id       uint64
	several  bool      // a batch: responses end with a status
	all      bool      // several servers may respond: responses are collected until end
	deadline time.Time // zero if the context has one
	messages []*nats.Msg
	err      error
	done     chan struct{}
}

var (
	errNoAnswer     = errors.New("no server responds for the stream")
	errDisconnected = errors.New("the connection was lost before the response arrived")
)

// Bounds of concurrent reads: the responses of all of them fit into the buffer of calls.
const (
	maxReads         = 128
	responsesPerRead = 256
	batchSize        = 200
	batchBytes       = 4 << 20
)

func newCalls(conn *nats.Conn, inFlight int, timeout time.Duration) (*calls, error) {
	c := &calls{
		conn:      conn,
		prefix:    nats.NewInbox() + ".",
		responses: make(chan *nats.Msg, inFlight+maxReads*responsesPerRead),
		timeout:   timeout,
		slots:     make(chan struct{}, inFlight),
		reads:     make(chan struct{}, maxReads),
		waiting:   make(map[uint64]*call),
	}
	for _, subject := range []string{forgottenSubject, livePrefix + streamEpochSubject, c.prefix + "*"} {
		if _, err := conn.ChanSubscribe(subject, c.responses); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// run delivers responses, and calls outdate with announcements of epochs, until stop is closed. They share one queue,
// so that a response is handled after the announcements that the server had sent before. A disconnect fails all
// requests in flight.
func (c *calls) run(outdate func(*nats.Msg), disconnected, stop <-chan struct{}) {
	const checks = 10 // per timeout
	tick := time.NewTicker(max(c.timeout/checks, 1))
	defer tick.Stop()
	for {
		select {
		case m := <-c.responses:
			switch m.Subject {
			case forgottenSubject, livePrefix + streamEpochSubject:
				outdate(m)
			default:
				c.respond(m)
			}
		case now := <-tick.C:
			c.expire(now)
		case <-disconnected:
			c.fail(errDisconnected)
		case <-stop:
			c.fail(errDisconnected)
			return
		}
	}
}

// request sends a message and returns its single response.
func (c *calls) request(ctx context.Context, m *nats.Msg) (*nats.Msg, error) {
	if err := c.acquire(ctx); err != nil {
		return nil, err
	}
	defer func() { <-c.slots }()
	own := new(call)
	if _, bounded := ctx.Deadline(); !bounded {
		own.deadline = time.Now().Add(c.timeout)
	}
	if err := c.send(m, own); err != nil {
		return nil, err
	}
	return c.awaitOne(ctx, own)
}

func (c *calls) acquire(ctx context.Context) error {
	select {
	case c.slots <- struct{}{}:
		return nil
	default:
	}
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.timeout)
		defer cancel()
	}
	select {
	case c.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// echo sends a message to the own inbox and waits for it: by then the server has processed all that was sent before.
func (c *calls) echo(ctx context.Context) error {
	_, err := c.request(ctx, new(nats.Msg))
	return err
}

// start sends a request without acquiring a slot; the caller holds one of reads and must await the call. A batch
// (several) ends with a response that has a status.
func (c *calls) start(m *nats.Msg, several bool) (*call, error) {
	own := &call{several: several}
	if err := c.send(m, own); err != nil {
		return nil, err
	}
	return own, nil
}

// startAll is start for a request to which several servers may respond. The caller must collect the call.
func (c *calls) startAll(m *nats.Msg) (*call, error) {
	own := &call{all: true}
	if err := c.send(m, own); err != nil {
		return nil, err
	}
	return own, nil
}

// collect ends a call of startAll and returns the responses so far.
func (c *calls) collect(own *call) ([]*nats.Msg, error) {
	c.end(own)
	return own.messages, own.err
}

func (c *calls) send(m *nats.Msg, own *call) error {
	own.done = make(chan struct{}, 1)
	c.begin(own)
	if m.Reply = c.prefix + strconv.FormatUint(own.id, 36); m.Subject == "" {
		m.Subject, m.Reply = m.Reply, ""
	}
	if err := c.conn.PublishMsg(m); err != nil {
		c.end(own)
		return err
	}
	return nil
}

// await returns the responses.
func (c *calls) await(ctx context.Context, own *call) ([]*nats.Msg, error) {
	select {
	case <-own.done:
		return own.messages, own.err
	case <-ctx.Done():
		c.end(own)
		return nil, ctx.Err()
	}
}

// awaitOne returns the single response.
func (c *calls) awaitOne(ctx context.Context, own *call) (*nats.Msg, error) {
	responses, err := c.await(ctx, own)
	if err != nil {
		return nil, err
	}
	return responses[0], nil
}

func (c *calls) begin(own *call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last++
	own.id = c.last
	c.waiting[own.id] = own
}

func (c *calls) end(own *call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.waiting, own.id)
}

// respond hands a response to its call. Late responses are dropped.
func (c *calls) respond(m *nats.Msg) {
	id, err := strconv.ParseUint(strings.TrimPrefix(m.Subject, c.prefix), 36, 64)
	if err != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	own, ok := c.waiting[id]
	if !ok {
		return
	}
	status := header(m, statusHeader)
	if status == statusNoResponders {
		own.err = errNoAnswer
	} else {
		own.messages = append(own.messages, m)
	}
	if !own.all && (!own.several || status != "") {
		delete(c.waiting, id)
		own.done <- struct{}{}
	}
}

// fail ends all requests in flight.
func (c *calls) fail(err error) {
	c.failIf(err, func(*call) bool { return true })
}

// expire ends the requests past their deadline.
func (c *calls) expire(now time.Time) {
	c.failIf(context.DeadlineExceeded, func(own *call) bool { return !own.deadline.IsZero() && now.After(own.deadline) })
}

func (c *calls) failIf(err error, condition func(*call) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, own := range c.waiting {
		if condition(own) {
			own.err = err
			own.done <- struct{}{}
			delete(c.waiting, id)
		}
	}
}
