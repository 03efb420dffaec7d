package recovery

import (
	"io"
	"net"
	"testing"
)

// A link passes bytes on, ends its connections when it is cut and accepts others once it is mended.
func TestLink_CutsAndMends(t *testing.T) {
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		for {
			conn, err := server.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(conn, conn)
				_ = conn.Close()
			}()
		}
	}()
	l, err := newLink(t.Context(), server.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	echo := func(conn net.Conn) error {
		if _, err := conn.Write([]byte("x")); err != nil {
			return err
		}
		_, err := io.ReadFull(conn, make([]byte, 1))
		return err
	}
	dial := func() net.Conn {
		conn, err := net.Dial("tcp", l.listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
	before := dial()
	if err := echo(before); err != nil {
		t.Errorf("the link passes nothing on: %v", err)
	}
	l.set(true)
	if echo(before) == nil || echo(dial()) == nil {
		t.Error("a link that is cut passes bytes on")
	}
	l.set(false)
	if err := echo(dial()); err != nil {
		t.Errorf("the mended link passes nothing on: %v", err)
	}
	if err := l.close(); err != nil {
		t.Error(err)
	}
	_ = server.Close()
	<-served
}
