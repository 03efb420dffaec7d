package server_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"

	"github.com/coder/websocket"

	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"
	"github.com/shoal-go/shoal/server/jwtauth"
)

// A service that serves WebSockets beside its other endpoints, and publishes to them.
func Example() {
	m, err := manager.New(manager.Options{})
	if err != nil {
		log.Fatal(err)
	}
	jwt, err := jwtauth.New(jwtauth.Options{Secret: []byte("at least thirty-two bytes, kept secret")})
	if err != nil {
		log.Fatal(err)
	}
	s, err := server.New(server.Options{Manager: m, Authenticate: jwt.Authenticate, Authorize: server.AuthorizeClaims})
	if err != nil {
		log.Fatal(err)
	}
	http.Handle("/ws/uploads", s.Handler())
	go func() { log.Print(http.ListenAndServe("127.0.0.1:8080", nil)) }()

	progress := m.Progress("upload-1")
	err = errors.Join(
		progress.Stage("compiling", "linux-arm64", 100, "Compiling 240 packages"),
		progress.Bytes(512, 1024),
		progress.Complete("shoal-linux-arm64", 100),
	)
	if err != nil {
		log.Print(err)
	}
	_ = s.Close(context.Background())
	_ = m.Close(context.Background())
}

// A service with sessions of its own: Identify returns the user of the session cookie, and OnMessage handles the
// messages of the application.
func ExampleServer_identify() {
	ctx := context.Background()
	m, err := manager.New(manager.Options{})
	if err != nil {
		log.Fatal(err)
	}
	s, err := server.New(server.Options{
		Manager:   m,
		Authorize: server.AuthorizeOpen,
		Identify: func(r *http.Request) (server.Identity, error) {
			cookie, err := r.Cookie("session")
			if err != nil {
				return server.Identity{}, err // http.ErrNoCookie refuses the upgrade with 401
			}
			// A service looks the session up here. An error of the database is returned as it is: the client gets 503.
			return server.Identity{UserID: "user-of-" + cookie.Value, TokenID: cookie.Value}, nil
		},
		OnMessage: func(c *server.Client, m server.Incoming) bool {
			c.SendText(fmt.Appendf(nil, `{"action":"echo","to":%q}`, c.UserID()))
			return m.Text
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	web := httptest.NewServer(s.Handler())
	defer web.Close()

	header := http.Header{"Cookie": {"session=4711"}}
	conn, _, err := websocket.Dial(ctx, web.URL+"/ws/uploads", &websocket.DialOptions{HTTPHeader: header})
	if err != nil {
		log.Fatal(err)
	}
	if err := conn.Write(ctx, websocket.MessageText, []byte(`{"action":"hello"}`)); err != nil {
		log.Fatal(err)
	}
	_, answer, err := conn.Read(ctx)
	fmt.Println(string(answer), err)
	_ = conn.CloseNow()

	_ = s.Close(ctx)
	_ = m.Close(ctx)
	// Output: {"action":"echo","to":"user-of-4711"} <nil>
}
