package chaostest_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"
	"github.com/shoal-go/shoal/server/chaostest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bounds are the bounds that stop some attacks, small enough for a test. Those of the others are so large that nothing is
// decided by how fast the machine is.
var bounds = map[string]func(*server.Options){
	"never-authenticates": func(o *server.Options) { o.AuthTimeout = 2 * time.Second },
	"half-open":           shortIdle,
	"unfinished-message":  shortIdle,
	"never-reads": func(o *server.Options) {
		o.QueueBytes, o.QueueMessages, o.QueueAge, o.CloseTimeout = 0, 0, time.Second, time.Second
	},
}

func shortIdle(o *server.Options) { o.PingInterval, o.IdleTimeout = time.Second, 5*time.Second }

// start returns a target with the bounds of an attack. Each of its clients has a user of its own, so that the uploads of
// one are not those of another.
func start(t *testing.T, attack string) chaostest.Target {
	t.Helper()
	m, err := manager.New(manager.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var users atomic.Int64
	o := server.Options{
		Manager: m,
		Authenticate: func(_ context.Context, token string) (server.Identity, error) {
			if token != "good" {
				return server.Identity{}, &server.TokenError{Message: "Invalid token"}
			}
			return server.Identity{UserID: fmt.Sprint("u", users.Add(1))}, nil
		},
		Authorize:   server.AuthorizeOpen,
		AuthTimeout: 30 * time.Second, QueueBytes: 1 << 30, QueueMessages: 1 << 20, QueueAge: time.Minute,
	}
	if change := bounds[attack]; change != nil {
		change(&o)
	}
	s, err := server.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.Close(ctx); err != nil {
			t.Error(err)
		}
		if err := m.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return chaostest.Target{Serve: s.Serve, First: first, Clients: 2, Publish: func(n int) error {
		message := fmt.Appendf(nil, `{"action":"note","n":%d,"text":"%s"}`, n, strings.Repeat("x", 16<<10))
		e, err := manager.Parse("chaos-0", message, time.Now())
		if err == nil {
			_, err = m.Publish(t.Context(), "chaos-0", e)
		}
		return err
	}}
}

// Each attacker that must be stopped is stopped by a bound of its own kind, and a client beside it is answered.
func TestRun_ShoalStopsEveryAttack(t *testing.T) {
	want := map[string]string{
		"missing-body": "HTTP 405", "never-authenticates": "close 4001", "half-open": "close 1001",
		"half-closed": "end of stream", "never-reads": "close 1013", "flood-messages": "close 1008", "flood-fragments": "close 1008",
		"flood-pings": "close 1008", "flood-subscriptions": "close 1008", "flood-tokens": "close 4003",
		"huge-length": "close 1009", "negative-length": "close 1002", "unfinished-message": "close 1001",
	}
	for _, attack := range chaostest.Attacks() {
		t.Run(attack.Name, func(t *testing.T) {
			t.Parallel()
			if !attack.Stops || want[attack.Name] == "" {
				target := start(t, attack.Name)
				target.Watch = time.Second
				r, err := chaostest.Run(t.Context(), target, attack)
				if err != nil || r.Lost > 0 || r.Delivered != r.Published {
					t.Errorf("%+v, %v", r, err)
				}
				return
			}
			target := start(t, attack.Name)
			target.Watch = time.Minute
			r, err := chaostest.Run(t.Context(), target, attack)
			if err != nil {
				t.Fatal(err)
			}
			if r.Open > 0 || r.Lost > 0 {
				t.Errorf("%d attackers are open, %d pings lost: %+v", r.Open, r.Lost, r)
			}
			for name := range r.Bounds {
				if !strings.HasPrefix(name, want[attack.Name]) && name != "connection reset" {
					t.Errorf("stopped by %q, want %q", name, want[attack.Name])
				}
			}
		})
	}
}

// A message that a well-behaved follower does not get is not counted as delivered, and one that is sent twice counts
// once.
func TestRun_CountsWhatAFollowerReceives(t *testing.T) {
	target := start(t, "")
	target.Watch = time.Second
	publish, published := target.Publish, 0
	target.Publish = func(n int) error {
		published++
		if n%3 == 1 {
			return nil // and does not publish it
		}
		return publish(n - n%3) // 0, nothing, 0, 3, nothing, 3, …
	}
	attack := slices.IndexFunc(chaostest.Attacks(), func(a chaostest.Attack) bool { return a.Name == "slow-handshake" })
	r, err := chaostest.Run(t.Context(), target, chaostest.Attacks()[attack])
	if want := (published + 2) / 3; err != nil || r.Published != published || r.Delivered != want {
		t.Errorf("%d of %d are delivered, %v; want %d of %d", r.Delivered, r.Published, err, want, published)
	}
}

var first = []byte(`{"type":"auth","token":"good"}`)

func TestRun_RefusesInvalidTargets(t *testing.T) {
	attack := chaostest.Attacks()[0]
	for name, target := range map[string]chaostest.Target{
		"exactly one":    {},
		"Target.Clients": {URL: "ws://127.0.0.1:1/", Clients: -1},
		"Target.Watch":   {URL: "ws://127.0.0.1:1/", Watch: -1},
		"scheme":         {URL: "http://127.0.0.1:1/"},
		"before":         {Handler: http.NotFoundHandler()},
	} {
		if _, err := chaostest.Run(t.Context(), target, attack); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("the error is %v, want %q", err, name)
		}
	}
	served := chaostest.Target{Serve: func(ln net.Listener) error { return http.Serve(ln, nil) }}
	if _, err := chaostest.Run(t.Context(), served, chaostest.Attack{}); err == nil {
		t.Error("an attack without a client was accepted")
	}
}
