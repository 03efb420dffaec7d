package server_test

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"
)

// A renewal that cannot be checked now leaves the connection open until its current token expires. The fresh token is
// not known to be bad, so the client is to come back.
func TestAuthenticate_UnavailableRenewalKeepsTheConnection(t *testing.T) {
	for _, subprotocols := range [][]string{nil, {"shoal.v1"}} {
		synctest.Test(t, func(t *testing.T) {
			n := startPiped(t, neverIdle)
			begin := time.Now()
			c := n.login("ann/1m", subprotocols...)
			c.send(`{"type":"auth","token":"broken"}`)
			if subprotocols != nil {
				c.want(authUnavailable)
			}
			c.wantUnavailable(subprotocols != nil)
			if lasted := time.Since(begin); lasted != time.Minute {
				t.Errorf("lasted %v, want 1m", lasted)
			}

			c = n.login("ann/1m", subprotocols...)
			for _, token := range []string{"broken", "ann/40s"} {
				c.send(`{"type":"auth","token":"` + token + `"}`)
			}
			if subprotocols != nil {
				c.want(authUnavailable)
			}
			c.want(`{"action":"auth_success","user_id":"ann"}`)
			before := c.wantClose(manager.InvalidToken) // of the last token, which has been checked
			if !strings.Contains(strings.Join(before, ""), "Token has expired") {
				t.Errorf("got %q before the close frame, want that the token has expired", before)
			}
		})
	}
}

// neverPinged has a client send nothing of its own: while a hook runs, a pipe takes no pong.
func neverPinged(_ *manager.Options, o *server.Options) { o.PingInterval = 24 * time.Hour }

const authUnavailable = `{"action":"auth_error",` +
	`"message":"Authentication is not possible now, try again later","code":"unavailable"}`

// wantUnavailable reads to the end of a connection whose client is to come back, because its token cannot be checked.
func (c *client) wantUnavailable(v1 bool) {
	c.t.Helper()
	if v1 {
		c.want(authUnavailable)
		if r := c.object(); r["action"] != "reconnect" || r["retry_after_ms"] == nil {
			c.t.Errorf("got %v, want reconnect", r)
		}
	}
	for _, message := range c.wantClose(manager.TryAgainLater) {
		if message != `{"action":"ping"}` {
			c.t.Errorf("got %s before the close frame", message)
		}
	}
}

// A fresh token that has come in time, and is being checked or waits behind another message of its connection, is not
// known to be bad when the old one expires: the connection ends, and the client is to come back.
func TestRenew_SlowHooksDoNotRefuseTheFreshToken(t *testing.T) {
	const fresh, subscribe = `{"type":"auth","token":"ann/1h"}`, `{"action":"subscribe_upload","upload_id":"slow"}`
	for name, test := range map[string]struct {
		send   []string
		result error // of the hook, after the connection has ended
	}{
		"Authenticate":             {[]string{fresh}, nil},
		"Authenticate refuses":     {[]string{fresh}, &server.TokenError{Message: "revoked"}},
		"Authorize":                {[]string{subscribe, fresh}, nil},
		"Authorize of a resume":    {[]string{resumeOf(2, "slow"), fresh}, server.ErrForbidden},
		"OnMessage":                {[]string{`{"action":"own"}`, fresh}, nil},
		"a hook, and no new token": {[]string{subscribe}, nil},
	} {
		for _, subprotocols := range [][]string{nil, {"shoal.v1"}} {
			t.Run(name+strings.Join(subprotocols, ""), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					slow := func() { <-time.After(8 * time.Second) }
					n := startPiped(t, neverIdle, neverPinged, func(_ *manager.Options, o *server.Options) {
						o.Authenticate = func(ctx context.Context, token string) (server.Identity, error) {
							if token == "ann/1h" {
								slow()
								if test.result != nil {
									return server.Identity{}, test.result
								}
							}
							return tokens(ctx, token)
						}
						o.Authorize = func(context.Context, server.Identity, string) error { slow(); return test.result }
						o.OnMessage = func(*server.Client, server.Incoming) bool { slow(); return true }
						o.OnConnect = func(c *server.Client) {
							for after, want := range map[time.Duration]manager.CloseReason{
								time.Minute - 1: {}, time.Minute + 1: manager.TryAgainLater,
							} {
								time.AfterFunc(after, func() {
									if got := c.CloseReason(); got != want {
										t.Errorf("after %v the connection is closed with %v, want %v", after, got, want)
									}
								})
							}
						}
					})
					c := n.login("ann/1m", subprotocols...)
					<-time.After(55 * time.Second)
					var sending sync.WaitGroup
					sending.Go(func() { // a pipe holds no bytes
						for _, message := range test.send {
							_ = c.conn.Write(c.ctx, websocket.MessageText, []byte(message))
						}
					})
					c.wantUnavailable(subprotocols != nil)
					sending.Wait()
				})
			})
		}
	}
}

// Without a way to renew the token, and on a stream, a slow hook does not change how the connection ends.
func TestRenew_SlowHooksOfConnectionsThatCannotRenew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := func(*server.Client) { <-time.After(20 * time.Second) }
		n := startPiped(t, neverIdle, neverPinged, func(_ *manager.Options, o *server.Options) {
			o.Authenticate = nil
			o.Identify = func(*http.Request) (server.Identity, error) {
				return server.Identity{UserID: "ann", Expires: time.Now().Add(10 * time.Second)}, nil
			}
			o.OnConnect = slow
		})
		n.open().wantClose(manager.InvalidToken)
	})
}
