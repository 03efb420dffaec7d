package server_test

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/manager/managertest"
	"github.com/shoal-go/shoal/server"
)

func TestAuth_FirstMessage(t *testing.T) {
	n := start(t)
	long := strings.Repeat("u", 256)
	for name, test := range map[string]struct {
		send   string
		answer string
		reason manager.CloseReason
	}{
		"another type":    {`{"type":"hello","token":"u"}`, "Authentication required", manager.AuthRequired},
		"no type":         {`{"token":"u"}`, "Authentication required", manager.AuthRequired},
		"no token":        {`{"type":"auth"}`, "Authentication required", manager.AuthRequired},
		"empty token":     {`{"type":"auth","token":""}`, "Authentication required", manager.AuthRequired},
		"token a number":  {`{"type":"auth","token":7}`, "Authentication required", manager.AuthRequired},
		"an action":       {`{"action":"subscribe_upload","upload_id":"a"}`, "Authentication required", manager.AuthRequired},
		"refused token":   {`{"type":"auth","token":"bad"}`, "Invalid signature", manager.InvalidToken},
		"hook fails":      {`{"type":"auth","token":"broken"}`, "", manager.TryAgainLater},
		"token twice":     {`{"type":"auth","token":"u","token":"v"}`, "", manager.InvalidFormat},
		"type in capital": {`{"Type":"auth","token":"u"}`, "Authentication required", manager.AuthRequired},
		"lone surrogate":  {`{"type":"auth","token":"\ud800"}`, "Authentication required", manager.AuthRequired},
		"not an id":       {`{"type":"auth","token":"` + long + `"}`, "Authentication failed", manager.InvalidToken},
		"not JSON":        {`auth`, "", manager.InvalidFormat},
		"an array":        {`[]`, "", manager.InvalidFormat},
		"null":            {`null`, "", manager.InvalidFormat},
		"two objects":     {`{"type":"auth","token":"u"}{}`, "", manager.InvalidFormat},
		"an empty string": {``, "", manager.InvalidFormat},
	} {
		t.Run(name, func(t *testing.T) {
			c := n.open()
			c.t = t
			c.send(test.send)
			if test.answer != "" {
				c.want(`{"action":"auth_error","message":"` + test.answer + `"}`)
			}
			if rest := c.wantClose(test.reason); len(rest) > 0 {
				t.Errorf("got %q before the close frame", rest)
			}
		})
	}
}

func TestAuth_BinaryFirstMessageIsInvalid(t *testing.T) {
	n := start(t)
	c := n.open()
	if err := c.conn.Write(c.ctx, websocket.MessageBinary, []byte(`{"type":"auth","token":"u"}`)); err != nil {
		t.Fatal(err)
	}
	c.wantClose(manager.InvalidFormat)
}

func TestAuth_TokenOfTheUpgrade(t *testing.T) {
	n := start(t)
	c, _, err := n.tryOpen(http.Header{"Authorization": {"Bearer ann"}})
	if err != nil {
		t.Fatal(err)
	}
	c.want(`{"action":"auth_success","user_id":"ann"}`)

	c, _, err = n.tryOpen(http.Header{"Authorization": {"Bearer bad"}})
	if err != nil {
		t.Fatal(err)
	}
	c.want(`{"action":"auth_error","message":"Invalid signature"}`)
	c.wantClose(manager.InvalidToken)
}

func TestAuth_TimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := startPiped(t)
		c := n.open()
		begin := time.Now()
		c.want(`{"action":"auth_error","message":"Authentication timeout"}`)
		c.wantClose(manager.AuthTimeout)
		if waited := time.Since(begin); waited != 5*time.Second {
			t.Errorf("timed out after %v, want 5s", waited)
		}
	})
}

func TestAuth_ConnectionEndsWithItsToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := startPiped(t, neverIdle)
		begin := time.Now()
		c := n.login("ann/10m")
		c.want(`{"action":"auth_error","message":"Token has expired"}`)
		c.wantClose(manager.InvalidToken)
		if lasted := time.Since(begin); lasted != 10*time.Minute {
			t.Errorf("lasted %v, want 10m", lasted)
		}
	})
}

func TestRenew_FreshTokenExtendsTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := startPiped(t, neverIdle)
		begin := time.Now()
		c := n.login("ann/1m")
		c.send(`{"type":"auth","token":"ann/80s"}`)
		c.want(`{"action":"auth_success","user_id":"ann"}`)
		c.want(`{"action":"auth_error","message":"Token has expired"}`)
		c.wantClose(manager.InvalidToken)
		if lasted := time.Since(begin); lasted != 80*time.Second {
			t.Errorf("lasted %v, want 80s", lasted)
		}
	})
}

func TestRenew_FreshTokenMustBeOfTheSameUser(t *testing.T) {
	n := start(t)
	for token, answer := range map[string]string{
		"bob": "Token belongs to another user",
		"bad": "Invalid signature",
	} {
		c := n.login("ann")
		c.send(`{"type":"auth","token":"` + token + `"}`)
		c.want(`{"action":"auth_error","message":"` + answer + `"}`)
		c.wantClose(manager.InvalidToken)
	}
}

func TestIdentify_ReplacesAuthenticate(t *testing.T) {
	n := start(t, func(_ *manager.Options, o *server.Options) {
		o.Authenticate = nil
		o.Identify = func(r *http.Request) (server.Identity, error) {
			cookie, err := r.Cookie("user")
			if err != nil {
				return server.Identity{}, err
			}
			return server.Identity{UserID: cookie.Value}, nil
		}
		o.OnMessage = func(c *server.Client, m server.Incoming) bool {
			if m.Text {
				c.SendText(append([]byte(c.UserID()+": "), m.Data...))
			} else {
				c.SendBinary(m.Data)
			}
			return true
		}
	})
	_, resp, err := n.tryOpen(nil)
	if err == nil || resp.StatusCode != http.StatusUnauthorized {
		t.Fatalf("an unknown client got %v, want 401", err)
	}
	c, _, err := n.tryOpen(http.Header{"Cookie": {"user=ann"}})
	if err != nil {
		t.Fatal(err)
	}
	c.send("hello")
	c.want("ann: hello")
	if err := c.conn.Write(c.ctx, websocket.MessageBinary, []byte{0, 1, 0xFF}); err != nil {
		t.Fatal(err)
	}
	if kind, data, err := c.conn.Read(c.ctx); err != nil || kind != websocket.MessageBinary || string(data) != "\x00\x01\xff" {
		t.Fatalf("got %v %q %v, want the binary message back", kind, data, err)
	}
}

// quiet is a connection that has been silent for an hour. probe is called while the user's next connection is being
// registered.
type quiet struct {
	*managertest.Conn
	probe func()
}

func (q quiet) SilentFor() time.Duration {
	q.probe()
	return time.Hour
}

// A client gets auth_success only once its connection is registered: from then on no order and no message misses it.
func TestAuth_SuccessFollowsTheRegistration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := startPiped(t, func(m *manager.Options, _ *server.Options) { m.MaxConnectionsPerUser = 1 })
		greeted, probed := make(chan struct{}), make(chan struct{})
		early := false
		if err := n.manager.Connect("ann", &quiet{managertest.NewConn(), func() {
			defer close(probed)
			synctest.Wait() // everything that was sent has arrived
			select {
			case <-greeted:
				early = true
			default:
			}
		}}); err != nil {
			t.Fatal(err)
		}
		c := n.open()
		c.send(`{"type":"auth","token":"ann"}`)
		c.want(`{"action":"auth_success","user_id":"ann"}`)
		close(greeted)
		<-probed
		if closed, err := n.manager.DisconnectUser(t.Context(), "ann", manager.NormalClosure); err != nil || closed != 1 {
			t.Errorf("DisconnectUser closes %d connections: %v", closed, err)
		}
		c.wantClose(manager.NormalClosure)
		if early {
			t.Error("the client got auth_success before its connection was registered")
		}
	})
}

// The first auth message and later ones are decoded by the same rules.
func TestAuth_SameRulesForEveryMessage(t *testing.T) {
	n := start(t)
	for _, message := range []string{
		`{"type":"auth","token":"ann","action":"auth"}`, `{"type":"auth","token":"ann","action":null}`,
		`{"type":"auth","token":"ann","extra":[1]}`,
	} {
		c := n.open("shoal.v1")
		for range 2 {
			c.send(message)
			c.want(`{"action":"auth_success","user_id":"ann"}`)
		}
	}
	const twice = `{"type":"auth","token":"ann","extra":1,"extra":2}`
	first := n.open("shoal.v1")
	first.send(twice)
	first.wantClose(manager.InvalidFormat)
	later := n.login("ann", "shoal.v1")
	later.send(twice)
	later.wantError("bad_request", "extra")
}
