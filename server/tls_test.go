package server_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"
)

// dribblingConn sends each byte by itself and lets other goroutines run in between, so that the server sees TLS records
// in all states of incompleteness.
type dribblingConn struct{ net.Conn }

func (c dribblingConn) Write(p []byte) (n int, err error) {
	for i := range p {
		if n, err := c.Conn.Write(p[i : i+1]); err != nil {
			return i + n, err
		}
		runtime.Gosched()
	}
	return len(p), nil
}

// joiningConn sends the bytes written while join is set in one piece with the following ones.
type joiningConn struct {
	net.Conn
	join   bool
	joined []byte
}

func (c *joiningConn) Write(p []byte) (int, error) {
	c.joined = append(c.joined, p...)
	if c.join {
		return len(p), nil
	}
	_, err := c.Conn.Write(c.joined)
	c.joined = nil
	return len(p), err
}

// TestTLSListener_ReadsRecordsThatArriveTogether: each of several records that one read of the socket returns is
// handled, although no further input is reported.
func TestTLSListener_ReadsRecordsThatArriveTogether(t *testing.T) {
	n := startTLS(t, withoutPings)
	var below *joiningConn
	n.dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
		below = &joiningConn{Conn: conn}
		return tls.Client(below, &tls.Config{InsecureSkipVerify: true}), err
	}
	c := n.raw(t, v1Header())
	c.enter("u")
	const records = 10 // fewer than the pongs that may wait
	for i := range records {
		below.join = i < records-1
		c.write(0x89, fmt.Sprint(i))
	}
	for i := range records {
		if first, payload := c.read(); first != 0x8A || payload != fmt.Sprint(i) {
			t.Fatalf("got %#x %q, want the pong to ping %d", first, payload, i)
		}
	}
}

// TestTLSListener_ClientsThatStopReading: the messages that a client's socket does not take wait until it reads on, and
// delay nobody; a server that closes does not wait for a client that reads nothing at all.
func TestTLSListener_ClientsThatStopReading(t *testing.T) {
	n := startTLS(t, withoutPings, func(m *manager.Options, o *server.Options) {
		o.QueueMessages, o.QueueBytes, o.QueueAge = 1<<20, 1<<30, time.Hour
	})
	slow, stuck, reader := n.raw(t, v1Header()), n.raw(t, v1Header()), n.raw(t, v1Header())
	for name, c := range map[string]*raw{"slow": slow, "stuck": stuck, "reader": reader} {
		c.enter(name)
		c.write(0x81, `{"action":"subscribe_upload","upload_id":"a"}`)
		c.read()
	}
	pad := strings.Repeat("x", 16<<10)
	publish := func(i int) {
		n.publishJSON("a", fmt.Sprintf(`{"action":"note","n":%d,"pad":"%s"}`, i, pad))
		if _, payload := reader.read(); !strings.Contains(payload, fmt.Sprintf(`"n":%d,`, i)) {
			t.Fatalf("got %.80s, want message %d", payload, i)
		}
	}
	published := 0
	for ; n.server.Stats().Stalled < 2; published++ { // the kernel takes some megabytes first
		publish(published)
	}
	for range 100 {
		publish(published)
		published++
	}
	for i := range published {
		if _, payload := slow.read(); !strings.Contains(payload, fmt.Sprintf(`"n":%d,`, i)) {
			t.Fatalf("got %.80s, want message %d", payload, i)
		}
	}
	waitFor(t, func() bool { return n.server.Stats().Stalled == 1 })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	closed := make(chan error, 1)
	go func() { closed <- n.server.Close(ctx) }()
	if first, payload := slow.read(); first != 0x81 || !strings.Contains(payload, "reconnect") {
		t.Errorf("got %#x %q, want reconnect", first, payload)
	}
	if first, payload := slow.read(); first != 0x88 || payload != "\x03\xf4Server reloading" {
		t.Errorf("got %#x %q, want a close frame", first, payload)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
}

// withoutPings keeps pings out of the way of a slow test.
func withoutPings(_ *manager.Options, o *server.Options) {
	o.PingInterval, o.IdleTimeout = time.Hour, 2*time.Hour
}

// dialDribbling returns a dialer for TLS over dribbling connections.
func dialDribbling(t *testing.T) func(ctx context.Context, network, address string) (net.Conn, error) {
	t.Helper()
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return tls.Client(dribblingConn{conn}, &tls.Config{InsecureSkipVerify: true}), nil
	}
}

// TestTLSListener_ReadsRecordsInAnyPieces: records that arrive byte by byte, several messages in one record, and a
// message in several records are read as they would be without TLS.
func TestTLSListener_ReadsRecordsInAnyPieces(t *testing.T) {
	n := startTLS(t, withoutPings)
	n.dial = dialDribbling(t)
	c := n.raw(t, v1Header())
	c.enter("u")
	for _, pieces := range [][]string{
		{"\x89\x84\x00\x00\x00\x00ping"},
		{"\x89\x84\x00\x00\x00\x00one1\x89\x84\x00\x00\x00\x00two2\x89\x84\x00\x00\x00\x00thr3"},
		{"\x89\x84\x00", "\x00\x00\x00in", " 2"},
	} {
		for _, piece := range pieces {
			if _, err := c.conn.Write([]byte(piece)); err != nil {
				t.Fatal(err)
			}
		}
		for range strings.Count(strings.Join(pieces, ""), "\x89") {
			if first, payload := c.read(); first != 0x8A || len(payload) != 4 {
				t.Fatalf("after %q: got %#x %q, want a pong of four bytes", pieces, first, payload)
			}
		}
	}
	large := `{"action":"no action that is known","pad":"` + strings.Repeat("x", 20<<10) + `"}` // two records
	c.write(0x81, large)
	c.want(unknownAnswer)
}

// TestTLSListener_ManyClients: the readers of many clients take turns without mixing them up.
func TestTLSListener_ManyClients(t *testing.T) {
	n := startTLS(t, withoutPings)
	var clients []*raw
	for i := range 50 {
		c := n.raw(t, v1Header())
		c.enter(fmt.Sprint("u", i))
		clients = append(clients, c)
	}
	for round := range 5 {
		for i, c := range clients {
			c.write(0x89, fmt.Sprintf("%d of %d", round, i))
		}
		for i, c := range clients {
			if first, payload := c.read(); first != 0x8A || payload != fmt.Sprintf("%d of %d", round, i) {
				t.Fatalf("client %d got %#x %q", i, first, payload)
			}
		}
	}
}
