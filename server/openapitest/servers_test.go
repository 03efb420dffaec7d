package openapitest

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"
)

// serve runs a server until the test ends and returns its URL.
func serve(t *testing.T, b broker.Broker, change func(*server.Options)) string {
	t.Helper()
	m, err := manager.New(manager.Options{Broker: b})
	if err != nil {
		t.Fatal(err)
	}
	opt := server.Options{
		Manager: m, Identify: func(*http.Request) (server.Identity, error) { return server.Identity{UserID: "ann"}, nil },
		Authorize: server.AuthorizeOpen, APIKeys: []string{"key"},
	}
	change(&opt)
	s, err := server.New(opt)
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(late{s.Handler()})
	t.Cleanup(func() {
		web.Close()
		if err := errors.Join(s.Close(context.Background()), m.Close(context.Background())); err != nil {
			t.Error(err)
		}
		http.DefaultClient.CloseIdleConnections()
	})
	return web.URL
}

// lateBody is the header field of a request whose body does not arrive in time.
const lateBody = "Late-Body"

// late lets bodies arrive too late that a request asks for.
type late struct{ http.Handler }

func (l late) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get(lateBody) != "" {
		r.Body = io.NopCloser(iotest.ErrReader(os.ErrDeadlineExceeded))
	}
	l.Handler.ServeHTTP(w, r)
}

// failing is a broker that is connected, and every other call of which fails with an error.
type failing struct {
	broker.IdempotentBroker
	err error
	// connected is closed when the node has connected.
	connected chan struct{}
}

func newFailing(err error) *failing {
	return &failing{broker.NewMemory(broker.MemoryOptions{}).Node(), err, make(chan struct{})}
}

func (f *failing) Run(ctx context.Context, h broker.Handler) error {
	return f.IdempotentBroker.Run(ctx, &noticing{Handler: h, connected: f.connected})
}

func (f *failing) Publish(context.Context, string, []byte) error { return f.err }

func (f *failing) Store(context.Context, string, []byte) (broker.Position, error) {
	return broker.Position{}, f.err
}

func (f *failing) History(context.Context, string, broker.Position) (broker.Snapshot, error) {
	return broker.Snapshot{}, f.err
}

func (f *failing) Newest(context.Context, string) (broker.Snapshot, error) {
	return broker.Snapshot{}, f.err
}

func (f *failing) Forget(context.Context, string) error { return f.err }

// noticing is a Handler that tells when the broker is healthy.
type noticing struct {
	broker.Handler
	once      sync.Once
	connected chan struct{}
}

func (n *noticing) Health(err error) {
	n.Handler.Health(err)
	if err == nil {
		n.once.Do(func() { close(n.connected) })
	}
}

// plain is a broker that does not know keys.
type plain struct{ broker.HistoryBroker }
