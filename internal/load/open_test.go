package load

import (
	"bufio"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
)

func TestOpen_RejectsOptions(t *testing.T) {
	_, err := Open(t.Context(), Options{
		Addr: "nowhere", Connections: 0, Pollers: -1, DialRate: math.NaN(), DialParallel: -1, Stalled: -1,
		LocalAddrs: []string{"here"}, Dialect: Dialect{Path: "/a b", Subprotocol: "a\r\nb"},
	})
	for _, want := range []string{
		`Options.Addr is "nowhere", want host:port`, "Options.Connections is 0", "Options.Pollers is -1",
		"Options.DialRate is NaN", "Options.DialParallel is -1", "Options.Stalled is -1",
		`Options.LocalAddrs is "here", want IP addresses`, `Options.Dialect.Path is "/a b"`,
		`Options.Dialect.Subprotocol is "a\r\nb"`,
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in:\n%v", want, err)
		}
	}
}

func TestOpen_NamesLimitOfOpenFiles(t *testing.T) {
	_, err := Open(t.Context(), Options{Addr: "127.0.0.1:1", Connections: maxConnections})
	want := fmt.Sprintf("raise the open files limit: ulimit -n %d", maxConnections+64)
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("error %v, want %q in it", err, want)
	}
}

func TestOpen_NamesFirstFailure(t *testing.T) {
	eachKind(t, func(t *testing.T, p *peer) {
		p.greetWith(func(c *websocket.Conn, number int) error {
			if number == 3 {
				return c.Close(4003, "Invalid token")
			}
			return p.welcome(c, number)
		})
		o := p.options(5)
		o.DialParallel = 1
		_, err := Open(p.ctx, o)
		var failed *OpenError
		if !errors.As(err, &failed) || failed.Ready != 3 || failed.Failed != 1 || failed.Connections != 5 {
			t.Fatalf("error %#v", err)
		}
		want := "load: 3 of 5 clients became ready, 1 failed: client 3: the server closed the connection with 4003, Invalid token"
		if err.Error() != want {
			t.Errorf("error\n%v, want\n%s", err, want)
		}
	})
}

func TestOpen_WithoutListener(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	secured := newPeer(t, true).options(3)
	for _, o := range []Options{{Connections: 3}, secured} {
		o.Addr = addr
		if _, err := Open(t.Context(), o); err == nil || !strings.Contains(err.Error(), ": connection refused by "+addr) {
			t.Errorf("error %v", err)
		}
	}
}

func TestOpen_WithoutResponseToUpgrade(t *testing.T) {
	for name, c := range map[string]struct{ answer, want string }{
		"refused": {"HTTP/1.1 503 Service Unavailable\r\n\r\ntry again\nlater\n",
			"answered the upgrade with HTTP/1.1 503 Service Unavailable: try again later"},
		"hostile":     {"HTTP/1.1 403 \x1b[31m\r\n\r\n", "with HTTP/1.1 403  [31m"},
		"nonsense":    {"hello\r\n\r\n", "answered the upgrade with hello"},
		"endless":     {strings.Repeat("x", maxAnswerBytes+1), "more than 16384 bytes"},
		"no accept":   {"HTTP/1.1 101 \r\nUpgrade: websocket\r\n\r\n", "wrong Sec-WebSocket-Accept"},
		"broken off":  {"HTTP/1.1 101 ", "ended the connection without a close frame"},
		"subprotocol": {"HTTP/1.1 101 \r\nSec-WebSocket-Accept: KEY\r\n\r\n", `speaks the subprotocol "", want "greet"`},
		"extension": {"HTTP/1.1 101 \r\nsec-websocket-accept:KEY\r\nSec-WebSocket-Extensions: deflate\r\n\r\n",
			"extension that was not asked for"},
	} {
		t.Run(name, func(t *testing.T) {
			addr := rawServer(t, func(conn net.Conn, accept string) {
				_, _ = io.WriteString(conn, strings.ReplaceAll(c.answer, "KEY", accept))
			})
			_, err := Open(t.Context(), Options{Addr: addr, Connections: 1, Dialect: Dialect{Subprotocol: "greet"}})
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.ContainsAny(err.Error(), "\n\x1b") {
				t.Errorf("error %q, want %q in it", err, c.want)
			}
		})
	}
}

// rawServer sends one response to an upgrade. accept is the expected Sec-WebSocket-Accept.
func rawServer(t *testing.T, serve func(conn net.Conn, accept string)) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		if request, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
			serve(conn, acceptOf(request))
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return l.Addr().String()
}

// acceptOf returns Sec-WebSocket-Accept for the key of a request.
func acceptOf(request *http.Request) string {
	sum := sha1.Sum([]byte(request.Header.Get("Sec-WebSocket-Key") + acceptGUID))
	return base64.StdEncoding.EncodeToString(sum[:])
}

func TestOpen_ReadyInSameReadAndInSingleBytes(t *testing.T) {
	const messages = 20
	addr := rawServer(t, func(conn net.Conn, accept string) {
		answer := []byte("HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: " + accept + "\r\n\r\n")
		answer = append(answer, serverFrame(true, opText, []byte("with the answer"))...)
		for i := range messages {
			answer = append(answer, serverFrame(false, opText, make([]byte, i))...)
			answer = append(answer, serverFrame(true, opContinuation, make([]byte, 10*i))...)
		}
		for i := range answer {
			if _, err := conn.Write(answer[i : i+1]); err != nil {
				t.Error(err)
			}
		}
		_, _ = io.Copy(io.Discard, conn) // until the client leaves
	})
	f, err := Open(t.Context(), Options{Addr: addr, Connections: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WaitMessages(t.Context(), messages+1); err != nil {
		t.Fatal(err)
	}
	if n := f.Counts().Messages; n != messages+1 {
		t.Errorf("%d messages, want %d", n, messages+1)
	}
}

func TestOpen_RefusedByMessage(t *testing.T) {
	p := newPeer(t, false)
	p.greetWith(func(c *websocket.Conn, _ int) error { return c.Write(p.ctx, websocket.MessageText, []byte("go away")) })
	o := p.options(1)
	o.Dialect.Refused = func(payload []byte) string { return strings.TrimPrefix(string(payload), "go ") }
	if _, err := Open(p.ctx, o); err == nil || !strings.Contains(err.Error(), "client 0: the server refused: away") {
		t.Errorf("error %v", err)
	}
}

func TestOpen_EndsWithContext(t *testing.T) {
	eachKind(t, func(t *testing.T, p *peer) {
		ctx, cancel := context.WithCancel(p.ctx)
		p.greetWith(func(c *websocket.Conn, number int) error {
			if number == 1 {
				cancel()
				return nil
			}
			return p.welcome(c, number)
		})
		o := p.options(2)
		o.DialParallel = 1
		_, err := Open(ctx, o)
		var failed *OpenError
		if !errors.As(err, &failed) || failed.Ready != 1 || !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
	})
}

func TestOpen_RespectsDialParallel(t *testing.T) {
	eachKind(t, func(t *testing.T, p *peer) {
		var now, most atomic.Int64
		p.greetWith(func(c *websocket.Conn, number int) error {
			n := now.Add(1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			now.Add(-1)
			return p.welcome(c, number)
		})
		o := p.options(40)
		o.DialParallel = 3
		p.open(o)
		if most.Load() > 3 {
			t.Errorf("%d clients were under way at a time", most.Load())
		}
	})
}

// idle is an engine whose clients become ready after a time of their own, or never.
type idle struct {
	fleet  *Fleet
	after  time.Duration
	dialed []time.Time
}

func (e *idle) dial(*client) {
	e.dialed = append(e.dialed, time.Now())
	if e.after > 0 {
		time.AfterFunc(e.after, func() { e.fleet.clientReady(e.after) })
	}
}

func (e *idle) close() {}

func TestOpen_RespectsDialRate(t *testing.T) {
	for between, rate := range map[time.Duration]float64{
		2 * time.Second:   0.5,
		100 * time.Second: 0.01, // longer than patience lasts
	} {
		synctest.Test(t, func(t *testing.T) {
			f := newFleet(Options{Connections: 100, DialRate: rate}.withDefaults())
			e := &idle{fleet: f, after: 3 * time.Second}
			f.engine = e
			begun := time.Now()
			if err := f.open(t.Context()); err != nil {
				t.Fatal(err)
			}
			for i, at := range e.dialed {
				if at.Sub(begun) != time.Duration(i)*between {
					t.Errorf("client %d is dialled after %v", i, at.Sub(begun))
				}
			}
		})
	}
}

func TestOpen_EndsWithoutProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for connections, rate := range map[int]float64{1: 0, 1000: 0, 2: 0.01} {
			f := newFleet(Options{Connections: connections, DialRate: rate}.withDefaults())
			f.engine = &idle{fleet: f}
			begun := time.Now()
			if err := f.open(t.Context()); !errors.Is(err, errNoProgress) || time.Since(begun) != progressTimeout {
				t.Errorf("error %v after %v", err, time.Since(begun))
			}
		}
	})
}
