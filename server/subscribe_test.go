package server_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"
)

func TestSubscribe_NewestThenLiveMessages(t *testing.T) {
	n := start(t)
	n.publish("a", 1)
	n.publish("a", 2)
	base, v1 := n.login("ann"), n.login("bob", "shoal.v1")
	base.send(`{"action":"subscribe_upload","upload_id":"a"}`)
	base.want(`{"action":"note","n":2}`)
	v1.send(`{"action":"subscribe_upload","upload_id":"a"}`)
	if ack := v1.object(); ack["action"] != "subscribed" || ack["upload_id"] != "a" || ack["offset"] != 2.0 ||
		ack["recovered"] != false || ack["epoch"] == "" {
		t.Fatalf("acknowledged with %v", ack)
	}
	v1.want(`{"action":"note","n":2,"offset":2,"upload_id":"a"}`)
	n.publish("a", 3)
	base.want(`{"action":"note","n":3}`)
	v1.want(`{"action":"note","n":3,"offset":3,"upload_id":"a"}`)
}

func TestSubscribe_MessagesReachEveryConnectionOfTheUserUntilTheLastClaimEnds(t *testing.T) {
	n := start(t)
	one, two := n.login("ann", "shoal.v1"), n.login("ann", "shoal.v1")
	waitFor(t, func() bool { return n.manager.Stats().Connections == 2 }) // auth_success comes ahead of that
	subscribe(t, one, "a", 0)
	n.publish("a", 1)
	one.want(`{"action":"note","n":1,"offset":1,"upload_id":"a"}`)
	two.want(`{"action":"note","n":1,"offset":1,"upload_id":"a"}`)

	subscribe(t, two, "a", 1)
	two.want(`{"action":"note","n":1,"offset":1,"upload_id":"a"}`) // its own claim shows it the state
	one.send(`{"action":"unsubscribe_upload","upload_id":"a"}`)
	one.want(`{"action":"unsubscribed","upload_id":"a"}`)
	n.publish("a", 2)
	one.want(`{"action":"note","n":2,"offset":2,"upload_id":"a"}`)
	two.want(`{"action":"note","n":2,"offset":2,"upload_id":"a"}`)

	two.send(`{"action":"unsubscribe_upload","upload_id":"a"}`)
	two.want(`{"action":"unsubscribed","upload_id":"a"}`)
	if ids := n.manager.UploadSubscriberIDs("a"); len(ids) > 0 {
		t.Errorf("%v still follow the upload", ids)
	}
}

// subscribe subscribes on shoal.v1 and expects the acknowledgement.
func subscribe(t *testing.T, c *client, uploadID string, offset int) (epoch string) {
	t.Helper()
	c.send(`{"action":"subscribe_upload","upload_id":"` + uploadID + `"}`)
	ack := c.object()
	if ack["action"] != "subscribed" || ack["offset"] != float64(offset) {
		t.Fatalf("acknowledged with %v, want offset %d", ack, offset)
	}
	return ack["epoch"].(string)
}

func TestSubscribe_ReturningClientRecovers(t *testing.T) {
	n := start(t)
	pos := n.publish("a", 1)
	n.publish("a", 2)
	n.publish("a", 3)
	c := n.login("ann", "shoal.v1")
	c.send(fmt.Sprintf(`{"action":"subscribe_upload","upload_id":"a","since":{"epoch":%q,"offset":1}}`, pos.Epoch))
	c.want(fmt.Sprintf(`{"action":"subscribed","upload_id":"a","epoch":%q,"offset":3,"recovered":true}`, pos.Epoch),
		`{"action":"note","n":2,"offset":2,"upload_id":"a"}`, `{"action":"note","n":3,"offset":3,"upload_id":"a"}`)

	c.send(`{"action":"subscribe_upload","upload_id":"a","since":{"epoch":"another","offset":1}}`)
	c.want(fmt.Sprintf(`{"action":"subscribed","upload_id":"a","epoch":%q,"offset":3,"recovered":false}`, pos.Epoch),
		`{"action":"note","n":3,"offset":3,"upload_id":"a"}`)
}

func TestResume_AnswersOnceForManyUploads(t *testing.T) {
	n := start(t)
	quiet := n.publish("quiet", 1)
	busy := n.publish("busy", 1)
	n.publish("busy", 2)
	n.publish("lost", 1)
	c := n.login("ann", "shoal.v1")
	c.send(fmt.Sprintf(`{"action":"resume","uploads":{"quiet":{"epoch":%q,"offset":1},"busy":{"epoch":%q,"offset":1},
		"lost":{"epoch":"gone","offset":9},"secret":{"epoch":"x","offset":0}}}`, quiet.Epoch, busy.Epoch))
	c.want(`{"action":"error","code":"forbidden","message":"you may not follow this upload","upload_id":"secret"}`)
	answer := c.object()
	uploads, _ := answer["uploads"].(map[string]any)
	if answer["action"] != "resumed" || len(uploads) != 3 {
		t.Fatalf("answered with %v", answer)
	}
	for id, want := range map[string]string{
		"quiet": fmt.Sprintf("map[epoch:%s offset:1 recovered:true]", quiet.Epoch),
		"busy":  fmt.Sprintf("map[epoch:%s offset:2 recovered:true]", busy.Epoch),
	} {
		if got := fmt.Sprint(uploads[id]); got != want {
			t.Errorf("%s: answered with %s, want %s", id, got, want)
		}
	}
	missed := []string{c.next(), c.next()}
	slices.Sort(missed)
	if want := []string{`{"action":"note","n":1,"offset":1,"upload_id":"lost"}`, `{"action":"note","n":2,"offset":2,"upload_id":"busy"}`}; !slices.Equal(missed, want) {
		t.Errorf("missed messages are %v, want %v", missed, want)
	}
	n.publish("quiet", 2)
	c.want(`{"action":"note","n":2,"offset":2,"upload_id":"quiet"}`)
}

func TestSubscribe_ForgottenUploadHasNewEpoch(t *testing.T) {
	n := start(t)
	pos := n.publish("a", 1)
	base, v1 := n.login("ann"), n.login("bob", "shoal.v1")
	base.send(`{"action":"subscribe_upload","upload_id":"a"}`)
	base.want(`{"action":"note","n":1}`)
	subscribe(t, v1, "a", 1)
	v1.want(`{"action":"note","n":1,"offset":1,"upload_id":"a"}`)
	if err := n.manager.Forget(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	ack := v1.object()
	if ack["action"] != "subscribed" || ack["offset"] != 0.0 || ack["epoch"] == pos.Epoch {
		t.Fatalf("told %v, want a new epoch at offset 0", ack)
	}
	n.publish("a", 7)
	v1.want(`{"action":"note","n":7,"offset":1,"upload_id":"a"}`)
	base.want(`{"action":"note","n":7}`)
}

func TestRequest_Refusals(t *testing.T) {
	badID := func(problem string) string {
		return `{"action":"error","code":"bad_request","message":"upload_id ` + problem + `"}`
	}
	bad := func(problem string) string {
		return `{"action":"error","code":"bad_request","message":"` + problem + `"}`
	}
	const unknown = `{"action":"error","code":"unknown_action","message":"the action is not known here"}`
	n := start(t)
	base, v1 := n.login("ann"), n.login("bob", "shoal.v1")
	for _, test := range []struct{ send, answer string }{
		{`{"action":"subscribe_upload","upload_id":"secret"}`,
			`{"action":"error","code":"forbidden","message":"you may not follow this upload","upload_id":"secret"}`},
		{`{"action":"subscribe_upload"}`, badID("must not be empty")},
		{`{"action":"subscribe_upload","upload_id":"a\u0007"}`, badID("must not contain control characters")},
		{`{"action":"subscribe_upload","upload_id":"` + strings.Repeat("x", 256) + `"}`,
			badID("has 256 bytes, at most 255 are allowed")},
		{`{"action":"subscribe_upload","upload_id":7}`, bad(`\"upload_id\" has the wrong type: number`)},
		{`{"action":"unsubscribe_upload","upload_id":""}`, badID("must not be empty")},
		{`{"action":"resume"}`, bad(`\"uploads\" must be an object of positions by upload id`)},
		{`{"action":"resume","uploads":[]}`, bad(`\"uploads\" has the wrong type: array`)},
		{`{"action":"dance"}`, unknown},
		{`{}`, unknown},
		{`[]`, bad("a message must be one JSON object")},
		{`{"action":`, bad("a message must be one JSON object")},
		{`subscribe`, bad("a message must be one JSON object")},
		{``, bad("a message must be one JSON object")},
	} {
		base.send(test.send)
		v1.send(test.send)
		v1.want(test.answer)
	}
	// On the base protocol all of that is ignored, and the connection stays open.
	n.publish("a", 1)
	base.send(`{"action":"subscribe_upload","upload_id":"a"}`)
	base.want(`{"action":"note","n":1}`)
	if s := n.server.Stats(); s.Ignored == 0 || s.Failed == 0 {
		t.Errorf("ignored %d and refused %d, want both counted", s.Ignored, s.Failed)
	}
}

func TestRequest_PingAndPongAreNotAnswered(t *testing.T) {
	n := start(t)
	c := n.login("ann", "shoal.v1")
	c.send(`{"action":"ping"}`)
	c.send(`{"action":"pong"}`)
	subscribe(t, c, "a", 0)
}

func TestSubscribe_UserLimit(t *testing.T) {
	n := start(t, func(m *manager.Options, _ *server.Options) { m.MaxSubscriptionsPerUser = 1 })
	v1 := n.login("ann", "shoal.v1")
	subscribe(t, v1, "a", 0)
	v1.send(`{"action":"subscribe_upload","upload_id":"b"}`)
	v1.want(`{"action":"error","code":"limit_exceeded","message":"the user follows as many uploads as are allowed","upload_id":"b"}`)

	base := n.login("bob")
	base.send(`{"action":"subscribe_upload","upload_id":"a"}`)
	base.send(`{"action":"subscribe_upload","upload_id":"b"}`)
	base.wantClose(manager.TooManySubscriptions)
}

func TestUpgrade_IsRefused(t *testing.T) {
	n := start(t, func(_ *manager.Options, o *server.Options) {
		o.AllowedOrigins = []string{"https://app.example.com"}
		o.MaxConnections = 1
	})
	for origin, allowed := range map[string]bool{
		"https://app.example.com":      true,
		"https://APP.example.com":      true,
		"http://app.example.com":       false,
		"https://app.example.com.evil": false,
		"https://evil.example.com":     false,
		"null":                         false,
		"http://" + n.host:             false,
	} {
		c, resp, err := n.tryOpen(http.Header{"Origin": {origin}})
		if allowed != (err == nil) {
			t.Errorf("origin %s: %v, want allowed %v", origin, err, allowed)
		}
		if err != nil && resp.StatusCode != http.StatusForbidden {
			t.Errorf("origin %s: status %d, want 403", origin, resp.StatusCode)
		}
		if err == nil {
			c.send("x")
			c.wantClose(manager.InvalidFormat)
			waitFor(t, func() bool { return n.server.Stats().Open == 0 })
		}
	}
	first := n.open()
	_, resp, err := n.tryOpen(nil)
	if err == nil || resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
		t.Errorf("beyond the limit: %v, want 503 with Retry-After", err)
	}
	_ = first
}
