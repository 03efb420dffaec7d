package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/shoal/internal/testlog"
	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"
)

// A stream has the headers that keep proxies from buffering it, an acknowledgement, and messages with ids.
func TestEvents_StreamsAnUpload(t *testing.T) {
	n := start(t)
	n.publish("a/b c", 1)
	s := n.events("ann", "/events/uploads/a%2Fb%20c")
	for name, want := range map[string]string{
		"Content-Type": "text/event-stream", "Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no",
	} {
		if got := s.resp.Header.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	s.subscribed("a/b c", false)
	first := s.next()
	pos := n.publish("a/b c", 2)
	second := s.next()
	if first.data != `{"action":"note","n":1,"offset":1,"upload_id":"a/b c"}` || !strings.HasSuffix(first.id, ":1") {
		t.Errorf("the newest message came as %q", first)
	}
	if want := fmt.Sprintf("%s:%d", pos.Epoch, pos.Offset); second.id != want {
		t.Errorf("the id is %q, want %q", second.id, want)
	}
	if s.retry == "" {
		t.Error("no retry field")
	}
	if got := n.server.Stats(); got.OpenByTransport.SSE != 1 || got.OpenByTransport.WebSocket != 0 || got.Open != 1 {
		t.Errorf("stats count %+v", got.OpenByTransport)
	}
	if got := n.server.Inspect(); got.Events != 1 || got.V1 != 0 {
		t.Errorf("inspection counts %+v", got)
	}
	s.leave()
	waitFor(t, func() bool { return n.server.Stats().Open == 0 && n.manager.Stats().Connections == 0 })
	if got := n.server.Stats().OpenByTransport; got.SSE != 0 {
		t.Errorf("stats count %+v", got)
	}
}

// A payload with line breaks is one event.
func TestEvents_LineBreaksInPayload(t *testing.T) {
	n := start(t)
	s := n.events("ann", "/events/uploads/a")
	s.subscribed("a", false)
	n.publishJSON("a", "{\"action\":\"note\",\r\n\r\"text\":\"\\r\\nid: x\\n\\n\"\n\n}")
	if got := s.object(); got["text"] != "\r\nid: x\n\n" || got["offset"] != 1.0 {
		t.Errorf("got %v", got)
	}
	n.publish("a", 2)
	s.want(`{"action":"note","n":2,"offset":2,"upload_id":"a"}`)
}

// Only uploads of the stream come, from their acknowledgement on, and messages to the user.
func TestEvents_CarriesItsUploadsOnly(t *testing.T) {
	n := start(t)
	other := n.login("ann")
	other.send(`{"action":"subscribe_upload","upload_id":"b"}`)
	other.send(`{"action":"subscribe_upload","upload_id":"a"}`)
	n.publish("a", 1)
	other.want(`{"action":"note","n":1}`)
	s := n.events("ann", several("a", "c"))
	s.subscribed("a", false) // and not the newest message, which the user's subscription would bring
	s.want(`{"action":"note","n":1,"offset":1,"upload_id":"a"}`)
	s.subscribed("c", false)
	n.publish("b", 1)
	n.publish("c", 1)
	s.want(`{"action":"note","n":1,"offset":1,"upload_id":"c"}`)
	e, err := manager.Parse("", []byte(`{"action":"hello"}`), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.manager.SendToUser(context.Background(), "ann", e); err != nil {
		t.Fatal(err)
	}
	s.want(`{"action":"hello"}`)
}

// Wherever a stream is cut, the id of its last event brings every later message once.
func TestEvents_LastEventIDRecovers(t *testing.T) {
	n := start(t)
	for i := range 6 {
		n.publish([]string{"a", "b", "c"}[i%3], i)
	}
	first := n.events("ann", several("a", "b", "c"))
	for range 6 { // acknowledgements and newest messages
		first.next()
	}
	start := first.lastID
	first.leave()
	for i := range 30 {
		n.publish([]string{"a", "b", "c"}[i%3], 100+i)
	}
	for cut := range 33 { // events of the first connection
		got := map[float64]int{}
		last := start
		for _, most := range []int{cut, 33} {
			s := n.events("ann", several("c", "b", "a"), "Last-Event-ID", last)
			for acknowledged := 0; most > 0 && len(got) < 30; most-- {
				o := s.object()
				if o["action"] == "subscribed" {
					if acknowledged++; o["recovered"] != true {
						t.Fatalf("cut after %d: %v", cut, o)
					}
					continue
				}
				got[o["n"].(float64)]++
			}
			if s.lastID != "" {
				last = s.lastID
			}
			s.leave()
		}
		for i := range 30 {
			if got[float64(100+i)] != 1 {
				t.Fatalf("cut after %d: message %d came %d times", cut, i, got[float64(100+i)])
			}
		}
	}
}

// The header is newer than the parameter, which EventSource repeats; an id of another epoch does not recover.
func TestEvents_LastEventIDParameter(t *testing.T) {
	n := start(t)
	var last manager.Position
	for i := range 3 {
		last = n.publish("a", i+1)
	}
	id := func(offset int) string { return fmt.Sprintf("%s:%d", last.Epoch, offset) }
	s := n.events("ann", "/events/uploads/a?last_event_id="+url.QueryEscape(id(2)))
	s.subscribed("a", true)
	s.want(`{"action":"note","n":3,"offset":3,"upload_id":"a"}`)

	s = n.events("ann", "/events/uploads/a?last_event_id="+url.QueryEscape(id(0)), "Last-Event-ID", id(3))
	s.subscribed("a", true)
	n.publish("a", 4)
	s.want(`{"action":"note","n":4,"offset":4,"upload_id":"a"}`)

	for _, bad := range []string{"other:3", id(99)} {
		s = n.events("ann", "/events/uploads/a", "Last-Event-ID", bad)
		s.subscribed("a", false)
		s.want(`{"action":"note","n":4,"offset":4,"upload_id":"a"}`)
	}
}

// When the history starts over, an open stream gets the new position, and its id continues there.
func TestEvents_AnnounceNewEpoch(t *testing.T) {
	n := start(t)
	n.publish("a", 1)
	s := n.events("ann", "/events/uploads/a")
	s.subscribed("a", false)
	s.next()
	if err := n.manager.Forget(context.Background(), "a"); err != nil {
		t.Fatal(err)
	}
	s.subscribed("a", false)
	pos := n.publish("a", 2)
	if got, want := s.next().id, pos.Epoch+":1"; got != want {
		t.Errorf("the id is %q, want %q", got, want)
	}
}

// The user of a stream is that of the token, in the header or the address; anything else is refused.
func TestEvents_Authentication(t *testing.T) {
	n := start(t)
	for name, c := range map[string]struct {
		token, query   string
		status         int
		code, contains string
	}{
		"bearer":     {"ann", "", 200, "", ""},
		"parameter":  {"", "?access_token=ann", 200, "", ""},
		"both":       {"ann", "?access_token=ann", 400, "", "beside the header"},
		"none":       {"", "", 401, "", "a token is missing"},
		"empty":      {"", "?access_token=", 401, "", "a token is missing"},
		"refused":    {"bad", "", 401, "invalid", "Invalid signature"},
		"in doubt":   {"", "?access_token=broken", 503, "", "not possible now"},
		"bad id":     {"\u0085", "", 401, "invalid", "Authentication failed"},
		"twice":      {"", "?access_token=ann&access_token=ann", 400, "", "twice"},
		"misspelt":   {"", "?token=ann", 400, "", "unknown parameter"},
		"not base64": {"", "?access_token=%zz", 400, "", "malformed"},
	} {
		s := n.events(c.token, "/events/uploads/a"+c.query)
		if c.status == http.StatusOK {
			s.subscribed("a", false)
			s.leave()
			continue
		}
		if p := s.problem(c.status); p.Code != c.code || !strings.Contains(p.Detail, c.contains) {
			t.Errorf("%s: got %+v", name, p)
		}
		h := s.resp.Header
		if c.status == 401 && !strings.HasPrefix(h.Get("WWW-Authenticate"), "Bearer") ||
			c.status == 503 && h.Get("Retry-After") == "" {
			t.Errorf("%s: the header is %v", name, h)
		}
	}
	// A header for a proxy in front does not count as a second token.
	const withToken = "/events/uploads/a?access_token=ann"
	basic := n.events("", withToken, "Authorization", "Basic YW5uOmE=")
	basic.subscribed("a", false)
	basic.leave()
	n.events("", withToken, "Authorization", "bEARER ann").problem(http.StatusBadRequest)
	waitFor(t, func() bool { return n.server.Stats().Open == 0 })
}

// Identify decides by the request alone.
func TestEvents_Identify(t *testing.T) {
	n := start(t, func(_ *manager.Options, o *server.Options) {
		o.Authenticate = nil
		o.Identify = func(r *http.Request) (server.Identity, error) {
			c, err := r.Cookie("session")
			if err != nil {
				return server.Identity{}, err
			}
			if c.Value == "broken" {
				return server.Identity{}, errors.New("away")
			}
			return server.Identity{UserID: c.Value}, nil
		}
	})
	n.events("ann", "/events/uploads/a").problem(http.StatusUnauthorized)
	n.events("", "/events/uploads/a", "Cookie", "session=broken").problem(http.StatusServiceUnavailable)
	n.events("", "/events/uploads/a", "Cookie", "session=bob").subscribed("a", false)
	if got := n.manager.UploadSubscriberIDs("a"); len(got) != 1 || got[0] != "bob" {
		t.Errorf("the followers are %v", got)
	}
}

// A stream is refused if none of its uploads is allowed, or one cannot be decided; otherwise the others are named.
func TestEvents_Authorization(t *testing.T) {
	n := start(t)
	n.events("ann", "/events/uploads/secret").problem(http.StatusForbidden)
	n.events("ann", several("secret1", "secret2")).problem(http.StatusForbidden)
	n.events("ann", several("a", "broken")).problem(http.StatusServiceUnavailable)
	s := n.events("ann", several("a", "secret1", "b", "secret2"))
	for _, id := range []string{"secret1", "secret2"} {
		s.want(`{"action":"error","code":"forbidden","message":"you may not follow this upload","upload_id":"` + id + `"}`)
	}
	s.subscribed("a", false)
	s.subscribed("b", false)
	if got := n.server.Stats(); got.Forbidden != 5 || got.Unavailable != 1 {
		t.Errorf("counted %d forbidden and %d unavailable", got.Forbidden, got.Unavailable)
	}
}

// A panic of a hook is a 500 and leaves nothing behind.
func TestEvents_HookPanics(t *testing.T) {
	n := start(t, func(_ *manager.Options, o *server.Options) {
		o.Authorize = func(_ context.Context, _ server.Identity, id string) error {
			if id == "panic" {
				panic("secret")
			}
			return nil
		}
		o.OnConnect = func(c *server.Client) {
			if c.UserID() == "panic" {
				panic("secret")
			}
		}
	})
	n.events("ann", several("a", "panic")).problem(http.StatusInternalServerError)
	n.events("panic", several("a")).problem(http.StatusInternalServerError)
	waitFor(t, func() bool { return n.server.Stats().Open == 0 && n.manager.Stats().Users == 0 })
}

// Each malformed request is refused with a problem that names the field.
func TestEvents_RefusesBadRequests(t *testing.T) {
	many := make([]string, 2000)
	for i := range many {
		many[i] = fmt.Sprint(i)
	}
	n := start(t)
	for path, field := range map[string]string{
		"/events/uploads":                                       "id",
		"/events/uploads/":                                      "upload_id",
		"/events/uploads?id=":                                   "id",
		"/events/uploads/a?id=b":                                "query",
		several(many[:65]...):                                   "id",
		several(many...):                                        "id",
		several("a", "b", "a"):                                  "id",
		several("a", "b\r\nid: 1:1"):                            "id",
		"/events/uploads/a%0Ab":                                 "upload_id",
		"/events/uploads/%ED%A0%80":                             "upload_id",
		several("a", strings.Repeat("x", 256)):                  "id",
		"/events/uploads/a?last_event_id=x":                     "last_event_id",
		"/events/uploads/a?last_event_id=:1":                    "last_event_id",
		"/events/uploads/a?last_event_id=e:1:2":                 "last_event_id",
		"/events/uploads/a?last_event_id=e:-1":                  "last_event_id",
		"/events/uploads/a?last_event_id=e%0A:1":                "last_event_id",
		"/events/uploads/a?last_event_id=e:1&last_event_id=e:1": "last_event_id",
		several("a", "b") + "&last_event_id=x=y":                "last_event_id",
	} {
		p := n.events("ann", path).problem(http.StatusBadRequest)
		if p.Field != field {
			t.Errorf("%.60s: the field is %q (%s), want %q", path, p.Field, p.Detail, field)
		}
	}
	for _, id := range []string{"x", strings.Repeat("e", 20_000) + ":1", "e:99999999999999999999"} {
		p := n.events("ann", "/events/uploads/a", "Last-Event-ID", id).problem(http.StatusBadRequest)
		if p.Field != "Last-Event-ID" || strings.Contains(p.Detail, "eee") {
			t.Errorf("got %+v", p)
		}
	}
	if got := n.server.Stats().Refused.Handshake; got != 21 {
		t.Errorf("counted %d refusals", got)
	}
}

// HEAD is answered with the header of GET and OPTIONS with the methods; others are refused.
func TestEvents_Methods(t *testing.T) {
	n := start(t)
	transport := &http.Transport{DialContext: n.dial, DisableKeepAlives: true}
	ask := func(method, user, path string) *stream {
		return request(t, n.patienceContext(), transport, "http://"+n.host, method, path,
			http.Header{"Authorization": {"Bearer " + user}})
	}
	const methods = "GET, HEAD, OPTIONS"
	for _, method := range []string{"POST", "PUT", "DELETE", "PATCH", "get"} {
		s := ask(method, "ann", "/events/uploads/a")
		if s.problem(http.StatusMethodNotAllowed); s.resp.Header.Get("Allow") != methods {
			t.Errorf("%s: Allow is %q", method, s.resp.Header.Get("Allow"))
		}
	}
	if s := ask("OPTIONS", "ann", "/events/uploads/a"); s.resp.StatusCode != http.StatusNoContent ||
		s.resp.Header.Get("Allow") != methods {
		t.Errorf("OPTIONS was answered with %s, %v", s.resp.Status, s.resp.Header)
	}
	for user, path := range map[string]string{
		"ann": "/events/uploads/a", "bad": "/events/uploads/a", "broken": "/events/uploads/a", "bob": "/events/uploads/secret",
		"cid": "/events/uploads?id=", "dan": several("a", "b"),
	} {
		head, get := ask("HEAD", user, path), ask("GET", user, path)
		if head.resp.StatusCode != get.resp.StatusCode {
			t.Errorf("%s %s: HEAD was answered with %s, GET with %s", user, path, head.resp.Status, get.resp.Status)
		}
		for _, name := range []string{"Content-Type", "Cache-Control", "X-Accel-Buffering", "WWW-Authenticate", "Retry-After"} {
			if head, get := head.resp.Header.Get(name), get.resp.Header.Get(name); head != get {
				t.Errorf("%s %s: %s is %q with HEAD and %q with GET", user, path, name, head, get)
			}
		}
		if body, err := io.ReadAll(head.resp.Body); err != nil || len(body) > 0 {
			t.Errorf("%s %s: HEAD was answered with %q, %v", user, path, body, err)
		}
		_ = get.resp.Body.Close()
	}
	waitFor(t, func() bool { s := n.server.Stats(); return s.Open == 0 && s.OpenByTransport.SSE == 0 && s.Users == 0 })
	if s := n.events("ann", "/events/uploads/a/b"); s.resp.StatusCode != http.StatusNotFound {
		t.Errorf("a longer path was answered with %s", s.resp.Status)
	}
}

// Pages of allowed origins can read a stream, others are refused.
func TestEvents_Origin(t *testing.T) {
	const page = "https://app.example.com"
	n := start(t, func(_ *manager.Options, o *server.Options) { o.AllowedOrigins = []string{page} })
	s := n.events("ann", "/events/uploads/a", "Origin", page)
	s.subscribed("a", false)
	if h := s.resp.Header; h.Get("Access-Control-Allow-Origin") != page || h.Get("Vary") != "Origin" ||
		h.Get("Access-Control-Allow-Credentials") != "true" {
		t.Errorf("the header is %v", h)
	}
	s = n.events("bad", "/events/uploads/a", "Origin", page)
	if s.problem(http.StatusUnauthorized); s.resp.Header.Get("Access-Control-Allow-Origin") != page {
		t.Error("the page cannot read the problem")
	}
	s = n.events("broken", "/events/uploads/a", "Origin", page)
	if s.problem(http.StatusServiceUnavailable); s.resp.Header.Get("Access-Control-Expose-Headers") != "Retry-After" {
		t.Error("the page cannot read when to come back")
	}
	s = n.events("ann", "/events/uploads/a", "Origin", "https://evil.example.com")
	if s.problem(http.StatusForbidden); s.resp.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Error("a foreign page can read the answer")
	}
	for site, status := range map[string]int{
		"cross-site": http.StatusForbidden, "same-site": http.StatusForbidden, "same-origin": http.StatusOK, "none": http.StatusOK,
	} { // such as an image, which has the user's cookies and no Origin
		if s := n.events("ann", "/events/uploads/a", "Sec-Fetch-Site", site); s.resp.StatusCode != status {
			t.Errorf("without an Origin, %s: answered with %s", site, s.resp.Status)
		}
	}
	n.events("ann", "/events/uploads/a", "Origin", page, "Sec-Fetch-Site", "cross-site").subscribed("a", false)
	transport := &http.Transport{DialContext: n.dial, DisableKeepAlives: true}
	preflight := http.Header{"Origin": {page}, "Access-Control-Request-Method": {"GET"}}
	s = request(t, n.patienceContext(), transport, "http://"+n.host, "OPTIONS", "/events/uploads/a", preflight)
	if allowed := s.resp.Header.Get("Access-Control-Allow-Headers"); s.resp.StatusCode != http.StatusNoContent ||
		!strings.Contains(allowed, "Authorization") || !strings.Contains(allowed, "Last-Event-ID") {
		t.Errorf("the preflight was answered with %s, %v", s.resp.Status, s.resp.Header)
	}
}

// Every limit is answered with a status.
func TestEvents_Limits(t *testing.T) {
	n := start(t, func(m *manager.Options, o *server.Options) {
		m.MaxConnectionsPerUser, m.MaxSubscriptionsPerUser, o.MaxConnections = 2, 2, 3
	})
	s := n.events("ann", several("a", "b", "c"))
	s.subscribed("a", false)
	s.subscribed("b", false)
	s.want(`{"action":"error","code":"limit_exceeded","message":"the user follows as many uploads as are allowed",` +
		`"upload_id":"c"}`)
	p := n.events("ann", several("d")).problem(http.StatusTooManyRequests)
	if !strings.Contains(p.Detail, "uploads") {
		t.Errorf("got %+v", p)
	}
	waitFor(t, func() bool { return n.server.Stats().Open == 1 })
	n.events("ann", several("a")).subscribed("a", false)
	p = n.events("ann", several("a")).problem(http.StatusTooManyRequests)
	if !strings.Contains(p.Detail, "connections") {
		t.Errorf("got %+v", p)
	}
	waitFor(t, func() bool { return n.server.Stats().Open == 2 })
	n.events("bob", several("a")).subscribed("a", false)
	full := n.events("eve", several("a"))
	if full.problem(http.StatusServiceUnavailable); full.resp.Header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	if got := n.server.Stats().Refused; got.Full != 1 {
		t.Errorf("counted %+v", got)
	}
}

// A drain tells each client when to return, and ends the stream.
func TestEvents_Drain(t *testing.T) {
	n := start(t)
	s := n.events("ann", "/events/uploads/a")
	s.subscribed("a", false)
	drained := make(chan error, 1)
	go func() { drained <- n.server.Drain(n.patienceContext(), 0) }()
	before := s.wantClose(`{"code":1012,"reason":"Server reloading"}`)
	want := fmt.Sprintf(`{"action":"reconnect","retry_after_ms":%s}`, s.retry)
	if len(before) != 1 || before[0].data != want {
		t.Errorf("before the end came %q, want %s", before, want)
	}
	s.leave()
	if err := <-drained; err != nil {
		t.Error(err)
	}
	n.events("ann", "/events/uploads/a").problem(http.StatusServiceUnavailable)
}

// The last event of a stream that the application closes has the code.
func TestEvents_DisconnectUser(t *testing.T) {
	n := start(t)
	s := n.events("ann", "/events/uploads/a")
	s.subscribed("a", false)
	reason := manager.CloseReason{Code: 4123, Text: "gone\nid: x"}
	if _, err := n.manager.DisconnectUser(n.patienceContext(), "ann", reason); err != nil {
		t.Fatal(err)
	}
	s.wantClose(`{"code":4123,"reason":"gone\nid: x"}`)
}

// An idle stream gets a comment at each ping interval and is not closed for its silence; it ends with its token.
func TestEvents_KeepAliveAndExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := startPiped(t)
		s := n.events("ann/1h", "/events/uploads/a")
		s.subscribed("a", false)
		before := s.wantClose(`{"code":4003,"reason":"Invalid token"}`)
		want := `{"action":"auth_error","message":"Token has expired","code":"expired"}`
		if len(before) != 1 || before[0].data != want {
			t.Errorf("before the end came %q", before)
		}
		if s.comments < 118 || s.comments > 121 {
			t.Errorf("%d comments came in an hour, want one per 30 s", s.comments)
		}
	})
}

// A client that does not read is closed by the age of its queue; states queued before that are conflated.
func TestEvents_SlowConsumer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := startPiped(t, func(_ *manager.Options, o *server.Options) { o.QueueMessages = 4 })
		s := n.events("ann", "/events/uploads/a")
		s.subscribed("a", false)
		status := func(percent int) {
			n.publishJSON("a", fmt.Sprintf(`{"action":"upload_progress","payload":{"upload_id":"a","status":"analyzing",`+
				`"stage":"vision_analysis","progress_percent":%d,"message":""},"timestamp":"2026-01-01T00:00:00Z"}`, percent))
		}
		for percent := range 10 {
			status(percent)
			synctest.Wait()
		}
		skipped := 0.0
		for i := 0; i < 2; i++ {
			k, _ := s.object()["skipped"].(float64)
			skipped += k
		}
		if skipped != 8 {
			t.Errorf("%v states were skipped, want 8", skipped)
		}
		n.publish("a", 1)
		synctest.Wait()
		n.publish("a", 2)
		<-time.After(time.Minute)
		synctest.Wait()
		if got := n.server.Stats(); got.SlowConsumers != 1 || got.Open != 0 {
			t.Errorf("%d slow consumers and %d open connections", got.SlowConsumers, got.Open)
		}
	})
}

// No token is logged, at any level.
func TestEvents_TokensAreNotLogged(t *testing.T) {
	var log testlog.Buffer
	n := start(t, func(_ *manager.Options, o *server.Options) {
		o.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		o.Authenticate = func(_ context.Context, token string) (server.Identity, error) {
			switch token {
			case "hush-ok":
				return server.Identity{UserID: "ann"}, nil
			case "hush-broken":
				return server.Identity{}, errors.New("away")
			}
			return server.Identity{}, &server.TokenError{Message: "no"}
		}
	})
	for path, status := range map[string]int{
		"/events/uploads/a?access_token=hush-ok":                      200,
		"/events/uploads/a?access_token=hush-bad":                     401,
		"/events/uploads/a?access_token=hush-broken":                  503,
		"/events/uploads/secret?access_token=hush-ok":                 403,
		"/events/uploads/a?access_token=hush-%zz":                     400,
		"/events/uploads/a?access_token=hush&access_token=hush":       400,
		"/events/uploads/a?access_token=hush-ok&last_event_id=hush-x": 400,
	} {
		if s := n.events("", path); s.resp.StatusCode != status {
			t.Errorf("%s: %s", path, s.resp.Status)
		}
	}
	if text := log.String(); strings.Contains(text, "hush") || !strings.Contains(text, "event stream refused") {
		t.Errorf("the log is %s", text)
	}
}

// Behind a prefix the address of a stream begins with it. EventsHandler serves streams and nothing else.
func TestEvents_PathPrefix(t *testing.T) {
	n := start(t, func(_ *manager.Options, o *server.Options) { o.PathPrefix = "/rt" })
	n.events("ann", "/rt/events/uploads/a%2Fb").subscribed("a/b", false)
	n.events("ann", "/rt"+several("a")).subscribed("a", false)
	for _, path := range []string{"/events/uploads/a", "/rt/events/uploadsx", "/rt/events/uploads/a/b", "/rt/events"} {
		if s := n.events("ann", path); s.resp.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %s", path, s.resp.Status)
		}
	}
	alone := httptest.NewServer(n.server.EventsHandler())
	defer alone.Close()
	for path, want := range map[string]int{
		"/rt/events/uploads/a": http.StatusUnauthorized, "/rt/v1/stats": http.StatusNotFound,
		"/rt/ws/uploads": http.StatusNotFound,
	} {
		transport := &http.Transport{DisableKeepAlives: true}
		s := request(t, n.patienceContext(), transport, alone.URL, http.MethodGet, path, http.Header{})
		if s.resp.StatusCode != want {
			t.Errorf("EventsHandler answers %s with %s, want %d", path, s.resp.Status, want)
		}
	}
}
