package main

import (
	"slices"
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
		"dev":         {nil, []string{"--dev"}, "dev", time.Hour, nil},
		"dev, own":    {nil, []string{"--dev", "--jwt-secret=own"}, "own", time.Hour, nil},
		"ttl, uploads": {nil, []string{"--dev", "--ttl=90s", "--uploads=a", "--uploads=b*"},
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
