package fuzz_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/shoal-go/shoal/internal/wsframe"
	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const apiKey = "fuzz-key"

const (
	// forever exceeds the duration of every run, so that no verdict depends on how fast the machine is.
	forever = 1000 * time.Hour
	// patience is how long the process may run before a missing answer counts as a hang.
	patience = 30 * time.Second
)

// afterRunning calls fn once the process has run for d, unless stop is called before. Time in which the process or the
// machine is frozen does not count.
func afterRunning(d time.Duration, fn func()) (stop func()) {
	const step = 100 * time.Millisecond
	var stopped atomic.Bool
	var pass func(left time.Duration)
	pass = func(left time.Duration) {
		switch {
		case stopped.Load():
		case left <= 0:
			fn()
		default:
			time.AfterFunc(step, func() { pass(left - step) })
		}
	}
	pass(d)
	return func() { stopped.Store(true) }
}

// A target is a running server. Its listener is a Unix socket, because a fuzzer uses up TCP ports within seconds; the
// server reads and writes both in the same way.
type target struct {
	manager *manager.Manager
	server  *server.Server
	address string
	// secure: the server speaks TLS.
	secure bool
}

// start returns a server that accepts the token "user-NAME" for the user NAME, and lets everybody follow uploads
// whose id begins with "open". Messages that are not the protocol's are returned.
func start(tb testing.TB) *target { return startOn(tb, false) }

// startTLS returns a server that speaks TLS.
func startTLS(tb testing.TB) *target { return startOn(tb, true) }

func startOn(tb testing.TB, secure bool) *target {
	tb.Helper()
	m, err := manager.New(manager.Options{HistoryTTL: forever})
	if err != nil {
		tb.Fatal(err)
	}
	s, err := server.New(server.Options{
		Manager: m,
		Authenticate: func(_ context.Context, token string) (server.Identity, error) {
			name, ok := strings.CutPrefix(token, "user-")
			if !ok {
				return server.Identity{}, &server.TokenError{Message: "Invalid token"}
			}
			return server.Identity{UserID: name}, nil
		},
		Authorize: func(_ context.Context, _ server.Identity, uploadID string) error {
			if strings.HasPrefix(uploadID, "open") {
				return nil
			}
			return server.ErrForbidden
		},
		OnMessage: func(c *server.Client, m server.Incoming) bool {
			own := bytes.HasPrefix(m.Data, []byte("speaker-"))
			if own {
				c.SendText(m.Data)
			}
			return own
		},
		APIKeys:     []string{apiKey},
		AuthTimeout: forever, HookTimeout: forever, IdleTimeout: forever, QueueAge: forever,
		PingInterval: time.Second, CloseTimeout: 200 * time.Millisecond,
	})
	if err != nil {
		tb.Fatal(err)
	}
	folder, err := os.MkdirTemp("", "shoal-fuzz")
	if err != nil {
		tb.Fatal(err)
	}
	listener, err := net.Listen("unix", filepath.Join(folder, "s"))
	if err != nil {
		tb.Fatal(err)
	}
	address := listener.Addr().String()
	if secure {
		own := httptest.NewTLSServer(nil)
		listener = tls.NewListener(listener, &tls.Config{Certificates: own.TLS.Certificates})
		own.Close()
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(listener) }()
	tb.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		defer afterRunning(patience, cancel)()
		if err := errors.Join(s.Close(ctx), m.Close(ctx), os.RemoveAll(folder)); err != nil {
			tb.Error(err)
		}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			tb.Error(err)
		}
	})
	return &target{manager: m, server: s, address: address, secure: secure}
}

// dial opens a connection that has sent nothing yet. The test fails if the connection outlasts patience.
func (s *target) dial(tb testing.TB) *net.UnixConn {
	tb.Helper()
	conn, err := net.Dial("unix", s.address)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(afterRunning(patience, func() {
		tb.Errorf("a connection has neither its answer nor an end after %v", patience)
		_ = conn.SetDeadline(time.Unix(1, 0))
	}))
	return conn.(*net.UnixConn) // of the network "unix"
}

const upgradeRequest = "GET /ws/uploads HTTP/1.1\r\nHost: s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"

// upgrade opens a WebSocket.
func (s *target) upgrade(tb testing.TB, subprotocol string) *socket {
	tb.Helper()
	var conn clientConn = s.dial(tb)
	if s.secure {
		raw := conn.(*net.UnixConn) // from dial
		conn = tlsConn{tls.Client(raw, &tls.Config{InsecureSkipVerify: true}), raw}
	}
	request := upgradeRequest
	if subprotocol != "" {
		request += "Sec-WebSocket-Protocol: " + subprotocol + "\r\n"
	}
	if _, err := io.WriteString(conn, request+"\r\n"); err != nil {
		tb.Fatal(err)
	}
	reader := bufio.NewReader(conn)
	response, err := http.ReadResponse(reader, nil)
	if err != nil {
		tb.Fatal(err)
	}
	_ = response.Body.Close()
	if response.StatusCode != http.StatusSwitchingProtocols {
		tb.Fatalf("upgrade: %s", response.Status)
	}
	return &socket{clientConn: conn, reader: reader}
}

// A socket is the client's side of a WebSocket.
type socket struct {
	clientConn
	reader *bufio.Reader
}

// clientConn is the client's side of a connection, with or without TLS.
type clientConn interface {
	net.Conn
	CloseWrite() error
}

// text returns the frame of a client's text message, masked with zeros.
func text(payload string) []byte {
	return wsframe.AppendMasked(nil, wsframe.Text, [4]byte{}, []byte(payload))
}

// next reads a frame of the server's and returns its opcode and payload.
func (s *socket) next() (opcode byte, payload []byte, err error) {
	f, err := wsframe.Read(s.reader, 1<<20)
	if err == nil && (f.First&0xf0 != 0x80 || f.Masked) {
		err = errors.New("the server sent an invalid frame header")
	}
	return f.Opcode(), f.Payload, err
}

// nothingLeft fails the test unless every connection ends and leaves nothing in the registry.
func (s *target) nothingLeft(t *testing.T) {
	t.Helper()
	var late atomic.Bool
	defer afterRunning(patience, func() { late.Store(true) })()
	for s.server.Stats().Open != 0 {
		if late.Load() {
			t.Fatalf("%d connections are still open", s.server.Stats().Open)
		}
		runtime.Gosched()
	}
	if stats := s.manager.Stats(); stats.Connections != 0 || stats.Users != 0 || stats.Subscriptions != 0 {
		t.Errorf("left behind: %+v", stats)
	}
}
