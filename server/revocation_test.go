package server_test

import (
	"context"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"
)

// signedOut is the reason of the orders of these tests.
var signedOut = manager.CloseReason{Code: 4000, Text: "Signed out"}

// revoking runs a node whose hooks let an order for the user or the token pass, whole, before they accept a token. The
// token "kept" is accepted without one.
func revoking(t *testing.T, user bool, change ...func(*manager.Options, *server.Options)) *node {
	t.Helper()
	var m atomic.Pointer[manager.Manager]
	accept := func(ctx context.Context, token string) (server.Identity, error) {
		var err error
		switch {
		case token == "kept":
		case user:
			_, err = m.Load().DisconnectUser(ctx, "ann", signedOut)
		default:
			_, err = m.Load().DisconnectToken(ctx, token, signedOut)
		}
		return server.Identity{UserID: "ann", TokenID: token}, err
	}
	n := startPiped(t, append(change, func(_ *manager.Options, o *server.Options) {
		o.Authenticate = accept
		if o.Identify != nil {
			o.Authenticate = nil
			o.Identify = func(r *http.Request) (server.Identity, error) { return accept(r.Context(), "cookie") }
		}
	})...)
	m.Store(n.manager)
	waitFor(t, func() bool { return n.manager.Ready() == nil })
	return n
}

// withBroker makes a node one of several.
func withBroker(o *manager.Options, _ *server.Options) {
	o.Broker = broker.NewMemory(broker.MemoryOptions{}).Node()
}

// identifying makes a node identify users by their requests.
func identifying(_ *manager.Options, o *server.Options) {
	o.Identify = func(*http.Request) (server.Identity, error) { return server.Identity{}, nil }
}

// inBubble runs a test with synthetic time.
func inBubble(test func(*testing.T)) func(*testing.T) {
	return func(t *testing.T) { synctest.Test(t, test) }
}

// TestRevocation_DuringAuthenticate: an order that is carried out while a token is being checked closes the connection
// that the check admits, by whichever way the token came, on a node that is alone and on one of several.
func TestRevocation_DuringAuthenticate(t *testing.T) {
	for name, change := range map[string]func(*manager.Options, *server.Options){
		"alone": func(*manager.Options, *server.Options) {}, "cluster": withBroker,
	} {
		for kind, user := range map[string]bool{"token": false, "user": true} {
			t.Run(name+"/"+kind, inBubble(func(t *testing.T) {
				n := revoking(t, user, change)
				first := n.open("shoal.v1")
				first.send(`{"type":"auth","token":"first message"}`)
				first.wantClose(signedOut)
				header, _, err := n.tryOpen(http.Header{"Authorization": {"Bearer header"}}, "shoal.v1")
				if err != nil {
					t.Fatal(err)
				}
				header.wantClose(signedOut)
				n.events("stream", "/events/uploads/cat").wantClose(`{"code":4000,"reason":"Signed out"}`)
				cookie, _, err := revoking(t, user, change, identifying).tryOpen(nil, "shoal.v1")
				if err != nil {
					t.Fatal(err)
				}
				cookie.wantClose(signedOut)
				kept := n.open("shoal.v1")
				kept.send(`{"type":"auth","token":"kept"}`)
				kept.want(`{"action":"auth_success","user_id":"ann"}`)
			}))
		}
	}
}

// TestRevocation_DuringRenewal: an order for a token that is being checked on behalf of an open connection closes it.
func TestRevocation_DuringRenewal(t *testing.T) {
	for name, change := range map[string]func(*manager.Options, *server.Options){
		"alone": func(*manager.Options, *server.Options) {}, "cluster": withBroker,
	} {
		t.Run(name, inBubble(func(t *testing.T) {
			n := revoking(t, false, change)
			c := n.open("shoal.v1")
			c.send(`{"type":"auth","token":"kept"}`)
			c.want(`{"action":"auth_success","user_id":"ann"}`)
			c.send(`{"type":"auth","token":"renewed"}`)
			c.wantClose(signedOut)
		}))
	}
}
