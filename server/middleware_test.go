package server_test

import (
	"bufio"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"
)

// hijacking is a response writer of a middleware that decides about the connection.
type hijacking struct {
	http.ResponseWriter
	hijack func(net.Conn, *bufio.ReadWriter) (net.Conn, *bufio.ReadWriter)
}

func (h hijacking) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	conn, rw = h.hijack(conn, rw)
	return conn, rw, nil
}

// panicking is a connection with a bug. Closing it works.
type panicking struct{ net.Conn }

func (panicking) Read([]byte) (int, error)         { panic("a connection with a bug") }
func (panicking) Write([]byte) (int, error)        { panic("a connection with a bug") }
func (panicking) SetWriteDeadline(time.Time) error { panic("a connection with a bug") }
func (panicking) Underlying() net.Conn             { panic("a connection with a bug") }

// mountHijacking mounts a node whose connections all come from one address and go through hijack.
func mountHijacking(
	t *testing.T, hijack func(net.Conn, *bufio.ReadWriter) (net.Conn, *bufio.ReadWriter),
) *mounted {
	return mount(t, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(hijacking{w, hijack}, r) })
	}, func(srv *httptest.Server) {
		srv.Config.ErrorLog = log.New(io.Discard, "", 0) // net/http logs panics
		srv.Start()
	}, func(_ *manager.Options, o *server.Options) {
		o.MaxConnections, o.MaxConnectionsPerIP = 1, 1
		o.CloseTimeout = 50 * time.Millisecond
	})
}

// A panic of a middleware or of its connection ends the connection and takes no place: the next client gets the only
// one that there is, by its address too.
func TestServer_PanicOfMiddlewareTakesNoPlace(t *testing.T) {
	for name, hijack := range map[string]func(net.Conn, *bufio.ReadWriter) (net.Conn, *bufio.ReadWriter){
		"hijacker":      func(net.Conn, *bufio.ReadWriter) (net.Conn, *bufio.ReadWriter) { panic("a middleware with a bug") },
		"connection":    func(c net.Conn, rw *bufio.ReadWriter) (net.Conn, *bufio.ReadWriter) { return panicking{c}, rw },
		"no connection": func(net.Conn, *bufio.ReadWriter) (net.Conn, *bufio.ReadWriter) { return nil, nil },
	} {
		for _, path := range []string{"/ws/uploads", "/events/uploads/a"} {
			t.Run(name+path, func(t *testing.T) {
				taken := make(chan net.Conn, 1)
				m := mountHijacking(t, func(c net.Conn, rw *bufio.ReadWriter) (net.Conn, *bufio.ReadWriter) {
					taken <- c
					return hijack(c, rw)
				})
				m.host = m.http.Listener.Addr().String()
				for range 2 {
					e := m.exchange(t)
					e.send("GET " + path + " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ann\r\n" + goodHandshake + "\r\n")
					conn := <-taken
					waitFor(t, func() bool { s := m.server.Stats(); return s.Open == 0 && s.OpenByTransport.SSE == 0 })
					if name != "connection" { // the middleware has lost it
						_ = conn.Close()
					}
					if n, err := e.reader.WriteTo(io.Discard); err != nil || n != 0 {
						t.Errorf("read %d bytes and %v, want the end of the connection", n, err)
					}
				}
			})
		}
	}
}

// A middleware may give the connection without a buffer.
func TestUpgrade_HijackerWithoutBuffer(t *testing.T) {
	for name, buffer := range map[string]*bufio.ReadWriter{"none": nil, "empty": {}} {
		t.Run(name, func(t *testing.T) {
			m := mountHijacking(t, func(c net.Conn, _ *bufio.ReadWriter) (net.Conn, *bufio.ReadWriter) { return c, buffer })
			m.host = m.http.Listener.Addr().String()
			m.login("ann")
		})
	}
}
