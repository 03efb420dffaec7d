package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/time/rate"
)

const (
	// codeUnavailable is the code of an answer to a token that the server cannot check now.
	codeUnavailable = "unavailable"
	// closeTimeout bounds the exchange of close frames.
	closeTimeout = time.Second
	// answerTimeout is the longest time until the server answers a subscription.
	answerTimeout = 30 * time.Second
	// writeRate and writeBurst keep the client's messages per second below the limits of a server.
	writeRate, writeBurst = 30, 100
)

// link is one connection. Its goroutines end before serve returns.
type link struct {
	client   *Client
	conn     *websocket.Conn
	begun    time.Time
	lastRead atomic.Int64  // the time after begun of the last bytes from the server
	wake     chan struct{} // has a token if uploads have changed
	tokens   chan bool     // has an answer to the last renewal: whether the server accepted the token
	limits   *rate.Limiter
	end      context.CancelCauseFunc
	others   sync.WaitGroup // the goroutines beside the reading one

	// Only the reading goroutine uses these.
	authError  *RefusedError
	retryAfter time.Duration

	// Client.mu protects the fields below.
	// beginning and ending are the uploads that may need a subscription, or the end of theirs.
	beginning, ending map[string]struct{}
	// claimed are the uploads with a subscription, asked the positions of the unanswered ones, and ended the numbers of
	// unconfirmed ends.
	claimed map[string]struct{}
	asked   map[string]Position
	ended   map[string]int
	// freed is the number of subscriptions that have ended and in whose place no others have begun, while further ones
	// have to end.
	freed int
	// retrying are the asked uploads whose subscription failed and is repeated after a delay, with the functions that
	// prevent that.
	retrying map[string]context.CancelFunc
	// waiting is the time of the last answer, or of the first subscription after that.
	waiting time.Time
}

func newLink(c *Client) *link {
	return &link{
		client: c, begun: time.Now(), wake: make(chan struct{}, 1), tokens: make(chan bool, 1),
		limits:    rate.NewLimiter(writeRate, writeBurst),
		beginning: map[string]struct{}{}, ending: map[string]struct{}{},
		claimed: map[string]struct{}{}, asked: map[string]Position{}, ended: map[string]int{},
		retrying: map[string]context.CancelFunc{},
	}
}

func (l *link) noteRead() { l.lastRead.Store(int64(time.Since(l.begun))) }

// serve authenticates within the time of connecting, and handles messages until the connection ends.
func (l *link) serve(connecting context.Context, token string) ending {
	ctx, end := context.WithCancelCause(context.Background())
	l.end = end
	defer l.others.Wait()
	defer l.conn.CloseNow() //nolint:errcheck // it is closed in any case
	defer end(nil)
	if err := l.authenticate(connecting, token); err != nil {
		return l.endingOf(ctx, err, time.Time{})
	}
	live := time.Now()
	l.attach()
	defer l.detach()
	l.client.opt.OnState(State{Status: Live})
	l.others.Go(func() { l.closeWithClient(ctx) })
	l.others.Go(func() { l.request(ctx) })
	l.others.Go(func() { l.keepAlive(ctx) })
	l.others.Go(func() { l.renew(ctx, token) })
	for {
		in, err := l.read(ctx)
		if err == nil {
			err = l.handle(ctx, in)
		}
		if err != nil {
			return l.endingOf(ctx, err, live)
		}
	}
}

// authenticate sends the token and waits for the answer. A server that identifies its clients by the request
// (server.Options.Identify) knows no such message.
func (l *link) authenticate(ctx context.Context, token string) error {
	if err := l.write(ctx, authMessage(token)); err != nil {
		return err
	}
	for {
		in, err := l.read(ctx)
		if err != nil {
			return err
		}
		switch in.action {
		case "auth_success":
			return nil
		case "auth_error":
			l.authError = in.authError()
		case "error":
			return &RefusedError{Code: in.text("code"), Message: "the server takes no token", kind: ErrNotShoal}
		case "reconnect":
			l.retryAfter = in.retryAfter()
		}
	}
}

// attach subscribes all uploads on this connection.
func (l *link) attach() {
	c := l.client
	c.mu.Lock()
	defer c.mu.Unlock()
	c.link, c.attached = l, true
	for id := range c.uploads {
		l.changed(id)
	}
}

// detach ends the subscriptions.
func (l *link) detach() {
	c := l.client
	c.mu.Lock()
	defer c.mu.Unlock()
	c.link = nil
	for _, u := range c.uploads {
		u.stop()
	}
}

// closeWithClient closes the connection when the client is closed. The server gets a close frame if it is listening.
func (l *link) closeWithClient(ctx context.Context) {
	select {
	case <-ctx.Done():
		return
	case <-l.client.ctx.Done():
	}
	timer := time.AfterFunc(closeTimeout, func() { l.end(ErrClosed) })
	defer timer.Stop()
	_ = l.conn.Close(websocket.StatusNormalClosure, "") // the reading goroutine gets the error
}

// read returns the next message.
func (l *link) read(ctx context.Context) (incoming, error) {
	kind, reader, err := l.conn.Reader(ctx)
	if err != nil {
		return incoming{}, err
	}
	data, err := io.ReadAll(listener{reader, l})
	if err != nil {
		return incoming{}, err
	}
	if kind != websocket.MessageText {
		return incoming{}, violation("a message of %d bytes is binary", len(data))
	}
	return decode(data)
}

// listener counts each part of a message as a sign of life.
type listener struct {
	io.Reader
	link *link
}

func (r listener) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.link.noteRead()
	return n, err
}

// write sends a message. It blocks until the operating system has taken it.
func (l *link) write(ctx context.Context, message []byte) error {
	ctx, cancel := context.WithTimeout(ctx, l.client.opt.ConnectTimeout)
	defer cancel()
	return l.conn.Write(ctx, websocket.MessageText, message)
}

// request sends subscriptions and their ends, until ctx ends.
func (l *link) request(ctx context.Context) {
	for {
		select {
		case <-l.wake:
		case <-ctx.Done():
			return
		}
		for message := l.nextRequest(); message != nil; message = l.nextRequest() {
			err := l.limits.Wait(ctx)
			if err == nil {
				err = l.write(ctx, message)
			}
			if err != nil {
				l.end(err)
				return
			}
		}
	}
}

// keepAlive ends the connection when the server is silent for the idle timeout, or leaves a subscription unanswered. It
// asks for a sign of life at half of that time.
func (l *link) keepAlive(ctx context.Context) {
	idle := l.client.opt.IdleTimeout
	for sleep(ctx, max(idle/2-l.silence(), idle/16)) {
		if l.overdue() {
			l.end(fmt.Errorf("client: the server did not answer a subscription within %v", answerTimeout))
			return
		}
		if l.silence() < idle/2 {
			continue
		}
		asking, cancel := context.WithTimeout(ctx, idle-min(l.silence(), idle))
		err := l.conn.Ping(asking)
		cancel()
		if errors.Is(err, context.DeadlineExceeded) && l.silence() >= idle/2 {
			l.end(fmt.Errorf("client: nothing came from the server within %v", idle))
			return
		}
	}
}

func (l *link) silence() time.Duration {
	return time.Since(l.begun) - time.Duration(l.lastRead.Load())
}

// overdue reports whether a subscription has been unanswered for too long.
func (l *link) overdue() bool {
	l.client.mu.Lock()
	defer l.client.mu.Unlock()
	return len(l.asked) > len(l.retrying) && time.Since(l.waiting) > answerTimeout
}

// endingOf classifies the end of the connection, by the table of close codes.
func (l *link) endingOf(ctx context.Context, err error, live time.Time) ending {
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = context.Cause(ctx)
	}
	e := ending{err: err, live: live, retryAfter: l.retryAfter}
	var closed websocket.CloseError
	var refused *RefusedError
	switch {
	case errors.As(err, &refused):
		e.final = true
		return e
	case errors.Is(err, websocket.ErrMessageTooBig):
		e.err = violation("a message has more than %d bytes, the limit of Options.MaxMessageBytes",
			l.client.opt.MaxMessageBytes)
		return e
	case errors.As(err, &closed):
	case l.authError != nil && l.authError.Code != codeUnavailable && l.authError.Code != "timeout":
		e.err, e.token = l.authError, true
		return e
	case ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded):
		e.err = fmt.Errorf("client: the server did not answer within %v", l.client.opt.ConnectTimeout)
		return e
	default:
		return e
	}
	refusal := &RefusedError{CloseCode: int(closed.Code), Message: quoted(closed.Reason)}
	if l.authError != nil {
		refusal.Code, refusal.Message = l.authError.Code, l.authError.Message
	}
	e.err = refusal
	switch closed.Code {
	case websocket.StatusNormalClosure, closeInvalidFormat:
		refusal.kind, e.final = ErrStopped, true
	case websocket.StatusPolicyViolation, websocket.StatusMessageTooBig:
		refusal.kind, e.final = ErrLimit, true
	case closeAuthRequired:
		refusal.kind, e.final = ErrUnauthorized, true
	case closeInvalidToken:
		refusal.kind, e.token = ErrUnauthorized, true
	default:
		refusal.kind = errInterrupted
	}
	return e
}

// errInterrupted is the kind of a refusal after which the client reconnects.
var errInterrupted = errors.New("client: the server closed the connection")

// Close codes of the protocol.
const (
	closeAuthRequired  websocket.StatusCode = 4002
	closeInvalidToken  websocket.StatusCode = 4003
	closeInvalidFormat websocket.StatusCode = 4004
)
