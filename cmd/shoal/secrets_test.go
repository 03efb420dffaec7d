package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/shoal-go/shoal/server/jwtauth"
)

func TestToken(t *testing.T) {
	for name, c := range map[string]struct {
		env, args []string
		secret    string
		ttl       time.Duration
		uploads   []string
	}{
		"flag":        {nil, []string{"--jwt-secret=" + goodSecret}, goodSecret, time.Hour, nil},
		"environment": {[]string{"SHOAL_JWT_SECRET=" + goodSecret}, nil, goodSecret, time.Hour, nil},
		"file":        {nil, []string{"--jwt-secret-file=" + writeFile(t, "secret", "\ufeff"+goodSecret+"\r\n")}, goodSecret, time.Hour, nil},
		"dev":         {nil, []string{"--dev"}, "dev", time.Hour, nil},
		"dev, own":    {nil, []string{"--dev", "--jwt-secret=own"}, "own", time.Hour, nil},
		"ttl, uploads": {nil, []string{"--dev", "--ttl=90s", "--upload=a", "--uploads=b*"},
			"dev", 90 * time.Second, []string{"a", "b*"}},
	} {
		t.Run(name, func(t *testing.T) {
			before := time.Now()
			r := shoal(t, c.env, "", append([]string{"token", "alice"}, c.args...)...)
			r.wantDone(t)
			keys, err := jwtauth.New(jwtauth.Options{Secret: []byte(c.secret)})
			if err != nil {
				t.Fatal(err)
			}
			defer keys.Close()
			token, rest, _ := strings.Cut(r.out, "\n")
			id, err := keys.Authenticate(t.Context(), token)
			if err != nil || id.UserID != "alice" || rest != "" || !slices.Equal(id.Uploads, c.uploads) {
				t.Errorf("identity = %+v, err = %v, output %q", id, err, r.out)
			}
			earliest := before.Add(c.ttl).Truncate(time.Second)
			if id.Expires.Before(earliest) || id.Expires.After(time.Now().Add(c.ttl)) {
				t.Errorf("expires at %v, want %v or little later", id.Expires, earliest)
			}
		})
	}
}

// A token that a server would refuse for its length is not printed.
func TestToken_RefusesTooManyUploads(t *testing.T) {
	args := []string{"token", "alice", "--dev"}
	for i := range 1000 {
		args = append(args, fmt.Sprintf("--upload=upload-%d", i))
	}
	shoal(t, nil, "", args...).wantErrors(t, statusFailed, "shoal: the token has ")
}

// Tokens of the commands are for the audience and of the issuer that the server accepts, by the same file of settings.
func TestToken_IsForTheServersAudience(t *testing.T) {
	file := writeFile(t, "shoal.yaml", "jwt-audience: [shoal, other]\njwt-issuer: me\n")
	s := serveDev(t, "--config="+file)
	token := shoal(t, nil, "", "token", "alice", "--dev", "--config="+file)
	token.wantDone(t)
	if got := connect(t, s.url).authenticate(token.out); got != "alice" {
		t.Errorf("authenticated as %v", got)
	}
	bench := []string{"bench", "--dev", "--url=" + s.url, "--connections=1", "--messages=1"}
	if r := shoal(t, nil, "", append(bench, "--config="+file)...); r.status != statusDone {
		t.Errorf("bench ended with status %d: %s", r.status, r.err)
	}
	for want, flags := range map[string][]string{
		"Token is for another audience; check --jwt-audience": {"--jwt-issuer=me"},
		"Token is of another issuer; check --jwt-issuer":      {"--jwt-audience=shoal"},
	} {
		if r := shoal(t, nil, "", append(bench, flags...)...); r.status != statusFailed || !strings.Contains(r.err, want) {
			t.Errorf("status %d, want %q in %s", r.status, want, r.err)
		}
	}
	if claims := partyClaims([]string{"any"}, nil); len(claims) > 0 {
		t.Errorf("the claims for any audience are %v", claims)
	}
}

func TestTokenRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		want []string
	}{
		"no user":    {[]string{"--dev"}, []string{`expected "<user-id>"`}},
		"empty user": {[]string{"--dev", ""}, []string{"user-id must not be empty"}},
		"control":    {[]string{"--dev", "a\nb"}, []string{"user-id must not contain control characters"}},
		"no secret":  {[]string{"alice"}, []string{"--jwt-secret is missing, want the server's secret, or --dev"}},
		"short secret": {[]string{"alice", "--jwt-secret=hidden"},
			[]string{"--jwt-secret has 6 bytes, want at least 32"}},
		"uploads": {
			[]string{"alice", "--dev", "--upload=a\x01*", "--upload=\xff", "--upload=*", "--upload=" + strings.Repeat("u", 256)},
			[]string{"--upload must not contain control characters", "--upload must be valid UTF-8", "--upload has 256 bytes"}},
		"ttl": {[]string{"alice", "--dev", "--ttl=0"}, []string{`--ttl is "0", want a duration`}},
		"all at once": {[]string{"", "--ttl=x"},
			[]string{`--ttl is "x"`, "user-id must not be empty", "--jwt-secret is missing"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := shoal(t, nil, "", append([]string{"token"}, c.args...)...)
			r.wantErrors(t, statusUsage, c.want...)
			if strings.Contains(r.err, "hidden") {
				t.Errorf("the secret is printed:\n%s", r.err)
			}
		})
	}
}

func TestVersion(t *testing.T) {
	for _, argument := range []string{"version", "--version"} {
		r := shoal(t, nil, "", argument)
		r.wantDone(t)
		fields := strings.Fields(r.out)
		if len(fields) != 4 || fields[0] != "shoal" || !strings.HasPrefix(fields[2], "go1.") {
			t.Errorf("%s is %q", argument, r.out)
		}
	}
}

// confidential are the values of a run that nothing may write: each occurs somewhere in the conversation of
// TestServe_WritesNoSecretOrPayload.
type confidential struct {
	secret, key, wrongKey, token, wrongToken, renewed, payload, refusedPayload, clientMessage, query string
}

func (c confidential) all() map[string]string {
	return map[string]string{
		"JWT secret": c.secret, "API key": c.key, "wrong API key": c.wrongKey, "token": c.token, "wrong token": c.wrongToken,
		"renewed token": c.renewed, "payload": c.payload, "refused payload": c.refusedPayload,
		"client message": c.clientMessage, "query": c.query,
		"signature of the token": c.token[strings.LastIndex(c.token, ".")+1:],
	}
}

// A server at its most talkative log level writes no secret, token or payload: not to its log and output, not in
// metrics, problems and statistics, and not to a file.
func TestServe_WritesNoSecretOrPayload(t *testing.T) {
	folder := t.TempDir()
	t.Setenv("TMPDIR", folder)
	c := confidential{
		secret: "jwt-secret-" + strings.Repeat("7361", 8), key: "key-7361-right", wrongKey: "key-7361-wrong",
		wrongToken: "eyJ-token-7361-wrong.a.b", payload: "payload-7361", refusedPayload: "refused-7361",
		clientMessage: "client-7361", query: "query-7361",
	}
	secretFile := writeFile(t, "secret", c.secret)
	s := serve(t, 1, "--jwt-secret="+c.secret, "--authorize=claims", "--api-key="+c.key, "--log-level=debug", "--pprof")
	sign := func(user string) string {
		r := shoal(t, []string{"SHOAL_JWT_SECRET=" + c.secret}, "", "token", user, "--upload=*")
		r.wantDone(t)
		return strings.TrimSpace(r.out)
	}
	c.token, c.renewed = sign("alice"), sign("mallory")
	var written strings.Builder
	ask := func(method, path, key, body string) {
		status, text := call(t, method, path, key, body)
		fmt.Fprintf(&written, "%d %s\n", status, text)
	}

	talk(t, s, c)
	ask("POST", s.url+"/v1/uploads/u/messages", c.wrongKey, `{"action":"note"}`)
	ask("POST", s.url+"/v1/uploads/u/messages", c.key, `{"action":"note","text":"`+c.payload+`"}`)
	ask("POST", s.url+"/v1/uploads/u/messages", c.key, `{"action":"upload_progress","payload":"`+c.refusedPayload+`"}`)
	ask("POST", s.url+"/v1/uploads/u/messages", c.key, `{"`+c.refusedPayload)
	ask("POST", s.url+"/v1/users/alice/messages", c.key, `{"action":"note","text":"`+c.payload+`"}`)
	ask("GET", s.url+"/v1/stats?access_token="+c.query, c.key, "")
	ask("GET", s.url+"/ws/uploads?access_token="+c.query, "", "")
	for _, path := range []string{
		"/metrics", "/healthz", "/readyz", "/debug/vars", "/debug/pprof/", "/debug/pprof/cmdline", "/debug/pprof/symbol",
		"/debug/pprof/goroutine?debug=2", "/debug/pprof/goroutine", "/debug/pprof/heap?debug=1", "/debug/pprof/heap",
		"/debug/pprof/allocs?debug=1", "/debug/pprof/trace?seconds=0.1",
	} {
		ask("GET", s.admin+path, "", "")
	}
	if status := s.end(); status != statusDone {
		t.Errorf("status = %d", status)
	}
	text := written.String() + s.log.String() + strings.Join(s.out, "\n") + contents(t, folder, secretFile)
	for name, value := range c.all() {
		if at := strings.Index(text, value); at >= 0 {
			t.Errorf("the %s was written: …%s…", name, text[max(0, at-200):min(len(text), at+len(value)+50)])
		}
	}
	if !strings.Contains(text, "alice") || !strings.Contains(text, "level=DEBUG") {
		t.Errorf("the log is not that of a talkative server:\n%s", s.log)
	}
}

// talk has clients authenticate, fail to, renew, send nonsense and receive a message.
func talk(t *testing.T, s *served, c confidential) {
	t.Helper()
	refused := connect(t, s.url)
	refused.send(`{"type":"auth","token":"` + c.wrongToken + `"}`)
	refused.closed()
	bearer := http.Header{"Authorization": {"Bearer " + c.wrongToken}}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+"/ws/uploads", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header = bearer
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, response.Body)
	_ = response.Body.Close()
	alice := connect(t, s.url)
	alice.authenticate(c.token)
	alice.send(`{"action":"subscribe_upload","upload_id":"u"}`)
	alice.send(`{"action":"app.own","text":"` + c.clientMessage + `"}`)
	alice.send(`["` + c.clientMessage + `"`)
	alice.send(`{"type":"auth","token":"` + c.renewed + `"}`) // of another user
	alice.closed()
}

// contents returns the text of all files in a folder but one.
func contents(t *testing.T, folder, except string) string {
	t.Helper()
	var text strings.Builder
	err := filepath.WalkDir(folder, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() || path == except {
			return err
		}
		data, err := os.ReadFile(path)
		text.Write(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return text.String()
}

// Neither listener serves profiles or variables of the process by default. With --pprof the admin listener serves profiles,
// but not the command line, which may hold secrets.
func TestServe_HasProfilesOnRequestOnly(t *testing.T) {
	paths := []string{
		"/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/goroutine", "/debug/pprof/symbol", "/debug/pprof/cmdline",
		"/debug/vars",
	}
	for _, on := range []bool{false, true} {
		s := serveDev(t, "--pprof="+strconv.FormatBool(on))
		for _, listener := range []string{s.url, s.admin} {
			for _, path := range paths {
				want := http.StatusNotFound
				if on && listener == s.admin && path != "/debug/pprof/cmdline" && path != "/debug/vars" {
					want = http.StatusOK
				}
				if status, _ := call(t, "GET", listener+path, "", ""); status != want {
					t.Errorf("with --pprof=%v %s%s answers %d, want %d", on, listener, path, status, want)
				}
			}
		}
	}
}
