package server_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/shoal/internal/testlog"
	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"
)

// wantError reads the next message, which must be an error of shoal.v1 with this code and text.
func (c *client) wantError(code, text string) map[string]any {
	c.t.Helper()
	o := c.object()
	if message, _ := o["message"].(string); o["action"] != "error" || o["code"] != code || !strings.Contains(message, text) {
		c.t.Fatalf("got %v, want an error %s with %q", o, code, text)
	}
	return o
}

func logTo(log *testlog.Buffer) func(*manager.Options, *server.Options) {
	return func(_ *manager.Options, o *server.Options) { o.Logger = slog.New(slog.NewTextHandler(log, nil)) }
}

// A token that cannot be checked now is not reported as bad: the client should reconnect.
func TestAuthenticate_UnavailableIsNotInvalid(t *testing.T) {
	var log testlog.Buffer
	n := start(t, logTo(&log))
	base := n.open()
	base.send(`{"type":"auth","token":"broken"}`)
	if before := base.wantClose(manager.TryAgainLater); len(before) != 0 {
		t.Errorf("base: %q before the close frame", before)
	}
	v1 := n.open("shoal.v1")
	v1.send(`{"type":"auth","token":"broken"}`)
	if e := v1.object(); e["action"] != "auth_error" || e["code"] != "unavailable" {
		t.Errorf("v1: got %v, want auth_error unavailable", e)
	}
	if r := v1.object(); r["action"] != "reconnect" || r["retry_after_ms"] == nil {
		t.Errorf("v1: got %v, want reconnect", r)
	}
	v1.wantClose(manager.TryAgainLater)
	for range 50 {
		c := n.open()
		c.send(`{"type":"auth","token":"broken"}`)
		c.wantClose(manager.TryAgainLater)
	}
	if lines := strings.Count(log.String(), "authentication unavailable"); lines != 1 || !strings.Contains(log.String(), "level=WARN") {
		t.Errorf("%d log lines, want 1:\n%s", lines, log.String())
	}
	if s := n.server.Stats(); s.Unavailable != 52 || s.Unauthenticated != 0 {
		t.Errorf("%d unavailable, %d unauthenticated, want 52 and 0", s.Unavailable, s.Unauthenticated)
	}
}

// On shoal.v1 auth_error has a code.
func TestAuthenticate_ErrorCodes(t *testing.T) {
	n := start(t, func(_ *manager.Options, o *server.Options) { o.AuthTimeout = 200 * time.Millisecond })
	for send, code := range map[string]string{
		`{"type":"auth","token":"bad"}`: "invalid", `{"type":"auth"}`: "required", ``: "timeout",
	} {
		c := n.open("shoal.v1")
		if send != "" {
			c.send(send)
		}
		if e := c.object(); e["action"] != "auth_error" || e["code"] != code {
			t.Errorf("%s: got %v, want code %s", send, e, code)
		}
	}
}

// AuthTimeout covers the first message only; Authenticate has a timeout of its own and a context that ends with the
// connection.
func TestAuthenticate_HasItsOwnTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		left := make(chan error, 1)
		n := startPiped(t, func(_ *manager.Options, o *server.Options) {
			o.AuthTimeout, o.HookTimeout = time.Second, 3*time.Second
			o.Authenticate = func(ctx context.Context, token string) (server.Identity, error) {
				if token == "ann" {
					<-time.After(500 * time.Millisecond)
					return server.Identity{UserID: token}, nil
				}
				<-ctx.Done()
				left <- ctx.Err()
				return server.Identity{}, ctx.Err()
			}
		})
		c := n.open()
		<-time.After(700 * time.Millisecond)
		c.send(`{"type":"auth","token":"ann"}`)
		c.want(`{"action":"auth_success","user_id":"ann"}`)

		begin := time.Now()
		c = n.open()
		c.send(`{"type":"auth","token":"hangs"}`)
		c.wantClose(manager.TryAgainLater)
		if took := time.Since(begin); took != 3*time.Second || !errors.Is(<-left, context.DeadlineExceeded) {
			t.Errorf("gave up after %v, want HookTimeout", took)
		}
	})
}

// A connection may be kept beyond its token, for clients that do not renew it.
func TestOptions_ExpiryOnConnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := startPiped(t, neverIdle, func(_ *manager.Options, o *server.Options) { o.TokenExpiry = server.ExpiryOnConnect })
		c := n.login("ann/1m")
		c.send(`{"action":"subscribe_upload","upload_id":"a"}`)
		time.AfterFunc(time.Hour, func() { n.publish("a", 1) })
		c.want(`{"action":"note","n":1}`)
	})
}

// Each error of Identify has its status, an invalid id is refused at the upgrade, and failures are logged.
func TestIdentify_Errors(t *testing.T) {
	var log testlog.Buffer
	n := start(t, logTo(&log), func(_ *manager.Options, o *server.Options) {
		o.Authenticate = nil
		o.Identify = func(r *http.Request) (server.Identity, error) {
			if _, limited := r.Context().Deadline(); !limited {
				t.Error("the context has no deadline")
			}
			switch kind := r.Header.Get("X-Kind"); kind {
			case "token":
				return server.Identity{}, &server.TokenError{Message: "no session"}
			case "forbidden":
				return server.Identity{}, server.ErrForbidden
			case "down":
				return server.Identity{}, errors.New("session database: connection refused")
			case "long":
				return server.Identity{UserID: strings.Repeat("x", 300)}, nil
			default:
				return server.Identity{UserID: kind}, nil
			}
		}
	})
	for kind, status := range map[string]int{"token": 401, "forbidden": 403, "down": 503, "long": 500, "": 500} {
		_, resp, err := n.tryOpen(http.Header{"X-Kind": {kind}})
		if err == nil || resp.StatusCode != status || (status == 503) != (resp.Header.Get("Retry-After") != "") {
			t.Errorf("%s: %v, want status %d", kind, err, status)
		}
		events := n.events("", "/events/uploads/a", "X-Kind", kind)
		events.problem(status)
		for _, resp := range []*http.Response{resp, events.resp} {
			if challenge := resp.Header.Get("WWW-Authenticate"); (status == 401) != (challenge == `Bearer realm="shoal"`) {
				t.Errorf("%s: the challenge of %s is %q", kind, resp.Status, challenge)
			}
		}
	}
	if text := log.String(); !strings.Contains(text, "connection refused") || !strings.Contains(text, "invalid user id") {
		t.Errorf("the failures are not logged:\n%s", text)
	}
	if _, _, err := n.tryOpen(http.Header{"X-Kind": {"ann"}}); err != nil {
		t.Error(err)
	}
}

// A subscription that cannot be decided now is answered on shoal.v1 and ends a connection on the base protocol; one
// that is forbidden is counted and logged.
func TestAuthorize_NothingIsLostInSilence(t *testing.T) {
	var log testlog.Buffer
	n := start(t, logTo(&log))
	base, v1 := n.login("ann"), n.login("bob", "shoal.v1")
	v1.send(`{"action":"subscribe_upload","upload_id":"broken"}`)
	if e := v1.wantError("internal", "try again later"); e["upload_id"] != "broken" || e["retry_after_ms"] == nil {
		t.Errorf("got %v, want the upload and a time", e)
	}
	v1.send(`{"action":"resume","uploads":{"broken":{"epoch":"e","offset":1},"fine":{"epoch":"e","offset":1}}}`)
	v1.wantError("internal", "try again later")
	if r := v1.object(); r["action"] != "resumed" {
		t.Errorf("got %v, want resumed for the other upload", r)
	}
	base.send(`{"action":"subscribe_upload","upload_id":"secret"}`)
	base.send(`{"action":"subscribe_upload","upload_id":"secret"}`)
	base.send(`{"action":"subscribe_upload","upload_id":"broken"}`)
	base.wantClose(manager.TryAgainLater)
	if s := n.server.Stats(); s.Forbidden != 2 || s.Unavailable != 3 {
		t.Errorf("%d forbidden, %d unavailable, want 2 and 3", s.Forbidden, s.Unavailable)
	}
	text := log.String()
	if strings.Count(text, "subscription forbidden") != 1 || strings.Count(text, "authorization unavailable") != 1 {
		t.Errorf("want one line of each kind:\n%s", text)
	}
}

func resumeOf(uploads int, prefix string) string {
	var b strings.Builder
	b.WriteString(`{"action":"resume","uploads":{`)
	for i := range uploads {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `"%s%d":{"epoch":"e","offset":0}`, prefix, i)
	}
	b.WriteString(`}}`)
	return b.String()
}

// The calls of Authorize for one resume run in parallel, bounded, with one deadline for all of them.
func TestAuthorize_ResumeInParallel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var running, most atomic.Int64
		n := startPiped(t, neverIdle, func(_ *manager.Options, o *server.Options) {
			o.PingInterval = 24 * time.Hour // the client answers a ping only while the server reads
			o.Authorize = func(ctx context.Context, _ server.Identity, uploadID string) error {
				now := running.Add(1)
				defer running.Add(-1)
				for old := most.Load(); now > old && !most.CompareAndSwap(old, now); old = most.Load() {
				}
				wait := 10 * time.Millisecond
				if strings.HasPrefix(uploadID, "slow") {
					wait = time.Hour
				}
				select {
				case <-time.After(wait):
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		})
		c := n.login("ann", "shoal.v1")
		begin := time.Now()
		c.send(resumeOf(160, "u"))
		if r := c.object(); r["action"] != "resumed" || len(r["uploads"].(map[string]any)) != 160 {
			t.Errorf("got %v", r["action"])
		}
		if took := time.Since(begin); took != 100*time.Millisecond || most.Load() != 16 {
			t.Errorf("took %v with %d at a time, want 100ms with 16", took, most.Load())
		}
		begin = time.Now()
		c.send(resumeOf(160, "slow"))
		c.wantError("internal", "try again later")
		if took := time.Since(begin); took != 10*time.Second {
			t.Errorf("an authorizer that hangs took %v, want HookTimeout once", took)
		}
	})
}

// The limit of subscriptions is checked before Authorize is called.
func TestAuthorize_LimitsComeFirst(t *testing.T) {
	var calls atomic.Int64
	n := start(t, func(m *manager.Options, o *server.Options) {
		m.MaxSubscriptionsPerUser = 3
		o.Authorize = func(context.Context, server.Identity, string) error { calls.Add(1); return nil }
	})
	c := n.login("ann", "shoal.v1")
	c.send(resumeOf(5, "u"))
	for _, beyond := range []string{"u3", "u4"} {
		if e := c.wantError("limit_exceeded", "as many uploads as are allowed"); e["upload_id"] != beyond {
			t.Errorf("refused %v, want %s", e["upload_id"], beyond)
		}
	}
	if resumed, _ := c.object()["uploads"].(map[string]any); len(resumed) != 3 || resumed["u0"] == nil || resumed["u2"] == nil {
		t.Errorf("resumed %v, want as many uploads as are allowed", resumed)
	}
	if calls.Load() != 3 {
		t.Errorf("Authorize was called %d times for a resume beyond the limit, want 3", calls.Load())
	}
	for _, send := range []string{`{"action":"subscribe_upload","upload_id":"more"}`, resumeOf(1, "more")} {
		c.send(send)
		c.wantError("limit_exceeded", "as many uploads as are allowed")
		if send[11] == 'r' {
			c.object() // resumed, without any
		}
	}
	if calls.Load() != 3 {
		t.Errorf("Authorize was called %d times, want 3", calls.Load())
	}
}

// A client that leaves ends the context of Authorize, and no further upload of its resume is asked about.
func TestAuthorize_EndsWithItsClient(t *testing.T) {
	var calls atomic.Int64
	asked := make(chan struct{}, 100)
	n := start(t, func(_ *manager.Options, o *server.Options) {
		o.HookTimeout = time.Hour
		o.Authorize = func(ctx context.Context, _ server.Identity, _ string) error {
			calls.Add(1)
			asked <- struct{}{}
			<-ctx.Done()
			return ctx.Err()
		}
	})
	c := n.login("ann", "shoal.v1")
	c.send(resumeOf(100, "u"))
	for range 16 {
		<-asked
	}
	_ = c.conn.CloseNow()
	waitFor(t, func() bool { return n.server.Stats().Open == 0 })
	if calls.Load() != 16 {
		t.Errorf("Authorize was called %d times, want 16", calls.Load())
	}
}

// Many refusals of one message are answered in few errors, which do not fill the queue of their client.
func TestAuthorize_ManyRefusalsAreCombined(t *testing.T) {
	n := start(t, func(_ *manager.Options, o *server.Options) { o.QueueMessages = 16 })
	c := n.login("ann", "shoal.v1")
	c.send(resumeOf(1000, "secret"))
	var refused []string
	for {
		e := c.object()
		if e["action"] == "resumed" {
			break
		}
		for _, id := range e["upload_ids"].([]any) {
			refused = append(refused, id.(string))
		}
	}
	slices.Sort(refused)
	if len(slices.Compact(refused)) != 1000 {
		t.Errorf("%d uploads are refused, want 1000", len(refused))
	}
}

// A page on the base protocol subscribes to all of its uploads at once after a reconnect.
func TestReceive_SubscribingToEverythingAtOnce(t *testing.T) {
	n := start(t)
	c := n.login("ann")
	for i := range 1024 {
		c.send(fmt.Sprintf(`{"action":"subscribe_upload","upload_id":"u%d"}`, i))
	}
	waitFor(t, func() bool { return len(n.manager.UploadSubscriberIDs("u1023")) == 1 })
	n.publish("u1023", 1)
	c.want(`{"action":"note","n":1}`)
	// The limit is refilled while a slow machine sends.
	var sending sync.WaitGroup
	sending.Go(func() {
		for c.conn.Write(c.ctx, 1, []byte(`{"action":"pong"}`)) == nil {
		}
	})
	c.wantClose(manager.TooManyMessages)
	sending.Wait()
}

// A renewal with narrower rights ends the subscriptions that they do not allow, and the connection is found by each of
// its tokens.
func TestRenew_NarrowerRights(t *testing.T) {
	n := start(t, func(_ *manager.Options, o *server.Options) {
		o.Authenticate, o.Authorize = claimTokens, server.AuthorizeClaims
	})
	c := n.open("shoal.v1")
	c.send(`{"type":"auth","token":"a+b"}`)
	c.object()
	subscribe(t, c, "a", 0)
	subscribe(t, c, "b", 0)
	c.send(`{"type":"auth","token":"a"}`)
	c.want(`{"action":"auth_success","user_id":"ann"}`, `{"action":"unsubscribed","upload_id":"b"}`)
	n.publish("b", 1)
	n.publish("a", 2)
	if m := c.object(); m["n"] != 2.0 {
		t.Errorf("got %v, want the message of a only", m)
	}
	c.send(`{"action":"subscribe_upload","upload_id":"b"}`)
	c.wantError("forbidden", "may not follow")
	c.send(`{"action":"unsubscribe_upload","upload_id":"b"}`)
	c.want(`{"action":"unsubscribed","upload_id":"b"}`)
	if closed, err := n.manager.DisconnectToken(t.Context(), "a+b", manager.NormalClosure); closed != 1 || err != nil {
		t.Errorf("%d connections of the first token were closed, %v, want 1", closed, err)
	}
}

// claimTokens authenticates a token, a list of uploads, as a token of ann.
func claimTokens(_ context.Context, token string) (server.Identity, error) {
	return server.Identity{UserID: "ann", TokenID: token, Uploads: strings.Split(token, "+")}, nil
}

// With AuthorizeClaims a connection gets the messages of the uploads of its own token only, although another connection
// of the same user follows others: live messages, the newest message on connecting, and new epochs.
func TestAuthorizeClaims_HoldBetweenTokensOfAUser(t *testing.T) {
	n := start(t, func(_ *manager.Options, o *server.Options) {
		o.Authenticate, o.Authorize = claimTokens, server.AuthorizeClaims
	})
	var conns []*client
	for _, subprotocol := range []string{"", "shoal.v1"} {
		for _, token := range []string{"public", "secret", "public+secret"} {
			c := n.open(strings.Fields(subprotocol)...)
			c.send(`{"type":"auth","token":"` + token + `"}`)
			c.object()
			for upload := range strings.SplitSeq(token, "+") {
				c.send(`{"action":"subscribe_upload","upload_id":"` + upload + `"}`)
				if subprotocol != "" {
					c.object()
				}
			}
			c.send(`{"action":"subscribe_upload","upload_id":"other"}`)
			if subprotocol != "" {
				c.wantError("forbidden", "")
			}
			conns = append(conns, c)
		}
	}
	waitFor(t, func() bool { return n.server.Stats().Forbidden == 6 })
	if err := n.manager.SubscribeUpload(t.Context(), "ann", "held"); err != nil {
		t.Fatal(err)
	}
	n.publish("held", 0)
	if err := n.manager.Forget(t.Context(), "held"); err != nil {
		t.Fatal(err)
	}
	for i, upload := range []string{"secret", "public", "held"} {
		n.publish(upload, i+1)
	}
	late := n.open()
	late.send(`{"type":"auth","token":"public"}`)
	late.object()
	waitFor(t, func() bool { return n.manager.Stats().Connections == len(conns)+1 }) // auth_success precedes Connect
	n.publish("public", 4)
	for i, c := range append(conns, late) {
		want := [][]float64{{2, 4}, {1}, {1, 2, 4}}[i%3]
		if c == late {
			want = []float64{4}
		}
		for _, number := range want {
			if m := c.object(); m["n"] != number {
				t.Errorf("connection %d: got %v, want number %v", i, m, number)
			}
		}
	}
	// Nothing else has come.
	for _, c := range append(conns, late) {
		c.send(`{"type":"auth","token":"public"}`)
		if m := c.object(); m["action"] != "auth_success" {
			t.Errorf("got %v, want auth_success", m)
		}
	}
}

// Names are exact and given once; other messages are passed to OnMessage unchanged.
func TestRequest_NamesAreExact(t *testing.T) {
	own := make(chan string, 1)
	n := start(t, func(_ *manager.Options, o *server.Options) {
		o.OnMessage = func(c *server.Client, m server.Incoming) bool {
			own <- string(m.Data)
			c.SendText([]byte(`{"action":"own"}`))
			return true
		}
	})
	c := n.login("ann", "shoal.v1")
	subscribe(t, c, "mine", 0)
	for _, text := range []string{
		`{"ACTION":"unsubscribe_upload","UPLOAD_ID":"mine"}`, `{"action":"app.own","Action":"unsubscribe_upload","upload_id":"mine"}`,
		`{"Action":"pong"}`, `{"TYPE":"auth"}`, `{"Type":"auth","kind":1}`, `{"action":"app.own","x":1,"x":2}`, `{"action":5}`,
		`{"action":"\ud800"}`, `{"\ud800":1}`, `[1]`, `hello`,
	} {
		c.send(text)
		c.want(`{"action":"own"}`)
		if got := <-own; got != text {
			t.Errorf("OnMessage got %s, want %s", got, text)
		}
	}
	for _, text := range []string{
		`{"action":"unsubscribe_upload","action":"ping","upload_id":"mine"}`, `{"action":"app.own","\u0061ction":"ping"}`,
		`{"action":"unsubscribe_upload","upload_id":"mine","upload_id":"other"}`, `{"type":"auth","token":"ann","token":"bob"}`,
		`{"action":"resume","uploads":{},"uploads":{}}`, `{"action":"ping","x":1,"x":2}`,
	} {
		c.send(text)
		c.wantError("bad_request", "must not be given twice")
	}
	for _, text := range []string{`{"action":"subscribe_upload","upload_id":"x","type":5,"Since":7,"ſince":7,"more":{}}`} {
		c.send(text)
		if ack := c.object(); ack["action"] != "subscribed" || ack["upload_id"] != "x" {
			t.Errorf("%s: got %v, want subscribed", text, ack)
		}
	}
	if users := n.manager.UploadSubscriberIDs("mine"); len(users) != 1 {
		t.Error("the subscription was ended by one of these messages")
	}
}

// Two different ids never become one: text that is not valid Unicode is refused by the field's name.
func TestRequest_IDsAreValidUnicode(t *testing.T) {
	n := start(t)
	c := n.login("ann", "shoal.v1")
	for text, field := range map[string]string{
		`{"action":"subscribe_upload","upload_id":"\ud800"}`:                                            "upload_id",
		`{"action":"subscribe_upload","upload_id":"a\udc00b"}`:                                          "upload_id",
		`{"action":"subscribe_upload","upload_id":"\ufffd"}`:                                            "upload_id",
		`{"action":"unsubscribe_upload","upload_id":"\ud801"}`:                                          "upload_id",
		`{"action":"resume","uploads":{"\ud800":{"epoch":"e","offset":1}}}`:                             "upload",
		`{"action":"subscribe_upload","upload_id":"a","since":{"epoch":"\ud800","offset":1}}`:           "since.epoch",
		`{"action":"resume","uploads":{"a\ufffd":{"epoch":"e","offset":1}}}`:                            "upload_id",
		`{"action":"resume","uploads":{"a":{"epoch":"e","offset":1},"\u0061":{"epoch":"","offset":2}}}`: "uploads",
	} {
		c.send(text)
		c.wantError("bad_request", field)
	}
	c.send(`{"action":"subscribe_upload","upload_id":"\ud83d\ude00"}`)
	if ack := c.object(); ack["upload_id"] != "😀" {
		t.Errorf("got %v, want the emoji's upload", ack)
	}
}

// A position has both of its members, once, and no other.
func TestRequest_PositionsAreComplete(t *testing.T) {
	n := start(t)
	c := n.login("ann", "shoal.v1")
	for _, position := range []string{
		`{}`, `{"epoch":"e"}`, `{"offset":1}`, `{"epoch":"e","offset":1,"x":1}`, `{"epoch":"e","offset":1,"offset":1}`,
		`{"epoch":"e","Offset":1}`, `{"epoch":null,"offset":1}`, `{"epoch":1,"offset":1}`, `{"epoch":"e","offset":null}`,
		`{"epoch":"e","offset":"1"}`, `{"epoch":"e","offset":1.0}`, `{"epoch":"e","offset":1e0}`, `{"epoch":"e","offset":-1}`,
		`{"epoch":"e","offset":-0}`, `{"epoch":"e","offset":18446744073709551616}`, `[]`, `7`, `"e:1"`, `true`,
	} {
		c.send(`{"action":"subscribe_upload","upload_id":"a","since":` + position + `}`)
		c.wantError("bad_request", "since")
		c.send(`{"action":"resume","uploads":{"a":` + position + `}}`)
		c.wantError("bad_request", "uploads.a")
	}
	for _, since := range []string{`null`, `{"epoch":"","offset":0}`, `{"offset":18446744073709551615,"epoch":"e"}`} {
		c.send(`{"action":"subscribe_upload","upload_id":"a","since":` + since + `}`)
		if ack := c.object(); ack["action"] != "subscribed" {
			t.Errorf("%s: got %v, want subscribed", since, ack)
		}
	}
}

// Options that cannot work together, or with those of the manager, are refused, and none repeats a key.
func TestOptions_ThatCannotWorkAreRefused(t *testing.T) {
	m, err := manager.New(manager.Options{MaxMessageBytes: 100_000})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close(t.Context())
	for want, change := range map[string]func(*server.Options){
		"MaxMessageBytes": func(o *server.Options) { o.MaxMessageBytes = 100_001 },
		"QueueBytes":      func(o *server.Options) { o.QueueBytes = 100_000 + server.FrameOverhead - 1 },
		"APIKeys[1] is":   func(o *server.Options) { o.APIKeys = []string{"good", ""} },
		"APIKeys[0] has":  func(o *server.Options) { o.APIKeys = []string{"secret key"} },
		"TokenExpiry":     func(o *server.Options) { o.TokenExpiry = 7 },
		"HookTimeout":     func(o *server.Options) { o.HookTimeout = 1 },
		"ClientMessageBurst is 3, want at least 4":               func(o *server.Options) { o.ClientMessageBurst = 3 },
		"MaxClientMessageBytes is 1023, want 1024 to 1073741824": func(o *server.Options) { o.MaxClientMessageBytes = 1023 },
		"MaxClientMessageBytes is 1073741825, want 1024 to":      func(o *server.Options) { o.MaxClientMessageBytes = 1<<30 + 1 },
		"ClientMessageRate is 0.06, want at least 0.067, because clients send 2 messages in each PingInterval, which is 30s": func(
			o *server.Options,
		) {
			o.ClientMessageRate = 0.06
		},
	} {
		o := server.Options{Manager: m, Authenticate: tokens, Authorize: server.AuthorizeOpen}
		change(&o)
		if _, err := server.New(o); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret key") {
			t.Errorf("%s: err = %v", want, err)
		}
	}
	o := server.Options{Manager: m, Authenticate: tokens, Authorize: server.AuthorizeOpen, QueueBytes: 100_000 + server.FrameOverhead}
	s, err := server.New(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// The largest message of the manager fits into the smallest queue that is accepted, with the longest id.
func TestOptions_LargestMessageFitsTheSmallestQueue(t *testing.T) {
	const most = 4096
	n := start(t, func(m *manager.Options, o *server.Options) {
		m.MaxMessageBytes, o.QueueBytes = most, most+server.FrameOverhead
	})
	id := strings.Repeat(`"`, 255)
	encoded := strings.ReplaceAll(id, `"`, `\"`)
	c := n.login("ann", "shoal.v1")
	c.send(`{"action":"subscribe_upload","upload_id":"` + encoded + `"}`)
	c.object()
	n.publishJSON(id, `{"action":"note","text":"`+strings.Repeat("x", most-27)+`"}`)
	if m := c.object(); m["action"] != "note" || m["upload_id"] != id {
		t.Errorf("got %v", m["action"])
	}
}
