package main

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestEcho_ReturnsEveryMessage(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	m, s, err := newEcho()
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(ln) }()
	conn, _, err := websocket.Dial(ctx, "ws://"+ln.Addr().String()+"/ws/uploads", nil)
	if err != nil {
		t.Fatal(err)
	}
	conn.SetReadLimit(largest)
	for _, kind := range []websocket.MessageType{websocket.MessageText, websocket.MessageBinary} {
		for _, size := range []int{0, 1, 125, 126, 65535, 65536, 1 << 20} {
			want := bytes.Repeat([]byte("*"), size)
			if err := conn.Write(ctx, kind, want); err != nil {
				t.Fatal(err)
			}
			if got, text, err := conn.Read(ctx); err != nil || got != kind || !bytes.Equal(text, want) {
				t.Fatalf("%v of %d bytes: got %v of %d bytes, %v", kind, size, got, len(text), err)
			}
		}
	}
	_ = conn.Close(websocket.StatusNormalClosure, "")
	if err := s.Close(ctx); err != nil {
		t.Error(err)
	}
	if err := m.Close(ctx); err != nil {
		t.Error(err)
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		t.Errorf("Serve returned %v, want ErrServerClosed", err)
	}
}
