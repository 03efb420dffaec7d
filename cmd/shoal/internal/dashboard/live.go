package dashboard

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"
	"github.com/shoal-go/shoal/server/jwtauth"
)

// The uploads of the dashboard's own manager, and the actions of their messages, which are states.
const (
	topicNumbers      = "numbers"
	topicConnections  = "connections"
	actionNumbers     = "dashboard.numbers"
	actionConnections = "dashboard.connections"
)

const (
	// interval is the time between two states.
	interval = time.Second
	// maxViewers bounds the connected pages.
	maxViewers = 32
	// maxNumbersBytes bounds a state: some kilobytes, and a few bytes for each shard and node.
	maxNumbersBytes = 256 << 10
)

// errClosed refuses requests after close.
var errClosed = errors.New("dashboard: closed")

// live is the stream of numbers: a manager and a server of its own. It is the handler of the stream.
type live struct {
	opt    Options
	secret []byte // signs the tokens of the stream

	mu     sync.Mutex // protects the fields below; opening the stream under it does not block
	closed bool
	stream *stream // nil before the first page has connected
}

// stream is an open stream with the goroutine that publishes to it.
type stream struct {
	manager *manager.Manager
	server  *server.Server
	handler http.Handler
	log     *slog.Logger
	// wake holds a token after a page has begun to follow.
	wake    chan struct{}
	stop    chan struct{}
	running sync.WaitGroup
}

func newLive(opt Options, secret []byte) *live { return &live{opt: opt, secret: secret} }

// ServeHTTP serves the WebSocket and the event stream.
func (l *live) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s, err := l.open()
	if err != nil {
		problem(w, http.StatusServiceUnavailable, err.Error())
		return
	}
	s.handler.ServeHTTP(w, r)
}

// open returns the stream, which it opens first if necessary.
func (l *live) open() (*stream, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, errClosed
	}
	if l.stream == nil {
		s, err := newStream(l.opt, l.secret)
		if err != nil {
			return nil, err
		}
		l.stream = s
	}
	return l.stream, nil
}

func (l *live) close(ctx context.Context) error {
	l.mu.Lock()
	l.closed = true
	s := l.stream
	l.stream = nil
	l.mu.Unlock()
	if s == nil {
		return nil
	}
	return s.close(ctx)
}

func newStream(opt Options, secret []byte) (*stream, error) {
	verifier, err := jwtauth.New(jwtauth.Options{Secret: secret})
	if err != nil {
		return nil, err
	}
	s := &stream{log: opt.Logger, wake: make(chan struct{}, 1), stop: make(chan struct{})}
	state := manager.ActionClass{Class: manager.ClassState}
	s.manager, err = manager.New(manager.Options{
		Shards: 1, HistoryMessages: 1, HistoryTTL: 10 * interval, MaxMessageBytes: maxNumbersBytes,
		Classes: map[string]manager.ActionClass{actionNumbers: state, actionConnections: state},
		Logger:  opt.Logger,
	})
	if err != nil {
		return nil, err
	}
	s.server, err = server.New(server.Options{
		Manager: s.manager, Authenticate: verifier.Authenticate, Authorize: server.AuthorizeClaims,
		MaxConnections: maxViewers,
		OnSubscribe:    func(*server.Client, server.Subscription) { s.watched() },
		Logger:         opt.Logger,
	})
	if err != nil {
		return nil, errors.Join(err, s.manager.Close(context.Background()))
	}
	s.handler = s.server.Handler()
	s.running.Go(func() { s.run(opt) })
	return s, nil
}

// watched has the goroutine notice that a page follows.
func (s *stream) watched() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// run publishes while pages follow.
func (s *stream) run(opt Options) {
	for {
		select {
		case <-s.stop:
			return
		case <-s.wake:
			s.publish(opt)
		}
	}
}

// publish publishes the numbers until no page follows any more.
func (s *stream) publish(opt Options) {
	opt.Residence.start()
	defer opt.Residence.stop()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	source := newSource(ctx, opt)
	defer source.close()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for s.manager.Followers(topicNumbers)+s.manager.Followers(topicConnections) > 0 {
		s.send(topicNumbers, source.numbers())
		if s.manager.Followers(topicConnections) > 0 {
			s.send(topicConnections, source.connections())
		}
		select {
		case <-s.stop:
			return
		case <-tick.C:
		}
	}
	for _, topic := range []string{topicNumbers, topicConnections} { // which would be old for the next page
		_ = s.manager.Forget(ctx, topic) // a manager without a broker forgets
	}
}

// send publishes a state. It cannot fail while the manager is open, unless the state is too large.
func (s *stream) send(topic string, state any) {
	text, err := json.Marshal(state)
	var message manager.Encoded
	if err == nil {
		message, err = s.manager.Parse(topic, text, time.Now())
	}
	if err == nil {
		_, err = s.manager.Publish(context.Background(), topic, message)
	}
	if err != nil {
		s.log.Error("dashboard: state not published", "topic", topic, "error", err)
	}
}

// close disconnects the pages, which connect again to a server that is started in the meantime.
func (s *stream) close(ctx context.Context) error {
	close(s.stop)
	s.running.Wait()
	return errors.Join(s.server.Close(ctx), s.manager.Close(ctx))
}
