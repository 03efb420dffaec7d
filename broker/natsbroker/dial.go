package natsbroker

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/shoal-go/shoal/broker"
)

// dialer makes connections that ctx ends.
type dialer struct {
	ctx     context.Context
	timeout time.Duration
}

// Dial connects.
func (d dialer) Dial(network, address string) (net.Conn, error) {
	return (&net.Dialer{Timeout: d.timeout}).DialContext(d.ctx, network, address)
}

// dial makes one attempt to connect. The error is hopeless if another would end the same way.
func dial(ctx context.Context, opt Options, h broker.Handler) (*session, error) {
	s := &session{
		opt:      opt,
		handler:  h,
		follows:  newFollows(),
		arrivals: make(chan *nats.Msg, opt.PendingMessages),
		turned:   make(chan struct{}, 1),
		cut:      make(chan struct{}, 1),
		probe:    probePrefix + rand.Text(),
		stop:     make(chan struct{}),
		closed:   make(chan struct{}),
	}
	conn, err := nats.Connect(opt.URL, append(opt.connection(), s.callbacks(ctx)...)...)
	if err != nil {
		return nil, connectError(err)
	}
	s.conn = conn
	return s, nil
}

// flushTimeout is how long a write may take before the connection counts as lost.
const flushTimeout = time.Second

// connection returns the options of the connection itself. Nothing is buffered while it is lost: who wants to
// publish then gets an error.
func (o Options) connection() []nats.Option {
	options := []nats.Option{
		nats.Name(o.Name),
		nats.Timeout(o.ConnectTimeout),
		nats.MaxReconnects(-1),
		nats.ReconnectBufSize(-1),
		nats.CustomReconnectDelay(waitBefore),
		nats.IgnoreAuthErrorAbort(),
		nats.FlusherTimeout(flushTimeout),
		// A way that swallows everything is left as soon as the keeper says that nothing comes through.
		nats.PingInterval(o.ProbeInterval),
		nats.MaxPingsOutstanding(patience - 1),
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
	if o.TLS != nil {
		options = append(options, nats.Secure(o.TLS))
	}
	return options
}

// callbacks returns what the connection calls. None of it waits.
func (s *session) callbacks(ctx context.Context) []nats.Option {
	return []nats.Option{
		nats.SetCustomDialer(dialer{ctx, s.opt.ConnectTimeout}),
		nats.ClosedHandler(func(*nats.Conn) { close(s.closed) }),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			s.cuts.Add(1)
			s.noteTrouble(err)
			select {
			case s.cut <- struct{}{}:
			default:
			}
			s.turn()
		}),
		nats.ReconnectHandler(func(*nats.Conn) { s.turn() }),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) { s.noteTrouble(err) }),
		nats.ErrorHandler(func(_ *nats.Conn, subscription *nats.Subscription, err error) {
			if errors.Is(err, nats.ErrSlowConsumer) && subscription != nil {
				s.follows.lose(subscription)
				s.lost.Add(1)
				return
			}
			s.noteTrouble(err)
			s.opt.Logger.Warn("NATS connection", "error", err)
		}),
	}
}

// errLost is what is the matter with the connection if nothing else is known.
var errLost = errors.New("natsbroker: the connection is lost")

func (s *session) noteTrouble(err error) {
	if err != nil {
		err = fmt.Errorf("natsbroker: %w", err)
		s.latest.Store(&err)
	}
}

// trouble returns what went wrong last with the connection.
func (s *session) trouble() error {
	if err := s.latest.Load(); err != nil {
		return *err
	}
	return errLost
}

// connectError says why connecting failed, without secrets, and whether waiting helps.
func connectError(err error) error {
	wrapped := fmt.Errorf("natsbroker: connect: %w", err)
	for _, wrong := range []error{
		nats.ErrAuthorization, nats.ErrAuthExpired, nats.ErrAuthRevoked, nats.ErrAccountAuthExpired,
		nats.ErrSecureConnRequired, nats.ErrSecureConnWanted, nats.ErrNkeysNotSupported,
	} {
		if errors.Is(err, wrong) {
			return hopeless{wrapped}
		}
	}
	if strings.Contains(strings.ToLower(err.Error()), "authorization violation") {
		return hopeless{wrapped}
	}
	if errors.As(err, new(*x509.UnknownAuthorityError)) || errors.As(err, new(x509.HostnameError)) ||
		errors.As(err, new(x509.UnknownAuthorityError)) {
		return hopeless{wrapped}
	}
	return wrapped
}
