package server_test

import (
	"context"
	"crypto/tls"
	"net"
	"net/http/httptest"
	"testing"

	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"
)

// startTLS runs a node behind TLS, with the certificate that net/http/httptest has for tests.
func startTLS(t *testing.T, change ...func(*manager.Options, *server.Options)) *node {
	t.Helper()
	web := httptest.NewTLSServer(nil)
	config := web.TLS.Clone()
	web.Close()
	config.NextProtos = []string{"http/1.1"}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := startOn(t, tls.NewListener(ln, config), change...)
	trusting := &tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}
	n.dial, n.patience = trusting.DialContext, patience
	return n
}

// What holds for sockets that are read from without waiting holds for those behind TLS, where that is not possible.
func TestConversationsOverTLS(t *testing.T) {
	n := startTLS(t)
	silent := n.raw(t, "")
	silent.write(0x89, "")
	silent.read() // the server knows the connection when it answers
	c := n.raw(t, v1Header())
	c.enter("u")
	message := `{"action":"no action that is known"}`
	c.write(0x01, message[:9])
	c.write(0x89, "are you there?")
	if first, payload := c.read(); first != 0x8A || payload != "are you there?" {
		t.Fatalf("got %#x %q, want a pong", first, payload)
	}
	c.write(0x80, message[9:])
	c.want(unknownAnswer)
	c.write(0x88, "\x03\xe8")
	if first, payload := c.read(); first != 0x88 || payload != "\x03\xe8" {
		t.Errorf("got %#x %q, want a close frame with 1000", first, payload)
	}
	_ = c.conn.Close()
	waitFor(t, func() bool { return n.server.Stats().Open == 1 })

	closed := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		closed <- n.server.Close(ctx)
	}()
	if first, payload := silent.read(); first != 0x88 || payload != "\x03\xf4Server reloading" {
		t.Errorf("got %#x %q, want a close frame with 1012", first, payload)
	}
	_ = silent.conn.Close()
	if err := <-closed; err != nil {
		t.Error(err)
	}
}
