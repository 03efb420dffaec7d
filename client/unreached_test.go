package client_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/shoal/client"
)

// wrongServer is a server that clients reach and cannot use. It returns its URL and the configuration of TLS of a client
// that trusts it.
func wrongServer(t *testing.T, change func(*httptest.Server), withTLS bool) (*url.URL, *tls.Config) {
	t.Helper()
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	if change != nil {
		change(s)
	}
	trusting := &tls.Config{MinVersion: tls.VersionTLS12}
	if withTLS {
		s.StartTLS()
		trusting.RootCAs = x509.NewCertPool()
		trusting.RootCAs.AddCert(s.Certificate())
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	return u, trusting
}

// says is a listener of a server of another protocol, which answers whatever comes first with a text. A text that comes
// before the request ends the connection for another reason.
type says struct {
	net.Listener
	text string
}

func (l says) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		_, _ = conn.Read(make([]byte, 1))
		_, _ = io.WriteString(conn, l.text)
		_ = conn.(*net.TCPConn).CloseWrite()
		_, _ = io.Copy(io.Discard, conn)
		_ = conn.Close()
	}
}

func answersWith(text string) func(*httptest.Server) {
	return func(s *httptest.Server) { s.Listener = says{s.Listener, text} }
}

// An error that another attempt would meet again ends Publish and Follow at once, and names the remedy.
func TestUnreached_WrongAddressIsFinal(t *testing.T) {
	newTLS := func(s *httptest.Server) { s.TLS = &tls.Config{MinVersion: tls.VersionTLS13} }
	for name, c := range map[string]struct {
		server func(*httptest.Server)
		tls    bool
		change func(u *url.URL, config *tls.Config)
		want   string
	}{
		"https for http": {nil, false, func(u *url.URL, _ *tls.Config) { u.Scheme = "https" }, "use http:// in the URL"},
		"http for https": {nil, true, func(u *url.URL, _ *tls.Config) { u.Scheme = "http" }, "HTTP request to an HTTPS server"},
		"alert for http": {answersWith("\x15\x03\x01\x00\x02\x02\x28"), false, nil, "use https:// in the URL, or another port"},
		"ssh for http":   {answersWith("SSH-2.0-OpenSSH\r\n"), false, nil, "does not speak HTTP on this port"},
		"ssh for https": {
			answersWith("SSH-2.0-OpenSSH\r\n"), false, func(u *url.URL, _ *tls.Config) { u.Scheme = "https" },
			"does not use TLS on this port",
		},
		"unknown authority": {nil, true, func(_ *url.URL, c *tls.Config) { c.RootCAs = x509.NewCertPool() }, "trust the authority"},
		"another host": {
			nil, true, func(_ *url.URL, c *tls.Config) { c.ServerName = "shoal.test" }, "use a host of the server's certificate",
		},
		"not valid any more": {
			nil, true, func(_ *url.URL, c *tls.Config) {
				c.Time = func() time.Time { return time.Date(2300, 1, 1, 0, 0, 0, 0, time.UTC) }
			}, "renew the server's certificate",
		},
		"version of TLS": {
			newTLS, true, func(_ *url.URL, c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }, "another version of TLS",
		},
		"wrong path": {nil, false, func(u *url.URL, _ *tls.Config) { u.Path = "/prefix" }, "404 page not found"},
	} {
		t.Run(name, func(t *testing.T) {
			u, config := wrongServer(t, c.server, c.tls)
			if c.change != nil {
				c.change(u, config)
			}
			transport := &http.Transport{TLSClientConfig: config}
			t.Cleanup(transport.CloseIdleConnections)
			own, err := client.New(u.String(), client.Options{
				APIKey: "key", Token: func(context.Context) (string, error) { return "ann", nil },
				HTTPClient: &http.Client{Transport: transport},
				OnRetry:    func(err error, _ time.Duration) { t.Errorf("tried again after %v", err) },
				OnState: func(s client.State) {
					if s.Status == client.Waiting {
						t.Errorf("tried again after %v", s.Err)
					}
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = own.Close() })
			_, published := own.Publish(t.Context(), "u", 1)
			_, followed := follow(t, own, "u").next()
			for _, err := range []error{published, followed} {
				if err == nil || errors.Is(err, client.ErrUnreachable) || !strings.Contains(err.Error(), c.want) {
					t.Errorf("ended with %v, want at once %q", err, c.want)
				}
			}
		})
	}
}

// garbled is a connection on which something else than HTTP comes.
type garbled struct{ net.Conn }

func (garbled) Read(p []byte) (int, error) { return copy(p, "SSH-2.0-OpenSSH\r\n"), nil }

// An address at which the server has accepted messages was right: another server that answers there is tried again.
func TestUnreached_AddressThatWasRightIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t)
		c := p.client()
		if _, err := c.Publish(t.Context(), "u", []byte(`{"action":"note","n":1}`)); err != nil {
			t.Fatal(err)
		}
		p.mu.Lock()
		p.wrap = func(c net.Conn) net.Conn { return garbled{c} }
		p.mu.Unlock()
		p.cut()
		time.AfterFunc(5*time.Second, func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.wrap = nil
		})
		if at, err := c.Publish(t.Context(), "u", []byte(`{"action":"note","n":2}`)); err != nil || at.Offset != 2 {
			t.Errorf("published at %+v, %v", at, err)
		}
	})
}
