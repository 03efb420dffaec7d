package server_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"
)

func settled(change func(*server.Options)) func(*manager.Options, *server.Options) {
	return func(_ *manager.Options, so *server.Options) { change(so) }
}

// refused opens a connection that must be refused.
func (n *node) refused(t *testing.T, status int, header http.Header) {
	t.Helper()
	_, resp, err := n.tryOpen(header)
	if err == nil || resp == nil || resp.StatusCode != status || resp.Header.Get("Retry-After") == "" {
		t.Errorf("a connection got %v, %v, want %d with Retry-After", resp, err, status)
	}
}

func TestMaxConnectionsPerIP_CountsClientsBehindAProxy(t *testing.T) {
	n := start(t, settled(func(so *server.Options) {
		so.MaxConnectionsPerIP = 2
		so.TrustedProxies = []string{"127.0.0.0/8", "::1"}
	}))
	from := func(addr string) http.Header { return http.Header{"X-Forwarded-For": {"9.9.9.9, " + addr}} }
	var open []*client
	for range 2 {
		c, _, err := n.tryOpen(from("198.51.100.7"))
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
	}
	n.refused(t, http.StatusTooManyRequests, from("198.51.100.7"))
	if _, _, err := n.tryOpen(from("198.51.100.8")); err != nil {
		t.Errorf("another address was refused: %v", err)
	}
	_ = open[0].conn.CloseNow()
	waitFor(t, func() bool { return n.server.Stats().Open == 2 })
	if _, _, err := n.tryOpen(from("198.51.100.7")); err != nil {
		t.Errorf("the place of a connection that ended stays taken: %v", err)
	}
	if s := n.server.Stats(); s.Refused.PerIP != 1 || s.RefusedTotal != 1 {
		t.Errorf("refused: %+v", s.Refused)
	}
}

func TestClient_RemoteAddrIsTheClients(t *testing.T) {
	addr := make(chan string, 2)
	n := start(t, settled(func(so *server.Options) {
		so.TrustedProxies = []string{"127.0.0.1"}
		so.OnConnect = func(c *server.Client) { addr <- c.RemoteAddr().String() }
	}))
	c, _, err := n.tryOpen(http.Header{"X-Forwarded-For": {"198.51.100.7"}})
	if err != nil {
		t.Fatal(err)
	}
	c.send(`{"type":"auth","token":"ann"}`)
	if got := <-addr; got != "198.51.100.7:0" {
		t.Errorf("the client's address is %s", got)
	}
}

// The limits bound the calls of Identify, and one that refuses or panics leaves no connection behind.
func TestIdentify_LimitsComeFirst(t *testing.T) {
	var calls atomic.Int64
	n := start(t, settled(func(so *server.Options) {
		so.MaxConnectionsPerIP = 1
		so.Identify = func(r *http.Request) (server.Identity, error) {
			calls.Add(1)
			switch user := r.Header.Get("User"); user {
			case "panic":
				panic("a hook with a bug")
			case "unknown":
				return server.Identity{}, http.ErrNoCookie
			default:
				return server.Identity{UserID: user}, nil
			}
		}
	}))
	for _, user := range []string{"unknown", "panic", "unknown"} {
		if _, _, err := n.tryOpen(http.Header{"User": {user}}); err == nil {
			t.Errorf("%s got a connection", user)
		}
		waitFor(t, func() bool { return n.server.Stats().Open == 0 })
	}
	c, _, err := n.tryOpen(http.Header{"User": {"ann"}})
	if err != nil {
		t.Fatal(err)
	}
	before := calls.Load()
	n.refused(t, http.StatusTooManyRequests, http.Header{"User": {"ann"}})
	drained := make(chan error, 1)
	go func() { drained <- n.server.Drain(t.Context(), 0) }()
	c.wantClose(manager.ServerReloading)
	if err := <-drained; err != nil {
		t.Error(err)
	}
	n.refused(t, http.StatusServiceUnavailable, http.Header{"User": {"ann"}})
	if more := calls.Load() - before; more != 0 {
		t.Errorf("Identify was called %d times for connections beyond the limit", more)
	}
}

func TestConnectRate_RefusesBeyondIt(t *testing.T) {
	n := start(t, settled(func(so *server.Options) { so.ConnectRate = 0.001 }))
	n.open()
	n.refused(t, http.StatusServiceUnavailable, nil)
	if s := n.server.Stats(); s.Refused.Rate != 1 {
		t.Errorf("refused: %+v", s.Refused)
	}
}

// Concurrent connections never exceed the limits.
func TestAdmission_HoldsUnderConcurrency(t *testing.T) {
	n := start(t, settled(func(so *server.Options) { so.MaxConnections, so.MaxConnectionsPerIP = 5, 4 }))
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() { _, _, _ = n.tryOpen(nil) })
	}
	all.Wait()
	if s := n.server.Stats(); s.Open != 4 || s.Refused.PerIP != 16 {
		t.Errorf("%d are open, refused: %+v", s.Open, s.Refused)
	}
}

func TestMaxAge_ClosesOldConnectionsSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := startPiped(t, settled(func(so *server.Options) { so.MaxAge = time.Hour }))
		begin := time.Now()
		var clients []*client
		for range 8 {
			clients = append(clients, n.login("ann"))
		}
		ages := map[time.Duration]bool{}
		var mu sync.Mutex
		var all sync.WaitGroup
		for _, c := range clients {
			all.Go(func() {
				c.wantClose(manager.ServerReloading)
				mu.Lock()
				defer mu.Unlock()
				age := time.Since(begin)
				ages[age.Truncate(time.Second)] = true
				if age < 45*time.Minute || age > time.Hour+time.Minute {
					t.Errorf("closed after %v", age)
				}
			})
		}
		all.Wait()
		if len(ages) < 4 {
			t.Errorf("eight connections ended at %d times only", len(ages))
		}
	})
}

func TestReload_ReplacesSettings(t *testing.T) {
	n := start(t, settled(func(so *server.Options) { so.MaxConnections = 1 }))
	first := n.login("ann")
	n.refused(t, http.StatusServiceUnavailable, nil)
	if err := n.server.Reload(server.Settings{
		ClientMessageBurst: -1, AllowedOrigins: []string{"*"}, APIKeys: []string{""}, TrustedProxies: []string{"x"},
	}); err == nil {
		t.Error("invalid settings were accepted")
	}
	for field, settings := range map[string]server.Settings{
		"ClientMessageBurst": {ClientMessageBurst: 3}, "ClientMessageRate": {ClientMessageRate: 0.06},
	} {
		if err := n.server.Reload(settings); err == nil || !strings.Contains(err.Error(), "Options."+field+" ") {
			t.Errorf("%+v: %v, want that %s is refused", settings, err, field)
		}
	}
	n.refused(t, http.StatusServiceUnavailable, nil)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(n.server.Reload(server.Settings{MaxConnections: 2, APIKeys: []string{"new"}, AllowedOrigins: []string{"https://a.example"}}))
	if _, _, err := n.tryOpen(http.Header{"Origin": {"https://a.example"}}); err != nil {
		t.Errorf("the raised limit or the origin does not hold: %v", err)
	}
	for key, want := range map[string]int{"key": 401, "new": 200} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+n.host+"/v1/stats", nil)
		must(err)
		request.Header.Set("Authorization", "Bearer "+key)
		response, err := http.DefaultClient.Do(request)
		must(err)
		response.Body.Close()
		if response.StatusCode != want {
			t.Errorf("the key %q gets %d, want %d", key, response.StatusCode, want)
		}
	}
	http.DefaultClient.CloseIdleConnections()
	if first.send(`{"action":"ping"}`); n.server.Stats().Open != 2 {
		t.Error("a reload ended a connection")
	}
}

// Concurrent calls of Reload replace all settings one after the other: those of two calls are never mixed.
func TestReload_ConcurrentCallsAreNotMixed(t *testing.T) {
	n := start(t)
	for range 2000 {
		var calls sync.WaitGroup
		for i, key := range []string{"key-0", "key-1"} {
			calls.Go(func() {
				if err := n.server.Reload(server.Settings{APIKeys: []string{key}, MaxConnections: 1 + i}); err != nil {
					t.Error(err)
				}
			})
		}
		calls.Wait()
		r := httptest.NewRequest(http.MethodGet, "/v1/stats", nil)
		r.Header.Set("Authorization", fmt.Sprint("Bearer key-", n.server.ConnectionLimit()-1))
		if err := n.server.MayUseAPI(r); err != nil {
			t.Fatalf("the limit is of one call, the keys are of the other: %v", err)
		}
	}
}
