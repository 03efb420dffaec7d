package main

import (
	"regexp"
	"strings"
	"testing"
)

// good are the flags of a server that may start; more of a test's own follow.
func good(more ...string) []string {
	return append([]string{"check-config", "--jwt-secret=" + goodSecret, "--authorize=open"}, more...)
}

func TestCheckConfigAccepts(t *testing.T) {
	for _, args := range [][]string{
		good(),
		{"check-config", "--dev"},
		{"check-config", "--dev", "--addr=localhost:0", "--admin-addr=[::1]:0"},
		{"check-config", "--dev", "--jwt-secret=mine", "--api-key=mine", "--authorize=claims"},
		good("--authorize=https://who.example/may"),
		good("--jwks=https://keys.example/jwks", "--jwt-audience=any"),
		good("--addr=:8080", "--admin-addr=0.0.0.0:0"),
		good("--addr=127.0.0.1:0", "--admin-addr=127.0.0.1:0"),
		good("--allowed-origin=https://a.example", "--allowed-origin=http://b.example:81"),
		good("--class=build_progress=state:build_id", "--class=build_log=event", "--statuses=running,done", "--stages=a.b-c_1"),
		good("--max-connections=0", "--client-message-rate=2.5/s", "--queue-bytes=2MiB", "--log-format=json"),
		good("--path-prefix=/shoal"), good("--path-prefix=/a-b/c.d"),
		good("--api-key=one", "--api-key=two", "--broker=memory", "--dev=false"),
	} {
		r := shoal(t, nil, "", args...)
		r.wantDone(t)
		if r.out != "configuration ok\n" {
			t.Errorf("%q: output %q", args, r.out)
		}
	}
}

func TestServeAndCheckConfigRefuse(t *testing.T) {
	authority, _ := newPair(t, "authority")
	noKeys := writeFile(t, "jwks.json", `{"keys":[]}`)
	for name, c := range map[string]struct {
		args []string // after good()
		want []string
	}{
		"address without port": {[]string{"--addr=localhost"}, []string{`--addr is "localhost", want host:port`}},
		"port too large": {[]string{"--admin-addr=:65536"},
			[]string{`--admin-addr is ":65536", want host:port`}},
		"port by name":     {[]string{"--addr=:http"}, []string{`--addr is ":http", want host:port`}},
		"port with a plus": {[]string{"--addr=:+80"}, []string{`--addr is ":+80"`}},
		"same address": {[]string{"--addr=:80", "--admin-addr=:80"},
			[]string{`--admin-addr is ":80", want another address than --addr`}},
		"dev on all interfaces": {[]string{"--dev", "--addr=:8080"},
			[]string{`--addr is ":8080", want a loopback address`}},
		"dev in public": {[]string{"--dev", "--addr=192.0.2.1:80", "--admin-addr=example.com:80"},
			[]string{`--addr is "192.0.2.1:80", want a loopback address`,
				`--admin-addr is "example.com:80", want a loopback`}},
		"short secret": {[]string{"--jwt-secret=hunter2"}, []string{"--jwt-secret has 7 bytes, want at least 32"}},
		"broker of a file": {[]string{"--broker-file=" + writeFile(t, "broker", "hunter2")},
			[]string{"--broker-file names no broker that is known, want memory, nats://host:port"}},
		"jwks missing": {[]string{"--jwks=missing.json"},
			[]string{`--jwks is "missing.json", want the path of a JSON Web Key Set, but`}},
		"jwks empty":            {[]string{"--jwks=" + noKeys}, []string{"it has no keys"}},
		"jwks without audience": {[]string{"--jwks=https://keys.example/jwks"}, []string{`--jwt-audience is missing`}},
		"jwt-secret of a file":  {[]string{"--jwt-secret=" + goodSecret + "\n"}, []string{`--jwt-secret begins or ends with white space`}},
		"secret of a file":      {[]string{"--cluster-secret=0123456789abcdef\n"}, []string{`--cluster-secret begins or ends with white space`}},
		"jwks by ftp": {[]string{"--jwks=ftp://u:hidden@h/k", "--jwt-audience=any"},
			[]string{`--jwks is "ftp://u:xxxxx@h/k", want the path of a file, or a URL`}},
		"authorize": {[]string{"--authorize=maybe"},
			[]string{`--authorize is "maybe", want open, claims, or the http(s):// URL`}},
		"authorize no URL": {[]string{"--authorize=http://[::1"},
			[]string{`--authorize cannot be parsed, want open, claims`}},
		"port of a URL": {[]string{"--authorize=http://h:0", "--jwks=http://u:hidden@h:65536", "--jwt-audience=any"},
			[]string{`--jwks is "http://u:xxxxx@h:65536", want a port from 1 to 65535 in it`, `--authorize is "http://h:0", want a port`}},
		"URL without a host": {[]string{"--authorize=http://:80"}, []string{`--authorize is "http://:80", want open, claims`}},
		"ports of services": {[]string{"--webhook=http://h:65536", "--webhook-secret=0123456789abcdef", "--trace-endpoint=http://h:0"},
			[]string{`--webhook is "http://h:65536", want a port`, `--trace-endpoint is "http://h:0", want a port`}},
		"trace header twice": {
			[]string{"--trace-endpoint=http://h", "--trace-header=Authorization: hidden", "--trace-header=authorization: hidden"},
			[]string{"--trace-header has a header a second time, want each once"}},
		"empty api key": {[]string{"--api-key="}, []string{"--api-key has an empty entry"}},
		"bad api key": {[]string{"--api-key=a b"},
			[]string{"--api-key has an entry that has characters that no HTTP header can contain"}},
		"prefix without slash":  {[]string{"--path-prefix=shoal"}, []string{`--path-prefix is "shoal", it must begin with a slash`}},
		"prefix with a slash":   {[]string{"--path-prefix=/shoal/"}, []string{`--path-prefix is "/shoal/", it must not end with a slash`}},
		"prefix that is a root": {[]string{"--path-prefix=/"}, []string{`want a path like /shoal`}},
		"origin with path": {[]string{"--allowed-origin=https://a.example/"},
			[]string{`--allowed-origin is "https://a.example/", not an origin, want scheme://host`}},
		"class":          {[]string{"--class=x=nonsense"}, []string{`--class has the entry "x=nonsense", which has the class "nonsense", must be state`}},
		"class twice":    {[]string{"--class=x=state", "--class=x=event"}, []string{`--class gives "x" two classes, state and event`}},
		"class reserved": {[]string{"--class=ping=event"}, []string{`--class has the entry "ping=event", which has the action "ping", which is reserved`}},
		"stage":          {[]string{"--stages=ok,Not OK"}, []string{`--stages has the entry "Not OK", which must be 1 to 64 characters`}},
		"origin pattern": {[]string{"--allowed-origin=https://*.a.example"}, []string{`--allowed-origin is "https://*.a.example", it has a *`}},
		"origin a host":  {[]string{"--allowed-origin=a.example"}, []string{`--allowed-origin is "a.example"`}},
		"cert alone": {[]string{"--tls-cert=c.pem"},
			[]string{`--tls-cert is "c.pem", want a --tls-key with it`}},
		"key alone": {[]string{"--tls-key=k.pem"}, []string{`--tls-key is "k.pem", want a --tls-cert with it`}},
		"large authorities": {[]string{"--tls-client-ca=" + writeFile(t, "ca.pem", string(authority)+strings.Repeat("\n", 1<<20))},
			[]string{"is larger than 1048576 bytes", "want a --tls-cert with it"}},
		"no certificate": {[]string{"--tls-cert=c.pem", "--tls-key=k.pem"},
			[]string{`--tls-cert is "c.pem", want a certificate that fits --tls-key "k.pem", but open c.pem`}},
		"idle and ping": {[]string{"--idle-timeout=30s"},
			[]string{`--idle-timeout is "30s", want more than --ping-interval, which is 30s`}},
		"queue too small": {[]string{"--queue-bytes=32KiB"},
			[]string{`--queue-bytes is "32768", want at least --max-message-bytes, which is 65536`}},
		"number": {[]string{"--max-connections=many"},
			[]string{`--max-connections is "many", want a whole number from 0 to 10000000`}},
		"negative": {[]string{"--history-messages=-1"},
			[]string{`--history-messages is "-1", want a whole number from 1 to 100000`}},
		"zero": {[]string{"--queue-messages=0"},
			[]string{`--queue-messages is "0", want a whole number from 1`}},
		"duration": {[]string{"--ping-interval=30"},
			[]string{`--ping-interval is "30", want a duration such as 1s or 1m30s, from 1s to 1h`}},
		"duration too long": {[]string{"--auth-timeout=2m"}, []string{`--auth-timeout is "2m"`}},
		"size": {[]string{"--queue-bytes=1MB"},
			[]string{`--queue-bytes is "1MB", want a number of bytes such as 65536, 64KiB or 1MiB,`}},
		"rate": {[]string{"--client-message-rate=50"},
			[]string{`--client-message-rate is "50", want a rate such as 50/s`}},
		"any audience": {[]string{"--jwt-audience=any", "--jwt-audience=shoal"},
			[]string{"--jwt-audience has any beside other entries, want one or the other"}},
		"host":        {[]string{"--addr=a b:80"}, []string{`--addr is "a b:80", want host:port`}},
		"small burst": {[]string{"--client-message-rate=50/s,3"}, []string{`want a rate such as 50/s, or 50/s,200 with a burst of 4 or more`}},
		"small rate": {[]string{"--client-message-rate=0.06/s"},
			[]string{`--client-message-rate is "0.06/s", want at least 0.067/s, because clients send 2 messages in each --ping-interval`}},
		"bool": {[]string{"--dev=perhaps"}, []string{`--dev is "perhaps", want true or false`}},
		"level": {[]string{"--log-level=loud"},
			[]string{`--log-level is "loud", want one of debug, info, warn, error`}},
		"format":        {[]string{"--log-format=xml"}, []string{`--log-format is "xml", want one of text, json`}},
		"unknown flag":  {[]string{"--adr=:80"}, []string{`unknown flag --adr, did you mean "--addr"`}},
		"argument":      {[]string{"now"}, []string{"unexpected argument beside --jwt-secret; a value with spaces must be quoted"}},
		"value missing": {[]string{"--addr"}, []string{"--addr: a value is missing"}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, command := range []string{"check-config", "serve"} {
				args := good(c.args...)
				args[0] = command
				r := shoal(t, nil, "", args...)
				r.wantErrors(t, statusUsage, c.want...)
				for _, secret := range []string{"hunter2", "hidden", goodSecret} {
					if strings.Contains(r.err, secret) {
						t.Errorf("a secret is printed:\n%s", r.err)
					}
				}
			}
		})
	}
}

func TestServeNeedsToKnowWhoAndWhat(t *testing.T) {
	shoal(t, nil, "", "serve").wantErrors(t, statusUsage,
		"--jwt-secret and --jwks are both missing, want one of them, or --dev",
		"--authorize is missing, want open, claims, or the http(s):// URL")
}

func TestEveryComplaintAtOnceFromWhereItCame(t *testing.T) {
	file := writeFile(t, "shoal.yaml", "adr: x\nping-interval: soon\nlog-level: [info, warn]\nqueue-age: {a: b}\n")
	r := shoal(t, []string{"SHOAL_QUEUE_BYTES=12", "SHOAL_JWT_SECRET=short"}, "",
		"check-config", "--config="+file, "--drain=forever", "--tls-key=k")
	r.wantErrors(t, statusUsage,
		`--drain is "forever", want a duration`,
		file+`:1: unknown key "adr", did you mean "addr"?`,
		file+":4: queue-age has keys below it, want a value",
		file+`:2: ping-interval is "soon", want a duration`,
		`SHOAL_QUEUE_BYTES is "12", want a number of bytes`,
		file+":3: log-level is a list, want one value",
		"SHOAL_JWT_SECRET has 5 bytes, want at least 32",
		"--authorize is missing",
		`--tls-key is "k", want a --tls-cert with it`)
}

// The help names each flag's variable; docs/configuration.md lists the flags.
func TestFlagsOfServe(t *testing.T) {
	r := shoal(t, nil, "", "serve", "--help")
	r.wantDone(t)
	var flags []string
	for _, match := range regexp.MustCompile(`(?m)^  (?:-h, |    )--([a-z-]+)`).FindAllStringSubmatch(r.out, -1) {
		flags = append(flags, match[1])
	}
	if len(flags) == 0 {
		t.Error("the help lists no flags")
	}
	for _, name := range flags {
		if name != "help" && !strings.Contains(strings.Join(strings.Fields(r.out), " "), "("+variable(name)+")") {
			t.Errorf("the help does not name the variable of --%s", name)
		}
	}
}

func TestHelpShowsNoSecret(t *testing.T) {
	env := []string{"SHOAL_JWT_SECRET=hidden", "SHOAL_API_KEY=hidden", "SHOAL_CONFIG=hidden",
		"SHOAL_BROKER=redis://:hidden@h", "SHOAL_CLUSTER_SECRET=hidden"}
	for _, command := range []string{"serve", "token", "publish", "check-config"} {
		r := shoal(t, env, "", command, "--help")
		r.wantDone(t)
		if strings.Contains(r.out, "hidden") || !strings.Contains(r.out, "SHOAL_") {
			t.Errorf("help of %s:\n%s", command, r.out)
		}
	}
}

func TestUsage(t *testing.T) {
	shoal(t, nil, "").wantErrors(t, statusUsage, `expected one of "serve"`)
	shoal(t, nil, "", "nonsense").wantErrors(t, statusUsage, "unexpected argument nonsense")
	shoal(t, nil, "", "--help").wantDone(t)
}
