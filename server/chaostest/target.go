package chaostest

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Target is a server and the way to use it. Exactly one of URL, Handler and Serve is required; the other fields have
// documented defaults.
type Target struct {
	// URL is the WebSocket endpoint of a running server: ws:// or wss://.
	URL string
	// Handler is served on the loopback interface by an http.Server without any limits of its own.
	Handler http.Handler
	// Serve serves a listener on the loopback interface until the listener is closed, like server.Server.Serve.
	Serve func(net.Listener) error
	// Path is the path of the endpoint with Handler and Serve. "": /ws/uploads.
	Path string
	// TLS is the configuration of clients of a wss URL. nil: the certificate is not verified.
	TLS *tls.Config

	// Clients is the number of attackers. 0: 8.
	Clients int
	// Watch is how long an attack lasts at most. 0: 30 s. It should exceed the server's idle timeout.
	Watch time.Duration
	// First is the message that a client sends first, usually to authenticate; nil: none.
	First []byte
	// Subprotocol is requested with the upgrade. "": none.
	Subprotocol string
	// Message, Subscribe, Resume and Token return the messages with which an attacker sends something that changes
	// nothing, subscribes, recovers and renews its token for the n-th time. nil: the messages of Shoal's protocol, with
	// tokens that are refused.
	Message, Subscribe, Resume, Token func(n int) []byte
	// Publish publishes the n-th message to the upload of Subscribe(0). It is called 200 times a second during an
	// attack; a message of some kilobytes fills the queues of clients that do not read. Different text
	// messages of at least 1 KiB that a well-behaved follower receives are counted as published ones. nil: nothing is
	// published.
	Publish func(n int) error
	// Process is the id of the server's process, whose memory, processor time and descriptors are then measured on Linux.
	// 0: they are not.
	Process int
}

// Limits of one attack, against wrong values.
const (
	maxClients = 10_000
	maxWatch   = time.Hour
)

// withDefaults returns the target with its defaults, or an error that names an invalid field.
func (t Target) withDefaults() (Target, error) {
	given := 0
	for _, is := range []bool{t.URL != "", t.Handler != nil, t.Serve != nil} {
		if is {
			given++
		}
	}
	switch {
	case given != 1:
		return t, errors.New("chaostest: exactly one of Target.URL, Target.Handler and Target.Serve must be set")
	case t.Clients < 0 || t.Clients > maxClients:
		return t, fmt.Errorf("chaostest: Target.Clients is %d, want 0 (8) to %d", t.Clients, maxClients)
	case t.Watch < 0 || t.Watch > maxWatch:
		return t, fmt.Errorf("chaostest: Target.Watch is %v, want 0 (30s) to %v", t.Watch, maxWatch)
	}
	if t.Path == "" {
		t.Path = "/ws/uploads"
	}
	if t.Clients == 0 {
		t.Clients = 8
	}
	if t.Watch == 0 {
		t.Watch = 30 * time.Second
	}
	if t.TLS == nil {
		t.TLS = &tls.Config{InsecureSkipVerify: true} //nolint:gosec // documented: attackers trust everybody
	}
	if t.Message == nil {
		t.Message = func(int) []byte { return []byte(`{"action":"pong"}`) }
	}
	if t.Subscribe == nil {
		t.Subscribe = func(n int) []byte {
			return fmt.Appendf(nil, `{"action":"subscribe_upload","upload_id":"chaos-%d"}`, n)
		}
	}
	if t.Resume == nil {
		t.Resume = defaultResume
	}
	if t.Token == nil {
		t.Token = func(n int) []byte { return fmt.Appendf(nil, `{"type":"auth","token":"chaos-%d"}`, n) }
	}
	return t, nil
}

// defaultResume returns a message that recovers 100 uploads.
func defaultResume(n int) []byte {
	const uploads = 100
	text := []byte(`{"action":"resume","uploads":{`)
	for i := range uploads {
		if i > 0 {
			text = append(text, ',')
		}
		text = fmt.Appendf(text, `"chaos-%d-%d":{"epoch":"e","offset":%d}`, n, i, i)
	}
	return append(text, "}}"...)
}

// start makes the server reachable and returns its URL and a function that reverts start.
func (t Target) start() (endpoint *url.URL, stop func(), err error) {
	if t.URL != "" {
		endpoint, err = url.Parse(t.URL)
		if err == nil && endpoint.Scheme != "ws" && endpoint.Scheme != "wss" {
			err = fmt.Errorf("chaostest: Target.URL has the scheme %q, want ws or wss", endpoint.Scheme)
		}
		return endpoint, func() {}, err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	served := make(chan struct{})
	stop = func() {
		_ = ln.Close()
		<-served
	}
	if t.Handler != nil {
		srv := &http.Server{Handler: t.Handler} //nolint:gosec // documented: without limits
		stop = func() {
			_ = srv.Close()
			<-served
		}
		t.Serve = srv.Serve
	}
	go func() {
		defer close(served)
		_ = t.Serve(ln) // ends with the listener
	}()
	return &url.URL{Scheme: "ws", Host: ln.Addr().String(), Path: t.Path}, stop, nil
}

// dial opens a TCP connection, with TLS for a wss endpoint.
func dial(ctx context.Context, t Target, endpoint *url.URL) (net.Conn, *net.TCPConn, error) {
	host := endpoint.Host
	if endpoint.Port() == "" {
		host = net.JoinHostPort(endpoint.Hostname(), map[string]string{"ws": "80", "wss": "443"}[endpoint.Scheme])
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", host)
	if err != nil {
		return nil, nil, err
	}
	socket := conn.(*net.TCPConn) // of the network "tcp"
	if endpoint.Scheme != "wss" {
		return conn, socket, nil
	}
	cfg := t.TLS.Clone()
	if cfg.ServerName == "" {
		cfg.ServerName = endpoint.Hostname()
	}
	return tls.Client(conn, cfg), socket, nil
}

// handshake returns the request of an upgrade.
func handshake(t Target, endpoint *url.URL) string {
	request := "GET " + endpoint.RequestURI() + " HTTP/1.1\r\nHost: " + endpoint.Host +
		"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" +
		"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
	if t.Subprotocol != "" {
		request += "Sec-WebSocket-Protocol: " + t.Subprotocol + "\r\n"
	}
	return request + "\r\n"
}

// readAnswer reads the answer to an upgrade. A status other than 101 is a refusal.
func readAnswer(r *bufio.Reader) error {
	response, err := http.ReadResponse(r, nil)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode == http.StatusSwitchingProtocols {
		return nil
	}
	text, _ := io.ReadAll(io.LimitReader(response.Body, 200))
	return &refusal{fmt.Sprintf("HTTP %d %s", response.StatusCode, strings.TrimSpace(string(text)))}
}

// refusal is an answer of the server that ends an attack.
type refusal struct{ text string }

func (r *refusal) Error() string { return r.text }
