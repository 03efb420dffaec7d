package server_test

import (
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"
)

// A walk finds the connections that have waited longest, however few connections each step visits, and forgets them
// when they have read their messages or are gone.
func TestSlowWalk_FindsTheSlowest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := startPiped(t, neverIdle, func(_ *manager.Options, o *server.Options) { o.PingInterval = 24 * time.Hour })
		var clients []*client
		for i := range 8 {
			c := n.login("user"+strconv.Itoa(i), "shoal.v1")
			subscribe(t, c, "a"+strconv.Itoa(i), 0)
			clients = append(clients, c)
		}
		synctest.Wait()
		walk := n.server.NewSlowWalk(3)
		if found := walk.Step(100); len(found) != 0 {
			t.Errorf("found %+v while no message was queued", found)
		}
		for i := range clients {
			n.publish("a"+strconv.Itoa(i), 1)
			<-time.After(time.Second)
		}
		synctest.Wait()
		var found []server.ConnectionInfo
		for range clients { // one connection a step
			found = walk.Step(1)
		}
		if len(found) != 3 {
			t.Fatalf("found %d connections, want 3", len(found))
		}
		for i, info := range found {
			if want := "user" + strconv.Itoa(i); info.UserID != want || info.QueuedMessages != 1 || info.QueuedBytes == 0 ||
				info.Waiting != time.Duration(8-i)*time.Second || info.Transport != "websocket" ||
				info.Subprotocol != "shoal.v1" || info.Age < 8*time.Second {
				t.Errorf("found %+v, want %s with a message that has waited for %d s", info, want, 8-i)
			}
		}
		clients[0].next()
		_ = clients[1].conn.CloseNow()
		synctest.Wait()
		if found = walk.Step(0); len(found) == 0 || found[0].UserID != "user2" {
			t.Errorf("found %+v, want user2 first", found)
		}
	})
}

// QueuedBytes contains the stored messages of a recovery, of one connection as of all.
func TestConnectionInfo_QueuedBytesContainRecovery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := startPiped(t, neverIdle, func(_ *manager.Options, o *server.Options) { o.QueueAge = time.Hour })
		since := n.publish("a", 0)
		for range 40 {
			n.publishJSON("a", `{"action":"note","text":"`+strings.Repeat("x", 1000)+`"}`)
		}
		c := n.login("ann", "shoal.v1")
		c.send(`{"action":"subscribe_upload","upload_id":"a","since":{"epoch":"` + since.Epoch + `","offset":1}}`)
		synctest.Wait()
		conns, _ := n.server.UserConnections("ann", 1)
		if i := conns[0]; i.RecoveryBytes < 30_000 || i.QueuedBytes < i.RecoveryBytes {
			t.Errorf("%d bytes are queued, %d for a recovery", i.QueuedBytes, i.RecoveryBytes)
		} else if in := n.server.Inspect(); in.QueuedBytes != i.QueuedBytes || in.RecoveryBytes != i.RecoveryBytes {
			t.Errorf("all connections together have %d and %d bytes, one has %+v", in.QueuedBytes, in.RecoveryBytes, i)
		}
	})
}

func TestServer_UserConnections(t *testing.T) {
	n := start(t)
	first := n.login("ann", "shoal.v1")
	second := n.login("ann")
	subscribe(t, first, "a", 0)
	subscribe(t, first, "b", 0)
	conns, total := n.server.UserConnections("ann", 1)
	if total != 2 || len(conns) != 1 || conns[0].UserID != "ann" || conns[0].Subprotocol != "shoal.v1" ||
		conns[0].Age <= 0 || !strings.HasPrefix(conns[0].Remote, "127.0.0.1:") {
		t.Errorf("%d connections, %+v", total, conns)
	}
	if ids, total := n.manager.UserUploads("ann", 1); total != 2 || len(ids) != 1 {
		t.Errorf("follows %v of %d uploads", ids, total)
	}
	if _, total := n.server.UserConnections("bob", 1); total != 0 {
		t.Errorf("bob has %d connections", total)
	}
	if ids, total := n.manager.UserUploads("bob", 1); total != 0 || len(ids) != 0 {
		t.Errorf("bob follows %v", ids)
	}
	sum := 0
	for _, s := range n.manager.ShardStats() {
		sum += s.Connections
	}
	if sum != 2 {
		t.Errorf("the shards have %d connections", sum)
	}
	_ = second.conn.CloseNow()
	waitFor(t, func() bool { _, total := n.server.UserConnections("ann", 1); return total == 1 })
}

// Connections of the embedder's own and of other servers of the manager are not those of a server.
func TestServer_UserConnectionsAreItsOwn(t *testing.T) {
	n := start(t)
	other, err := server.New(server.Options{Manager: n.manager, Authenticate: tokens, Authorize: server.AuthorizeOpen})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close(n.patienceContext()) }()
	if err := n.manager.Connect("ann", &recorder{}); err != nil {
		t.Fatal(err)
	}
	n.login("ann")
	if conns, total := n.server.UserConnections("ann", 5); len(conns) != 1 || total != 1 {
		t.Errorf("%d of %d connections, want its own", len(conns), total)
	}
	if conns, total := other.UserConnections("ann", 5); len(conns) != 0 || total != 0 {
		t.Errorf("the other server has %d of %d connections, want none", len(conns), total)
	}
}

// nameless is a connection without an address.
type nameless struct{ net.Conn }

func (nameless) RemoteAddr() net.Addr { return nil }

type namelessListener struct{ *pipeListener }

func (l namelessListener) Accept() (net.Conn, error) {
	conn, err := l.pipeListener.Accept()
	if err != nil {
		return nil, err
	}
	return nameless{conn}, nil
}

// A listener's connections need no address.
func TestServer_ConnectionWithoutAddress(t *testing.T) {
	ln := namelessListener{newPipeListener()}
	addrs := make(chan string, 1)
	n := startOn(t, ln, func(_ *manager.Options, o *server.Options) {
		o.MaxConnectionsPerIP = 1
		o.OnConnect = func(c *server.Client) { addrs <- c.RemoteAddr().String() }
	})
	n.dial, n.patience = ln.dial, patience
	refused := n.open()
	refused.send(`{"type":"auth","token":"bad"}`)
	refused.wantClose(manager.InvalidToken)
	n.login("ann")
	if got := <-addrs; got != ":0" {
		t.Errorf("the hook gets the address %q", got)
	}
	if conns, total := n.server.UserConnections("ann", 1); total != 1 || conns[0].Remote != ":0" {
		t.Errorf("%d connections, %+v", total, conns)
	}
}

func TestServer_MayUseAPI(t *testing.T) {
	n := start(t)
	for key, allowed := range map[string]bool{"": false, "Bearer key": true, "Bearer wrong": false, "Basic key": false} {
		r := httptest.NewRequest(http.MethodGet, "/anything", http.NoBody)
		if key != "" {
			r.Header.Set("Authorization", key)
		}
		if err := n.server.MayUseAPI(r); (err == nil) != allowed {
			t.Errorf("%q: %v", key, err)
		}
	}
	var none server.Server
	if none.MayUseAPI(httptest.NewRequest(http.MethodGet, "/", http.NoBody)) == nil {
		t.Error("a zero Server lets a request use the API")
	}
}
