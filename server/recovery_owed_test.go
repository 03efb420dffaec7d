package server_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"
)

// completed is the terminal message of the upload cat.
const completed = `{"action":"upload_completed","upload_id":"cat","description":"d","audit_score":1}`

// A client that subscribes once more while it is still owed messages gets them, the terminal one among them, and then
// the answer.
func TestRecovery_SubscribingAgainDropsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := startPiped(t)
		var since manager.Position
		for i := range 4 { // keeps the client busy
			if pos := n.publishJSON("busy", event(i, 5000)); i == 0 {
				since = pos
			}
		}
		n.publishJSON("cat", completed)
		c := n.login("ann", "shoal.v1")
		c.send(fmt.Sprintf(`{"action":"subscribe_upload","upload_id":"busy","since":{"epoch":%q,"offset":1}}`, since.Epoch))
		synctest.Wait()
		c.send(`{"action":"subscribe_upload","upload_id":"cat"}`)
		c.send(`{"action":"subscribe_upload","upload_id":"cat"}`)
		synctest.Wait()
		var got []string
		for len(got) < 3 {
			if m := c.nextV1(); m.UploadID == "cat" {
				got = append(got, fmt.Sprint(m.Action, m.Offset))
			}
		}
		if got, want := fmt.Sprint(got), "[subscribed1 upload_completed1 subscribed1]"; got != want {
			t.Errorf("the client got %s, want %s", got, want)
		}
	})
}

// A base client whose live messages are read from the history later is closed if that no longer holds them: it could
// not notice that some are missing.
func TestRecovery_BaseIsClosedWhereMessagesAreLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := startPiped(t, func(mo *manager.Options, _ *server.Options) { mo.HistoryMessages = 4 })
		for i := range 3 {
			n.publishJSON(fmt.Sprint("busy", i), event(i, 50_000))
		}
		n.publishJSON("cat", event(0, 50_000))
		c := n.login("ann")
		for _, upload := range []string{"busy0", "busy1", "busy2", "cat"} {
			c.send(fmt.Sprintf(`{"action":"subscribe_upload","upload_id":%q}`, upload))
		}
		synctest.Wait()
		n.publishJSON("cat", completed)
		for i := 1; i <= 300; i++ {
			n.publishJSON("cat", event(i, 50_000))
		}
		for _, text := range c.wantClose(manager.SlowConsumer) {
			if strings.Contains(text, `"n":300`) {
				t.Error("the newest message came after a gap")
			}
		}
	})
}

// A renewal ends the recovery of an upload that the new token does not allow, also while another connection of the user
// follows it.
func TestRecovery_EndsWithNarrowerToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := startPiped(t, neverIdle, func(mo *manager.Options, so *server.Options) {
			mo.HistoryMessages = 1000
			so.Authenticate, so.Authorize = claimTokens, server.AuthorizeClaims
		})
		other := n.open("shoal.v1")
		other.send(`{"type":"auth","token":"u0"}`)
		other.next()
		other.send(`{"action":"subscribe_upload","upload_id":"u0"}`)
		other.next()
		since := missed{1, 500, 1000}.store(n) // 25 s
		n.slow(slowLine)
		c := n.open("shoal.v1")
		c.send(`{"type":"auth","token":"u0+u1"}`)
		c.next()
		c.send(resumeMessage(t, since))
		c.next()
		c.send(`{"type":"auth","token":"u1"}`)
		for c.nextV1().Action != "auth_success" { // some messages were on their way
		}
		c.send(`{"action":"subscribe_upload","upload_id":"u1"}`)
		if ended, ack := c.nextV1(), c.nextV1(); ended.Action != "unsubscribed" || ack.Action != "subscribed" {
			t.Errorf("after the renewal came %+v and %+v", ended, ack)
		}
	})
}
