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

// calls asks the server and brings each answer to who asked. All methods may be called from any number of
// goroutines. One subscription serves them all, and a bounded number of them waits at once, so that
// calls at the same time share the way without waiting for each other.
type calls struct {
	conn    *nats.Conn
	prefix  string
	answers chan *nats.Msg
	// timeout bounds calls of one question whose context has no deadline.
	timeout time.Duration
	// turns holds a token for each call on its way, reads for each reading of a channel instead.
	turns, reads chan struct{}

	mu      sync.Mutex // protects what follows; nothing waits under it
	last    uint64
	waiting map[uint64]*call
}

// call is one that waits. Its fields are written under the lock of calls, until done has got its token.
type call struct {
	id       uint64
	several  bool
	due      time.Time // when it is given up, zero if its context says so
	messages []*nats.Msg
	err      error
	done     chan struct{}
}

var (
	errNoAnswer = errors.New("nobody serves the stream")
	errCut      = errors.New("the connection was lost before the answer came")
)

// Bounds of what is read at once: as many answers as may come have to fit between connection and caller.
const (
	maxReads       = 128
	answersPerRead = 256
	messagesAsked  = 200
)

func newCalls(conn *nats.Conn, inFlight int, timeout time.Duration) (*calls, error) {
	c := &calls{
		conn:    conn,
		prefix:  nats.NewInbox() + ".",
		answers: make(chan *nats.Msg, inFlight+maxReads*answersPerRead),
		timeout: timeout,
		turns:   make(chan struct{}, inFlight),
		reads:   make(chan struct{}, maxReads),
		waiting: make(map[uint64]*call),
	}
	_, err := conn.ChanSubscribe(c.prefix+"*", c.answers)
	return c, err
}

// run brings answers to their calls until stop is closed. A cut ends all calls that wait.
func (c *calls) run(cut, stop <-chan struct{}) {
	const looks = 10 // within timeout
	tick := time.NewTicker(max(c.timeout/looks, 1))
	defer tick.Stop()
	for {
		select {
		case m := <-c.answers:
			c.answer(m)
		case now := <-tick.C:
			c.expire(now)
		case <-cut:
			c.fail(errCut)
		case <-stop:
			c.fail(errCut)
			return
		}
	}
}

// one sends a message and returns its one answer.
func (c *calls) one(ctx context.Context, m *nats.Msg) (*nats.Msg, error) {
	if err := c.takeTurn(ctx); err != nil {
		return nil, err
	}
	defer func() { <-c.turns }()
	own := new(call)
	if _, bounded := ctx.Deadline(); !bounded {
		own.due = time.Now().Add(c.timeout)
	}
	if err := c.send(m, own); err != nil {
		return nil, err
	}
	return c.only(ctx, own)
}

func (c *calls) takeTurn(ctx context.Context) error {
	select {
	case c.turns <- struct{}{}:
		return nil
	default:
	}
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.timeout)
		defer cancel()
	}
	select {
	case c.turns <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// echo returns when the server has taken all that was sent before: it sends this call back to itself.
func (c *calls) echo(ctx context.Context) error {
	_, err := c.one(ctx, new(nats.Msg))
	return err
}

// ask sends a message. It does not wait for its turn; who calls it has to have one, and has to await the answer.
// Several answers end with the one that says that there are no more.
func (c *calls) ask(m *nats.Msg, several bool) (*call, error) {
	own := &call{several: several}
	if err := c.send(m, own); err != nil {
		return nil, err
	}
	return own, nil
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

// await returns the answers.
func (c *calls) await(ctx context.Context, own *call) ([]*nats.Msg, error) {
	select {
	case <-own.done:
		return own.messages, own.err
	case <-ctx.Done():
		c.end(own)
		return nil, ctx.Err()
	}
}

// only returns the one answer.
func (c *calls) only(ctx context.Context, own *call) (*nats.Msg, error) {
	answers, err := c.await(ctx, own)
	if err != nil {
		return nil, err
	}
	return answers[0], nil
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

// answer takes what came in. What nobody waits for any more is dropped.
func (c *calls) answer(m *nats.Msg) {
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
	if !own.several || status != "" {
		delete(c.waiting, id)
		own.done <- struct{}{}
	}
}

// fail ends all calls that wait.
func (c *calls) fail(err error) {
	c.failIf(err, func(*call) bool { return true })
}

// expire ends the calls that have waited too long.
func (c *calls) expire(now time.Time) {
	c.failIf(context.DeadlineExceeded, func(own *call) bool { return !own.due.IsZero() && now.After(own.due) })
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

// header returns a header's last value, which is the server's where a foreign publisher set the same one.
func header(m *nats.Msg, name string) string {
	values := m.Header[name]
	if len(values) == 0 {
		return ""
	}
	return values[len(values)-1]
}

// number returns a header's value as a number, 0 if it is none.
func number(m *nats.Msg, name string) uint64 {
	n, err := strconv.ParseUint(header(m, name), 10, 64)
	if err != nil {
		return 0
	}
	return n
}
