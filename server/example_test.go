package server_test

import (
	"context"
	"log"
	"net/http"

	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"
)

// A service of one's own that serves WebSockets beside everything else it does, and publishes to them.
func Example() {
	m, err := manager.New(manager.Options{})
	if err != nil {
		log.Fatal(err)
	}
	jwt, err := server.NewJWT(server.JWTOptions{Secret: []byte("at least thirty-two bytes, kept secret")})
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
	progress.Stage(manager.StatusAnalyzing, manager.StageVisionAnalysis, 100, "Looking at the picture")
	progress.Bytes(512, 1024)
	if err := progress.Complete("A cat on a keyboard", 97); err != nil {
		log.Print(err)
	}
	_ = s.Close(context.Background())
	_ = m.Close(context.Background())
}
