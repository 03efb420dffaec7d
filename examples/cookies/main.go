// Command cookies is a service with sessions of its own: Identify finds the user of a cookie, Authorize the owner of an
// upload, and logging out closes the connections of the session.
//
//	go run ./examples/cookies -addr 127.0.0.1:8080
//	curl -c jar -d user=ann http://127.0.0.1:8080/login
//	curl -b jar -X POST http://127.0.0.1:8080/uploads/1
package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"flag"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:8080", "address to listen on")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ln, err := net.Listen("tcp", *addr)
	if err == nil {
		log.Printf("cookies: http://%s", ln.Addr())
		err = run(ctx, ln)
	}
	if err != nil {
		log.Fatal("cookies: ", err)
	}
}

// app is the service. Its maps stand for a database.
type app struct {
	manager *manager.Manager
	mu      sync.Mutex        // protects the fields below
	users   map[string]string // by session id
	owners  map[string]string // by upload id
}

// run serves until ctx ends.
func run(ctx context.Context, ln net.Listener) error {
	m, err := manager.New(manager.Options{})
	if err != nil {
		return err
	}
	a := &app{manager: m, users: map[string]string{}, owners: map[string]string{}}
	s, err := server.New(server.Options{Manager: m, Identify: a.identify, Authorize: a.authorize})
	if err != nil {
		return errors.Join(err, m.Close(context.Background()))
	}
	mux := http.NewServeMux()
	mux.Handle("GET /live", s.WebSocketHandler())
	mux.HandleFunc("POST /login", a.login)
	mux.HandleFunc("POST /logout", a.logout)
	mux.HandleFunc("POST /uploads/{id}", a.upload)
	web := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	served := make(chan error, 1)
	go func() { served <- web.Serve(ln) }()
	select {
	case err = <-served:
	case <-ctx.Done():
	}

	// In this order: Close asks the clients to reconnect, Shutdown waits for the requests that are left.
	closing, cancel := context.WithTimeout(context.Background(), 8*time.Second)
	defer cancel()
	return errors.Join(err, s.Close(closing), web.Shutdown(closing), m.Close(closing))
}

// identify returns the user of a session. The upgrade is refused with 401 without a valid cookie; an error of a
// database would be returned as it is, and answered with 503.
func (a *app) identify(r *http.Request) (server.Identity, error) {
	cookie, err := r.Cookie("session")
	if err != nil {
		return server.Identity{}, err // http.ErrNoCookie
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	user, known := a.users[cookie.Value]
	if !known {
		return server.Identity{}, &server.TokenError{Message: "no such session"}
	}
	return server.Identity{UserID: user, TokenID: cookie.Value, Data: "whatever the hooks need"}, nil
}

func (a *app) authorize(_ context.Context, id server.Identity, uploadID string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.owners[uploadID] != id.UserID {
		return server.ErrForbidden
	}
	return nil
}

func (a *app) login(w http.ResponseWriter, r *http.Request) {
	session := rand.Text()
	a.mu.Lock()
	a.users[session] = r.FormValue("user") // a real service asks for a password
	a.mu.Unlock()
	http.SetCookie(w, &http.Cookie{ //nolint:gosec // this example has no TLS, which Secure requires
		Name: "session", Value: session, Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode,
	})
}

// logout ends a session, on all nodes.
func (a *app) logout(w http.ResponseWriter, r *http.Request) {
	id, err := a.identify(r)
	if err != nil {
		http.Error(w, "not logged in", http.StatusUnauthorized)
		return
	}
	a.mu.Lock()
	delete(a.users, id.TokenID)
	a.mu.Unlock()
	reason := manager.CloseReason{Code: 4003, Text: "logged out"}
	if _, err := a.manager.DisconnectToken(r.Context(), id.TokenID, reason); err != nil {
		http.Error(w, "try again", http.StatusServiceUnavailable) // some node could not be asked
	}
}

// upload stands for the work on an upload, which belongs to the user of the request.
func (a *app) upload(w http.ResponseWriter, r *http.Request) {
	id, err := a.identify(r)
	if err != nil {
		http.Error(w, "not logged in", http.StatusUnauthorized)
		return
	}
	uploadID := r.PathValue("id")
	a.mu.Lock()
	a.owners[uploadID] = id.UserID
	a.mu.Unlock()
	pos, err := a.manager.Publish(r.Context(), uploadID, manager.UploadCompleted{Description: "A cat", AuditScore: 97})
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	_ = json.NewEncoder(w).Encode(pos)
}
