package server

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/shoal/manager"
)

// openClient returns a client that is open for an identity.
func openClient(t *testing.T, id Identity) *Client {
	t.Helper()
	c := keepaliveClient(t)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stage = open
	c.setIdentityLocked(id)
	return c
}

// A timer that fires before the wall clock has reached the token's end is set again, and a token without a near end
// needs no timer that fires at once.
func TestClient_ExpiryTimerIsSetAgainWhenItIsEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := openClient(t, Identity{UserID: "ann", Expires: time.Now().Add(10 * time.Second)})
		c.mu.Lock()
		c.deadline.Stop()
		c.deadline = nil
		c.mu.Unlock()
		c.onDeadline() // as after a step of the wall clock
		if !c.authenticated() || c.deadline == nil {
			t.Fatal("the connection has ended, or has no timer any more")
		}
		<-time.After(10 * time.Second)
		synctest.Wait()
		if c.authenticated() || c.CloseReason() != manager.InvalidToken {
			t.Error("the connection outlives its token")
		}
	})
}

// A first message that has come in time is not refused by a timer that fires at the same moment.
func TestClient_FirstMessageBeatsTheAuthTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := keepaliveClient(t)
		c.begin(nil, manager.Moment{}, "")
		if !c.stopAuthTimeout() {
			t.Fatal("the time is up at the beginning")
		}
		c.onDeadline() // which has begun before it was stopped
		if !c.at(authenticating) {
			t.Errorf("the connection is closed with %+v", c.CloseReason())
		}
	})
}

// A connection that is closed after it has its identity and before the manager has it is not left with the manager.
func TestClient_ClosedBeforeItIsRegistered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		id := Identity{UserID: "ann"}
		c := openClient(t, id)
		if !c.setClosing(manager.NormalClosure) {
			t.Fatal("it was closing before")
		}
		synctest.Wait() // the manager has been told, and did not have it
		if err := c.connect(id, c.server.manager.Moment()); err != nil {
			t.Fatal(err)
		}
		if got := c.server.manager.UserConnections("ann"); len(got) != 0 {
			t.Errorf("the manager has %d connections of the user", len(got))
		}
	})
}

// A connection remembers the ids of its tokens, within a bound.
func TestClient_TokenIDsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := openClient(t, Identity{UserID: "ann"})
		for i := range 3 * maxTokenIDs {
			c.mu.Lock()
			c.addTokenLocked(fmt.Sprint(i % (2 * maxTokenIDs)))
			c.mu.Unlock()
		}
		if len(c.tokens) != maxTokenIDs || !c.HasToken(fmt.Sprint(2*maxTokenIDs-1)) && !c.HasToken(fmt.Sprint(maxTokenIDs-1)) {
			t.Errorf("%d tokens are remembered: %q", len(c.tokens), c.tokens)
		}
	})
}

// With AuthorizeClaims a connection gets the uploads of its own claims only; any other hook restricts nothing here.
func TestClient_AllowsUpload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := openClient(t, Identity{UserID: "ann", Uploads: []string{"public"}})
		if !c.AllowsUpload("secret") {
			t.Error("a server without AuthorizeClaims restricts uploads")
		}
		c.server.claimsOnly = true
		c.mu.Lock()
		c.setIdentityLocked(Identity{UserID: "ann", Uploads: []string{"public", "team-*"}})
		c.mu.Unlock()
		if !c.AllowsUpload("public") || !c.AllowsUpload("team-1") || c.AllowsUpload("secret") {
			t.Error("the claims are not respected")
		}
	})
	if !isAuthorizeClaims(AuthorizeClaims) || isAuthorizeClaims(AuthorizeOpen) || isAuthorizeClaims(nil) {
		t.Error("AuthorizeClaims is not recognised")
	}
}
