package load_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/shoal-go/shoal/internal/load"
	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"
)

// start runs a server for which a token is the name of a user.
func start(t *testing.T) (m *manager.Manager, addr string) {
	t.Helper()
	m, err := manager.New(manager.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := server.New(server.Options{
		Manager:   m,
		Authorize: server.AuthorizeOpen,
		Authenticate: func(_ context.Context, token string) (server.Identity, error) {
			return server.Identity{UserID: token}, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := errors.Join(s.Close(ctx), m.Close(ctx)); err != nil {
			t.Error(err)
		}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return m, l.Addr().String()
}

func TestFleet_WithServer(t *testing.T) {
	const clients, uploads, stalled, messages = 200, 4, 20, 100
	m, addr := start(t)
	f, err := load.Open(t.Context(), load.Options{
		Addr:        addr,
		Connections: clients,
		Pollers:     2,
		Stalled:     stalled,
		Dialect: load.Dialect{
			Path:        "/ws/uploads",
			Subprotocol: "shoal.v1",
			Hello: func(i int) [][]byte {
				return [][]byte{
					fmt.Appendf(nil, `{"type":"auth","token":"user-%d"}`, i),
					fmt.Appendf(nil, `{"action":"subscribe_upload","upload_id":"upload-%d"}`, i%uploads),
				}
			},
			Ready: func(payload []byte) bool { return bytes.HasPrefix(payload, []byte(`{"action":"subscribed"`)) },
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for i := range messages {
		for u := range uploads {
			e, err := manager.Parse("", fmt.Appendf(nil, `{"action":"note","n":%d,"pad":%q}`, i, strings.Repeat("x", i*5)), time.Now())
			if err == nil {
				_, err = m.Publish(t.Context(), fmt.Sprintf("upload-%d", u), e)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	const want = (clients - stalled) * messages
	if _, err := f.WaitMessages(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	if c := f.Counts(); c.Messages != want || c.Closed != 0 {
		t.Errorf("counts are %+v, want %d messages", c, want)
	}
	for i := range clients {
		user := fmt.Sprintf("user-%d", i)
		if _, err := m.DisconnectUser(context.Background(), user, manager.ServerReloading); err != nil {
			t.Fatal(err)
		}
	}
	_, err = f.WaitMessages(t.Context(), want+1+clients) // on shoal.v1, reconnect precedes the close frame
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%d of %d connections have ended", clients-stalled, clients)) ||
		!strings.Contains(err.Error(), "1012, Server reloading") {
		t.Errorf("error %v", err)
	}
}
