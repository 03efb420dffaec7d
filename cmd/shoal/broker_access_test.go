package main

import (
	"strings"
	"testing"
)

// A prefix is in front of all channels: of uploads, of users and of the nodes themselves.
func TestServe_WorksWithAChannelPrefix(t *testing.T) {
	s := serveDev(t, "--broker=nats-embedded", "--channel-prefix=staging")
	for status := 0; status != 200; {
		status, _ = call(t, "GET", s.admin+"/readyz", "", "")
	}
	c := login(t, s.url)
	c.send(`{"action":"subscribe_upload","upload_id":"a.b c*"}`)
	for done := false; !done; {
		_, text := call(t, "GET", s.url+"/v1/uploads/a.b%20c*/subscribers", "dev", "")
		done = strings.Contains(text, "alice")
	}
	if status, text := call(t, "POST", s.url+"/v1/uploads/a.b%20c*/messages", "dev", `{"action":"note"}`); status != 202 {
		t.Errorf("publishing gets %d %s", status, text)
	}
	c.receive("note")
	if status, text := call(t, "POST", s.url+"/v1/users/alice/messages", "dev", `{"action":"hello"}`); status != 202 && status != 200 {
		t.Errorf("a message to a user gets %d %s", status, text)
	}
	c.receive("hello")
}

func TestCheckConfig_NamesProblemsOfTheBrokersAccess(t *testing.T) {
	cert, key := newPair(t, "client")
	certFile, keyFile := writeFile(t, "cert.pem", string(cert)), writeFile(t, "key.pem", string(key))
	nonsense := writeFile(t, "nonsense", "nonsense")
	for name, c := range map[string]struct {
		args []string
		want string // "": it is right
	}{
		"prefix":              {[]string{"--broker=redis://h", "--channel-prefix=prod"}, ""},
		"prefix with a dot":   {[]string{"--broker=redis://h", "--channel-prefix=a.b"}, "--channel-prefix is"},
		"prefix alone":        {[]string{"--channel-prefix=prod"}, "--broker with it"},
		"TLS":                 {[]string{"--broker=rediss://h", "--broker-tls-ca=" + certFile, "--broker-tls-cert=" + certFile, "--broker-tls-key=" + keyFile}, ""},
		"TLS with NATS":       {[]string{"--broker=tls://h:4222", "--broker-tls-ca=" + certFile, "--broker-tls-min-version=1.3"}, ""},
		"TLS without":         {[]string{"--broker=redis://h", "--broker-tls-ca=" + certFile}, "rediss://"},
		"authority":           {[]string{"--broker=rediss://h", "--broker-tls-ca=" + nonsense}, "--broker-tls-ca"},
		"certificate alone":   {[]string{"--broker=rediss://h", "--broker-tls-cert=" + certFile}, "belong together"},
		"missing credentials": {[]string{"--broker=nats://h:4222", "--nats-credentials=/nowhere"}, "CredentialsFile"},
		"no nkey":             {[]string{"--broker=nats://h:4222", "--nats-nkey=" + nonsense}, "NKeyFile"},
		"nkey with Redis":     {[]string{"--broker=redis://h", "--nats-nkey=" + nonsense}, "nats://"},
	} {
		r := shoal(t, nil, "", append([]string{"check-config", "--dev"}, c.args...)...)
		if c.want == "" && r.status != statusDone || c.want != "" && (r.status != statusUsage || !strings.Contains(r.err, c.want)) {
			t.Errorf("%s: status %d, %s", name, r.status, r.err)
		}
	}
}
