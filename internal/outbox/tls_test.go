package outbox

import (
	"crypto/tls"
	"net"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/shoal/internal/frame"
)

// certificate returns one for a server that nobody asks for its name.
func certificate() []tls.Certificate {
	s := httptest.NewTLSServer(nil)
	defer s.Close()
	return s.TLS.Certificates
}

// overTLS returns both ends of a TLS connection over the given one.
func overTLS(own []tls.Certificate, server, client net.Conn) (secured, peer *tls.Conn) {
	return tls.Server(server, &tls.Config{Certificates: own}),
		tls.Client(client, &tls.Config{InsecureSkipVerify: true})
}

func TestTLS(t *testing.T) {
	p := NewPool(roomy)
	defer p.Close()
	server, client := tcpPair(t)
	secured, peer := overTLS(certificate(), server, client)
	o := p.Open(secured, Config{})
	go readUntilGone(o, secured) // makes the handshake, too
	if err := peer.Handshake(); err != nil {
		t.Fatal(err)
	}
	const frames = 200
	for i := range frames {
		send(t, o, Queued, data("a", frame.Event, i, 1000))
	}
	o.Close(frame.NewClose(1000, ""))
	all, err := readFrames(peer)
	if err != nil || len(all) != frames+1 || all[frames].closeCode() != 1000 {
		t.Errorf("the client got %d frames and %v, want %d and the end of the stream", len(all), err, frames+1)
	}
	peer.Close()
	<-o.Done()
}

// Closing a TLS connection properly means writing, for which nobody has the time here.
func TestAbortDoesNotWaitForTLS(t *testing.T) {
	own := certificate()
	synctest.Test(t, func(t *testing.T) {
		p := NewPool(roomy)
		defer p.Close()
		server, client := net.Pipe()
		secured, peer := overTLS(own, server, client)
		o := p.Open(secured, Config{})
		go readUntilGone(o, secured)
		if err := peer.Handshake(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		start := time.Now()
		o.Abort()
		<-o.Done()
		if took := time.Since(start); took != 0 {
			t.Errorf("Abort has waited for %v", took)
		}
	})
}
