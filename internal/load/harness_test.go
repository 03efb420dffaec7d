package load

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"
)

// waiting limits the time of a failing test.
const waiting = 30 * time.Second

// peer is a server whose clients send their number and get a confirmation.
type peer struct {
	t   *testing.T
	ctx context.Context
	web *httptest.Server

	mu sync.Mutex // protects the rest
	// greet tells a client that it is welcome.
	greet func(c *websocket.Conn, number int) error
	conns map[int]*websocket.Conn
	heard []string // messages received from clients
	from  []string // the addresses that they have connected from
}

// eachKind runs a test over plain TCP and over TLS, where each client has a goroutine.
func eachKind(t *testing.T, test func(t *testing.T, p *peer)) {
	t.Run("plain", func(t *testing.T) { test(t, newPeer(t, false)) })
	t.Run("TLS", func(t *testing.T) { test(t, newPeer(t, true)) })
}

func newPeer(t *testing.T, secured bool) *peer {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), waiting)
	p := &peer{t: t, ctx: ctx, conns: make(map[int]*websocket.Conn)}
	p.greet = p.welcome
	p.web = httptest.NewUnstartedServer(p)
	if secured {
		p.web.StartTLS()
	} else {
		p.web.Start()
	}
	t.Cleanup(func() {
		cancel()
		p.web.Close()
	})
	return p
}

func (p *peer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"greet"}})
	if err != nil {
		return // the client's test sees it
	}
	defer c.CloseNow() //nolint:errcheck // closed already, usually
	_, hello, err := c.Read(p.ctx)
	if err != nil {
		return
	}
	number, err := strconv.Atoi(strings.TrimPrefix(string(hello), "I am "))
	p.mu.Lock()
	greet := p.greet
	p.mu.Unlock()
	if err != nil || greet(c, number) != nil {
		return
	}
	p.mu.Lock()
	p.conns[number] = c
	p.from = append(p.from, r.RemoteAddr)
	p.mu.Unlock()
	for {
		_, text, err := c.Read(p.ctx)
		if err != nil {
			return
		}
		p.mu.Lock()
		p.heard = append(p.heard, string(text))
		p.mu.Unlock()
	}
}

func (p *peer) welcome(c *websocket.Conn, _ int) error {
	return c.Write(p.ctx, websocket.MessageText, []byte("welcome"))
}

// greetWith puts a function in the place of welcome.
func (p *peer) greetWith(greet func(c *websocket.Conn, number int) error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.greet = greet
}

// options are those of a fleet for this server.
func (p *peer) options(connections int) Options {
	o := Options{
		Addr:        p.web.Listener.Addr().String(),
		Connections: connections,
		Pollers:     2,
		Dialect: Dialect{
			Path:        "/ws?a=b",
			Subprotocol: "greet",
			Hello:       func(i int) [][]byte { return [][]byte{[]byte("I am " + strconv.Itoa(i))} },
			Ready:       func(payload []byte) bool { return string(payload) == "welcome" },
		},
	}
	if certificate := p.web.Certificate(); certificate != nil {
		o.TLS = &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "example.com"}
		o.TLS.RootCAs.AddCert(certificate)
	}
	return o
}

// open opens a fleet and waits until the server knows all of it.
func (p *peer) open(o Options) *Fleet {
	p.t.Helper()
	f, err := Open(p.ctx, o)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(f.Close)
	p.waitFor(func() bool { return len(p.conns) == o.Connections })
	return f
}

// waitFor waits for a condition on fields that the lock protects.
func (p *peer) waitFor(condition func() bool) {
	p.t.Helper()
	for {
		p.mu.Lock()
		met := condition()
		p.mu.Unlock()
		if met {
			return
		}
		select {
		case <-p.ctx.Done():
			p.t.Fatal("the condition does not come true")
		case <-time.After(time.Millisecond):
		}
	}
}

// each calls fn for every client.
func (p *peer) each(fn func(number int, c *websocket.Conn)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for number, c := range p.conns {
		fn(number, c)
	}
}

// send sends a message to every client.
func (p *peer) send(text string) {
	p.t.Helper()
	p.each(func(number int, c *websocket.Conn) {
		if err := c.Write(p.ctx, websocket.MessageText, []byte(text)); err != nil {
			p.t.Errorf("sending to client %d: %v", number, err)
		}
	})
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
