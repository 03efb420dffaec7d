package natsbroker

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/shoal-go/shoal/broker"
)

// dialer opens connections until ctx ends.
type dialer struct {
	ctx     context.Context
	timeout time.Duration
}

// Dial connects.
func (d dialer) Dial(network, address string) (net.Conn, error) {
	return (&net.Dialer{Timeout: d.timeout}).DialContext(d.ctx, network, address)
}

// dial makes one attempt to connect. The error is a permanentError if further attempts would fail alike.
func dial(
	ctx context.Context, opt Options, h broker.Handler, subs *subscriptions, known *epochs,
) (*session, error) {
	s := &session{
		opt:            opt,
		handler:        h,
		subscriptions:  subs,
		epochs:         known,
		arrivals:       make(chan *nats.Msg, min(opt.PendingMessages, maxArrivals)),
		queue:          newQueue(opt.PendingMessages, opt.PendingBytes),
		woken:          make(chan struct{}, 1),
		disconnected:   make(chan struct{}, 1),
		leaderless:     make(chan struct{}, 1),
		probe:          probePrefix + rand.Text(),
		permissionName: rand.Text(),
		stop:           make(chan struct{}),
		closed:         make(chan struct{}),
	}
	conn, err := nats.Connect(opt.URL, append(opt.connection(), s.callbacks(ctx)...)...)
	if err != nil {
		return nil, opt.connectError(err)
	}
	s.conn = conn
	return s, nil
}

// flushTimeout is how long a write may block before the connection counts as lost.
const flushTimeout = time.Second

// connection returns the options of the connection. Nothing is buffered while it is lost: publishing fails then.
func (o Options) connection() []nats.Option {
	options := []nats.Option{
		nats.Name(o.Name),
		nats.Timeout(o.ConnectTimeout),
		nats.MaxReconnects(-1),
		nats.ReconnectBufSize(-1),
		nats.CustomReconnectDelay(backoff),
		nats.IgnoreAuthErrorAbort(),
		nats.FlusherTimeout(flushTimeout),
		// A connection that swallows everything is dropped when the supervisor reports it.
		nats.PingInterval(o.ProbeInterval),
		nats.MaxPingsOutstanding(maxUnanswered - 1),
		nats.SkipSubjectValidation(),
	}
	if o.Server != nil {
		options = append(options, nats.InProcessServer(o.Server))
	}
	if o.Token != "" {
		options = append(options, nats.Token(o.Token))
	}
	if o.CredentialsFile != "" {
		options = append(options, nats.UserCredentials(o.CredentialsFile))
	}
	if o.NKeyFile != "" {
		// The file is read for each connection, because nats.Nkey needs the public key. validate has read it before.
		option, err := nats.NkeyOptionFromSeed(o.NKeyFile)
		if err != nil {
			option = func(*nats.Options) error { return err }
		}
		options = append(options, option)
	}
	if o.TLS != nil {
		options = append(options, nats.Secure(o.TLS))
	}
	if o.RootCAs != nil {
		options = append(options, func(own *nats.Options) error {
			own.Secure, own.RootCAsCB = true, func() (*x509.CertPool, error) { return o.RootCAs(), nil }
			return nil
		})
	}
	return options
}

// hasOtherKey reports whether NKeyFile holds another key than the one of a connection, which shows its public part for
// good.
func (o Options) hasOtherKey(conn *nats.Conn) bool {
	if o.NKeyFile == "" {
		return false
	}
	var present nats.Options
	option, err := nats.NkeyOptionFromSeed(o.NKeyFile)
	return err == nil && option(&present) == nil && present.Nkey != conn.Opts.Nkey
}

// callbacks returns the callbacks of the connection. None of them blocks.
func (s *session) callbacks(ctx context.Context) []nats.Option {
	return []nats.Option{
		nats.SetCustomDialer(dialer{ctx, s.opt.ConnectTimeout}),
		nats.ClosedHandler(func(*nats.Conn) { close(s.closed) }),
		nats.DisconnectErrHandler(func(conn *nats.Conn, err error) {
			s.disconnects.Add(1)
			s.noteError(cmp.Or(err, conn.LastError())) // without err the server has told why it closed the connection
			s.epochs.disconnected()
			s.subscriptions.forgetEpochs()
			select {
			case s.disconnected <- struct{}{}:
			default:
			}
			s.wake()
		}),
		nats.ReconnectHandler(func(*nats.Conn) { s.wake() }),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) { s.noteError(err) }),
		nats.ErrorHandler(func(conn *nats.Conn, sub *nats.Subscription, err error) {
			switch {
			case errors.Is(err, nats.ErrSlowConsumer) && sub != nil:
				s.subscriptions.markDropped(sub)
				s.overflows.Add(1)
				return
			case isAuthError(err) && s.opt.hasOtherKey(conn):
				conn.Close() // Run makes another connection, with the new key
			case isRefusal(err):
				s.refusals.add(err)
				if isRefusedPublication(err) {
					s.forbidden.Store(true) // permissions may have become narrower
					s.suspect.Store(true)
					s.wake()
				}
				if s.subscriptions.confirmed(refusedSubject(err)) {
					s.refused.Store(&err) // permissions became narrower while this node was away
					s.wake()
				}
			}
			s.noteError(err)
			s.opt.Logger.Warn("NATS connection error", "error", err)
		}),
	}
}

// isRefusal reports whether the server refused a publication or a subscription.
func isRefusal(err error) bool {
	return errors.Is(err, nats.ErrPermissionViolation) || errors.Is(err, nats.ErrMaxSubscriptionsExceeded)
}

// isRefusedPublication reports whether the server refused a publication.
func isRefusedPublication(err error) bool {
	return strings.Contains(strings.ToLower(err.Error()), "permissions violation for publish")
}

// refusedSubject returns the subject that a permissions violation names, or "".
func refusedSubject(err error) string {
	_, rest, _ := strings.Cut(err.Error(), `to "`)
	subject, _, _ := strings.Cut(rest, `"`)
	return subject
}

// refusals counts and remembers the refusals of the server. The methods are safe for concurrent use.
type refusals struct {
	mu     sync.Mutex
	count  uint64
	newest []error // at most maxRefusals
}

const maxRefusals = 64

func (r *refusals) add(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.count++
	r.newest = append(r.newest, err)
	if len(r.newest) > maxRefusals {
		r.newest = slices.Delete(r.newest, 0, 1)
	}
}

func (r *refusals) total() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.count
}

// of returns the newest refusal of a subject after the first count ones, as far as they are remembered, or nil.
func (r *refusals) of(subject string, count uint64) error {
	for _, err := range slices.Backward(r.since(count)) {
		if refusedSubject(err) == subject {
			return err
		}
	}
	return nil
}

// since returns the refusals after the first count ones, as far as they are remembered.
func (r *refusals) since(count uint64) []error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.newest[max(0, len(r.newest)-int(r.count-count)):]) //nolint:gosec // fewer than 1<<63
}

// refusalMark is a moment, after which refusals are looked for.
type refusalMark struct {
	count uint64
	last  error
}

func (s *session) markRefusals() refusalMark {
	return refusalMark{s.refusals.total(), s.conn.LastError()}
}

// awaitRefusals returns the refusals since mark of all that was sent before the last echo. The client library sets its
// last error before it delivers the echo, but calls the error handler from another goroutine a little later. Each
// violation of permissions is an error of its own; too many subscriptions always cause the same one.
func (s *session) awaitRefusals(ctx context.Context, mark refusalMark) []error {
	const interval = time.Millisecond
	last := s.conn.LastError()
	isOld := last == mark.last //nolint:errorlint // the same value
	if last == nil || !isRefusal(last) || isOld && !errors.Is(last, nats.ErrMaxSubscriptionsExceeded) {
		return s.refusals.since(mark.count)
	}
	if isOld { // or a new one, which looks the same
		const atMost = 50 * time.Millisecond
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, atMost)
		defer cancel()
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for s.refusals.total() == mark.count {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
	return s.refusals.since(mark.count)
}

// refusedPublication returns the server's refusal of a publication to a subject since mark, or nil.
func (s *session) refusedPublication(ctx context.Context, subject string, mark refusalMark) error {
	last := s.conn.LastError()
	if last == mark.last || !errors.Is(last, nats.ErrPermissionViolation) { //nolint:errorlint // the same value
		return nil
	}
	if len(s.awaitRefusals(ctx, mark)) == 0 {
		return nil
	}
	return s.refusals.of(subject, mark.count)
}

// errLost is the connection's error if no other is known.
var errLost = errors.New("natsbroker: the connection is lost")

func (s *session) noteError(err error) {
	if err != nil {
		err = fmt.Errorf("natsbroker: %w", s.opt.explain(err))
		s.lastErr.Store(&err)
	}
}

// lastError returns the latest error of the connection.
func (s *session) lastError() error {
	if err := s.lastErr.Load(); err != nil {
		return *err
	}
	return errLost
}

// connectError describes why connecting failed, without secrets, as a permanentError if waiting does not help.
func (o Options) connectError(err error) error {
	wrapped := fmt.Errorf("natsbroker: connect: %w", o.explain(err))
	if isAuthError(err) || errors.Is(err, nats.ErrSecureConnRequired) || errors.Is(err, nats.ErrSecureConnWanted) {
		return permanentError{wrapped}
	}
	if errors.As(err, new(*x509.UnknownAuthorityError)) || errors.As(err, new(x509.HostnameError)) ||
		errors.As(err, new(x509.UnknownAuthorityError)) {
		return permanentError{wrapped}
	}
	return wrapped
}
