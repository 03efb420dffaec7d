package main

import (
	"bytes"
	"io"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"go.yaml.in/yaml/v3"
)

// parseServe returns the settings that serve would run with.
func parseServe(t *testing.T, env []string, args ...string) serveFlags {
	t.Helper()
	s := newSettings(env)
	parser, err := newParser(s, streams{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := parser.Parse(append([]string{"serve"}, args...))
	if err != nil {
		t.Fatal(err)
	}
	command, ok := parsed.Selected().Target.Addr().Interface().(*serveCommand)
	if !ok {
		t.Fatal("serve is another command")
	}
	command.check(s)
	if err := s.err(); err != nil {
		t.Fatal(err)
	}
	return command.serveFlags
}

func TestDefaultsAreThoseDocumented(t *testing.T) {
	want := serveFlags{
		Addr: []string{"127.0.0.1:8080"}, SocketMode: "0660", TLSMinVersion: "1.2",
		AdminAddr: "127.0.0.1:9090", Dashboard: "auto",
		MaxUploads: 1_000_000, UnsentBytes: 16 << 10, JWTSecret: []string{goodSecret}, Authorize: "open",
		Broker: "memory", BrokerStorage: "memory", BrokerTLSMin: "1.2",
		MaxConnectionsPerUser: 32, MaxSubscriptionsPerUser: 1024,
		MaxMessageBytes: 65536, ClientMessageRate: rate{50, 200},
		AuthTimeout: 5 * time.Second, PingInterval: 30 * time.Second, IdleTimeout: 90 * time.Second,
		QueueBytes: 1 << 20, QueueMessages: 1024, QueueAge: 10 * time.Second, RecoveryBytes: 8 << 20,
		HistoryMessages: 64, HistoryBytes: 1 << 20, HistoryTTL: 10 * time.Minute, Drain: 8 * time.Second,
		TokenExpiry: "enforce", MaxClientMessageBytes: 65536, JWTLeeway: 5 * time.Second, LogLevel: "info", LogFormat: "text",
		TraceSample: 0.01,
	}
	got := parseServe(t, nil, "--jwt-secret="+goodSecret, "--authorize=open")
	if !reflect.DeepEqual(got, want) {
		t.Errorf("settings are\n%+v, want\n%+v", got, want)
	}
}

func TestDevFillsInOnlyWhatIsMissing(t *testing.T) {
	f := parseServe(t, nil, "--dev")
	if strings.Join(f.JWTSecret, "|") != "dev" || !reflect.DeepEqual(f.APIKey, []string{"dev"}) || f.Authorize != "open" {
		t.Errorf("settings are %+v", f)
	}
	f = parseServe(t, nil, "--dev", "--jwt-secret=s", "--api-key=k", "--authorize=claims")
	if strings.Join(f.JWTSecret, "|") != "s" || !reflect.DeepEqual(f.APIKey, []string{"k"}) || f.Authorize != "claims" {
		t.Errorf("settings are %+v", f)
	}
}

func TestFlagWinsOverEnvironmentWinsOverFile(t *testing.T) {
	file := writeFile(t, "shoal.yaml", `# every kind of value
dev: true
addr: 127.0.0.1:1
jwks: &origin https://file.example
allowed-origin: *origin
admin-addr: localhost:4
queue-messages: 11
queue-age: 11s
queue-bytes: 11MiB
client-message-rate: 11/s,12
api-key: [file1, "file2"]
jwt-issuer: [*origin, other]
history-messages: 13
broker: memory
`)
	env := []string{
		"SHOAL_CONFIG=" + file, "SHOAL_ADDR=127.0.0.1:2", "SHOAL_QUEUE_MESSAGES=22", "SHOAL_QUEUE_AGE=22s",
		"SHOAL_API_KEY=env1, env2", "SHOAL_HISTORY_MESSAGES=", "SHOAL_PORT=tcp://10.0.0.1:80", "noise",
	}
	f := parseServe(t, env, "--addr=127.0.0.1:3", "--queue-messages", "33",
		"--api-key=flag1", "--api-key", "flag2", "--jwt-audience=a")
	want := map[string][2]any{
		"dev, file":                        {f.Dev, true},
		"addr, all three":                  {strings.Join(f.Addr, "|"), "127.0.0.1:3"},
		"admin-addr, file":                 {f.AdminAddr, "localhost:4"},
		"queue-messages, all three":        {f.QueueMessages, 33},
		"queue-age, env and file":          {f.QueueAge, 22 * time.Second},
		"queue-bytes, file":                {f.QueueBytes, size(11 << 20)},
		"client-message-rate, file":        {f.ClientMessageRate, rate{11, 12}},
		"api-key, all three":               {strings.Join(f.APIKey, "|"), "flag1|flag2"},
		"jwt-issuer, file":                 {strings.Join(f.JWTIssuer, "|"), "https://file.example|other"},
		"allowed-origin, file":             {strings.Join(f.AllowedOrigin, "|"), "https://file.example"},
		"history-messages, empty variable": {f.HistoryMessages, 13},
	}
	for name, pair := range want {
		if pair[0] != pair[1] {
			t.Errorf("%s: %v, want %v", name, pair[0], pair[1])
		}
	}
	f = parseServe(t, env, "--config="+writeFile(t, "other.yaml", "dev: true"))
	if strings.Join(f.APIKey, "|") != "env1|env2" || f.AdminAddr != "127.0.0.1:9090" {
		t.Errorf("with another file: %+v", f)
	}
}

func TestFileRefused(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"not YAML":      {"a: [", "which is not usable YAML"},
		"not a mapping": {"- a\n- b\n", "which must hold keys and values"},
		"text":          {"hello", "which must hold keys and values"},
		"two documents": {"dev: true\n---\ndev: true\n", "it must hold one document"},
		"too large": {"dev: true\n" + strings.Repeat("# noise\n", maxFileBytes/8),
			"is larger than 1048576 bytes"},
		"unknown key":     {"dev: true\nfavourite: blue\n", `:2: unknown key "favourite"; keys are the names of flags`},
		"underscore":      {"dev: true\njwt_secret: x\n", `:2: unknown key "jwt_secret", did you mean "jwt-secret"?`},
		"config in file":  {"dev: true\nconfig: x\n", `:2: unknown key "config"`},
		"endless key":     {"dev: true\n" + strings.Repeat("k", 1000) + ": x\n", ":2: unknown key"},
		"control in key":  {"dev: true\n\"a\\nb\": x\n", `:2: unknown key "a\nb"`},
		"twice":           {"dev: true\ndev: true\n", ":2: dev is there a second time, want it once"},
		"no value":        {"dev: true\naddr:\n", ":2: addr has no value"},
		"nested":          {"dev: true\nlog-level:\n  is: debug\n", ":2: log-level has keys below it"},
		"alias of a list": {"dev: true\njwt-issuer: &a [x]\napi-key: [*a]\n", ":3: api-key is a list of something else"},
		"nested list":     {"dev: true\napi-key:\n- [a]\n", ":2: api-key is a list of something else"},
		"list with a gap": {"dev: true\napi-key:\n-\n", ":2: api-key is a list of something else"},
		"several values":  {"dev: true\nlog-level: [info, info]\n", ":2: log-level is a list, want one value"},
		"empty list":      {"dev: true\naddr: []\n", ":2: addr is an empty list; give it a value, or leave the key out"},
		"yes":             {"dev: true\nlog-level: yes\n", `:2: log-level is "yes"`},
		"alias of nothing": {"dev: true\napi-key: *hunter2\n",
			"which names an anchor that is not there; a value that begins with * must be quoted"},
		"tag":         {"dev: true\napi-key: !vault hunter2\n", `:2: api-key has the tag "!vault", which is not supported`},
		"tag in list": {"dev: true\napi-key:\n- a\n- !!binary aHVudGVyMg==\n", `:2: api-key has the tag "!!binary", which`},
		"merge key":   {"dev: true\n<<: {addr: x}\n", `:2: unknown key "<<"`},
	} {
		t.Run(name, func(t *testing.T) {
			file := writeFile(t, "shoal.yaml", c.text)
			r := shoal(t, []string{"SHOAL_DEV=1"}, "", "check-config", "--config", file)
			r.wantErrors(t, statusUsage, c.want)
			if !strings.Contains(r.err, file) || strings.Contains(r.err, "hunter2") {
				t.Errorf("the file is not named, or a secret is printed:\n%s", r.err)
			}
		})
	}
}

func TestFileThatIsMissing(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing.yaml")
	for _, command := range []string{"check-config", "serve", "token alice"} { // none misses the settings in it
		shoal(t, nil, "", append(strings.Fields(command), "--config="+missing)...).wantErrors(t, statusUsage,
			"--config is \""+missing+"\", which cannot be read: no such file")
	}
	shoal(t, nil, "", "check-config", "--dev", "--config="+missing).wantErrors(t, statusUsage,
		"--config is \""+missing+"\", which cannot be read: no such file")
	shoal(t, []string{"SHOAL_CONFIG=" + missing}, "", "check-config", "--dev").wantErrors(t, statusUsage,
		"SHOAL_CONFIG is \""+missing+"\", which cannot be read: no such file")
}

func TestFileThatIsEmpty(t *testing.T) {
	for _, text := range []string{"", "# nothing\n", "---\n# nothing\n", "null\n", "{}\n"} {
		shoal(t, nil, "", "check-config", "--dev", "--config="+writeFile(t, "shoal.yaml", text)).wantDone(t)
	}
}

func TestFileServesEveryCommand(t *testing.T) {
	file := writeFile(t, "shoal.yaml", "jwt-secret: "+goodSecret+"\naddr: 127.0.0.1:1\nurl: http://127.0.0.1:1\n")
	shoal(t, nil, "", "token", "alice", "--config", file).wantDone(t)
}

// One file may hold the settings of all commands; check-config names the ones that are not the server's.
func TestCheckConfig_NamesKeysOfOtherCommands(t *testing.T) {
	file := writeFile(t, "shoal.yaml", "jwt-secret: "+goodSecret+"\nauthorize: open\nrate: 5\nconnections: 7\ndev: false\n")
	r := shoal(t, nil, "", "check-config", "--config="+file)
	r.wantDone(t)
	if want := "configuration ok\nkeys of other commands, which serve does not use: connections, rate\n"; r.out != want {
		t.Errorf("printed %q, want %q", r.out, want)
	}
}

// While secrets are rotated, the file lists several: serve accepts all of them, and the other commands use the first.
func TestFile_ListsOfSecretsServeEveryCommand(t *testing.T) {
	other := strings.Repeat("o", minSecretBytes)
	file := writeFile(t, "shoal.yaml", "jwt-secret: ["+goodSecret+", "+other+"]\napi-key: [a, b]\nauthorize: open\n")
	s := serve(t, 1, "--config="+file)
	token := shoal(t, nil, "", "token", "alice", "--config", file)
	token.wantDone(t)
	if got := connect(t, s.url).authenticate(token.out); got != "alice" {
		t.Errorf("authenticated as %v", got)
	}
	r := shoal(t, nil, "", "bench", "--config", file, "--url="+s.url, "--connections=1", "--messages=1", "--duration=1s")
	if r.status != statusDone {
		t.Errorf("bench ends with %d: %s", r.status, r.err)
	}
}

// The file of a server names the files of its secrets, and the other commands read them, unless they are given others.
func TestFile_FilesOfSecretsServeEveryCommand(t *testing.T) {
	other := strings.Repeat("o", minSecretBytes)
	secrets, keys := writeFile(t, "secrets", goodSecret+"\n"+other+"\n"), writeFile(t, "keys", "key-1\nkey-2\n")
	file := writeFile(t, "shoal.yaml", "jwt-secret-file: "+secrets+"\napi-key-file: "+keys+"\nauthorize: open\n")
	s := serve(t, 1, "--config="+file)
	for name, c := range map[string]struct{ env, args []string }{
		"file":        {nil, nil},
		"flag":        {nil, []string{"--jwt-secret=" + other}},
		"environment": {[]string{"SHOAL_JWT_SECRET=" + other}, nil},
		"other file":  {nil, []string{"--jwt-secret-file=" + writeFile(t, "other", other)}},
		"both":        {[]string{"SHOAL_JWT_SECRET=unused"}, []string{"--jwt-secret-file=" + secrets}},
	} {
		token := shoal(t, c.env, "", append([]string{"token", "alice", "--config=" + file}, c.args...)...)
		token.wantDone(t)
		if got := connect(t, s.url).authenticate(token.out); got != "alice" {
			t.Errorf("%s: authenticated as %v", name, got)
		}
	}
	message := []string{"--stage=indexing", "--status=embedding"}
	for _, args := range [][]string{{}, {"--api-key=key-2"}, {"--api-key-file=" + keys}} {
		args = append(append([]string{"publish", "u", "--config=" + file, "--url=" + s.url}, message...), args...)
		shoal(t, nil, "", args...).wantDone(t)
	}
	r := shoal(t, nil, "", "bench", "--config="+file, "--url="+s.url, "--connections=1", "--messages=1", "--duration=1s")
	if r.status != statusDone {
		t.Errorf("bench ends with %d: %s", r.status, r.err)
	}
	missing := filepath.Join(t.TempDir(), "missing")
	for _, command := range []string{"token u", "publish u", "bench"} {
		flag := "jwt-secret"
		if command == "publish u" {
			flag = "api-key"
		}
		args := append(strings.Fields(command), "--"+flag+"-file="+missing, "--config="+file, "--url="+s.url)
		if command == "token u" {
			args = args[:len(args)-1]
		}
		shoal(t, nil, "", args...).wantErrors(t, statusUsage, "--"+flag+"-file is \""+missing+"\", want a readable file of secrets")
		args = append(args, "--"+flag+"="+goodSecret)
		shoal(t, nil, "", args...).wantErrors(t, statusUsage, "--"+flag+" is given beside --"+flag+"-file")
	}
}

func FuzzFile(f *testing.F) {
	for _, text := range []string{
		"dev: true", "a: &x [1]\nb: *x", "? [a]\n: b", "<<: *x", "- a", "\x00", "a: !!binary x",
	} {
		f.Add(text)
	}
	names := map[string]bool{"dev": true, "addr": true}
	f.Fuzz(func(t *testing.T, text string) {
		found, complaints := readFile("--config", writeFile(t, "f.yaml", text), names)
		for name := range found {
			if !names[name] {
				t.Errorf("found %q", name)
			}
		}
		var meant map[string]any
		if yaml.Unmarshal([]byte(text), &meant) == nil && len(meant) > 0 && len(found) == 0 && len(complaints) == 0 {
			t.Errorf("%q is passed over in silence", text)
		}
	})
}

// A mistyped variable and a value with white space at its ends are named; variables of a container platform are not.
func TestSettings_NamesMistypedVariables(t *testing.T) {
	for variable, want := range map[string]string{
		"SHOAL_JWT_SECRETT=" + goodSecret:         "did you mean SHOAL_JWT_SECRET?",
		"SHOAL_QUEUE_BYTE=1MiB":                   "did you mean SHOAL_QUEUE_BYTES?",
		"SHOAL_ALLOWED_ORIGINS=https://a.test":    "did you mean SHOAL_ALLOWED_ORIGIN?",
		"SHOAL_CLUSTER_SECRET=0123456789abcdef\n": "begins or ends with white space",
		"SHOAL_ADMIN_ADDR= 127.0.0.1:0":           "begins or ends with white space",
		"SHOAL_JWT_SECRET=" + goodSecret + "\n":   "white space",
		"SHOAL_SERVICE_HOST=10.0.0.1":             "",
		"SHOAL_PORT_8080_TCP=tcp://10.0.0.1:80":   "",
	} {
		args := []string{"check-config", "--authorize=open"}
		if !strings.HasPrefix(variable, "SHOAL_JWT_SECRET=") {
			args = append(args, "--jwt-secret="+goodSecret)
		}
		r := shoal(t, []string{variable}, "", args...)
		if refused := r.status == 2; refused != (want != "") || !strings.Contains(r.err, want) {
			t.Errorf("%q: status %d, %s; want %q", variable, r.status, r.err, want)
		}
	}
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]size{
		"0": 0, "65536": 65536, "64KiB": 64 << 10, "1 MiB": 1 << 20, "2GiB": 2 << 30,
	} {
		if got, err := parseSize(text); err != nil || got != want {
			t.Errorf("%q: %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "KiB", "-1", "-1KiB", "1.5MiB", "1MB", "1kib", "0x10", "1_000", "99999999999999999999",
		"9223372036854775807GiB",
	} {
		if got, err := parseSize(text); err == nil {
			t.Errorf("%q: %d, want an error", text, got)
		}
	}
}

func TestParseRate(t *testing.T) {
	for text, want := range map[string]rate{
		"50/s": {50, 200}, "50/s,10": {50, 10}, "0.1/s": {0.1, 4}, "2.5/s, 7": {2.5, 7}, " 1/s ": {1, 4},
	} {
		if got, err := parseRate(text, nil); err != nil || got != want {
			t.Errorf("%q: %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "50", "/s", "0/s", "-1/s", "NaN/s", "Inf/s", "1e9/s",
		"50/m", "50/s,", "50/s,0", "50/s,-1", "50/s,1.5", "50/s,2000000", "50/s,1,1",
	} {
		if got, err := parseRate(text, nil); err == nil {
			t.Errorf("%q: %v, want an error", text, got)
		}
	}
}

func TestEditDistance(t *testing.T) {
	for pair, want := range map[[2]string]int{
		{"", ""}: 0, {"a", ""}: 1, {"", "ab"}: 2, {"adr", "addr"}: 1, {"addr", "adr"}: 1,
		{"jwt_secret", "jwt-secret"}: 1, {"kitten", "sitting"}: 3,
	} {
		if got := editDistance(pair[0], pair[1]); got != want {
			t.Errorf("%q: %d, want %d", pair, got, want)
		}
	}
}

// flagsOf returns the flags of a command.
func flagsOf(tb testing.TB, command string) (flags []*kong.Flag) {
	tb.Helper()
	parser, err := newParser(newSettings(nil), streams{out: io.Discard, err: io.Discard}, func(int) {})
	if err != nil {
		tb.Fatal(err)
	}
	for _, child := range parser.Model.Children {
		if child.Name == command {
			flags = append(flags, child.Flags...)
		}
	}
	return slices.DeleteFunc(flags, func(f *kong.Flag) bool { return f.Name == "help" })
}

// settingsOf returns the flags of a command whose values are not names of files, which would be read.
func settingsOf(tb testing.TB, command string) []*kong.Flag {
	tb.Helper()
	return slices.DeleteFunc(flagsOf(tb, command), func(f *kong.Flag) bool {
		return strings.Contains(f.PlaceHolder, "FILE") || f.PlaceHolder == "DIR"
	})
}

// FuzzEnvironment gives one setting an arbitrary value in the environment. The configuration is accepted, or refused with
// the variable's name and without the value of a secret, just as it is if the flag has that value.
func FuzzEnvironment(f *testing.F) {
	flags := settingsOf(f, "check-config")
	if len(flags) < 50 {
		f.Fatalf("found %d settings", len(flags))
	}
	for i, flag := range flags {
		f.Add(uint8(i), flag.Default) // less than 256
	}
	hostile := []string{"", "a-secret-of-a-file\n", "0", "-1", "1e9", "9999999999999999999", "1s", "true", "a,b", "[", "http://[", "::1", "x y", "a=b"}
	for i := range 4 * len(hostile) {
		f.Add(uint8(i*7), hostile[i%len(hostile)])
	}
	check := func(t *testing.T, flag *kong.Flag, env []string, more ...string) (status int, text string) {
		t.Helper()
		var out, errs bytes.Buffer
		args := []string{"check-config"}
		for name, value := range map[string]string{"jwt-secret": goodSecret, "authorize": "open"} {
			if name != flag.Name {
				args = append(args, "--"+name+"="+value)
			}
		}
		status = run(t.Context(), append(args, more...), env, strings.NewReader(""), &out, &errs)
		return status, out.String() + errs.String()
	}
	f.Fuzz(func(t *testing.T, index uint8, value string) {
		flag := flags[int(index)%len(flags)]
		if strings.ContainsRune(value, 0) {
			return // cannot be in an environment
		}
		status, text := check(t, flag, []string{variable(flag.Name) + "=" + value})
		if status != statusDone && status != statusUsage {
			t.Fatalf("status %d: %s", status, text)
		}
		if status == statusUsage && !strings.Contains(text, variable(flag.Name)) && !strings.Contains(text, flag.Name) {
			t.Errorf("%s=%q is refused without its name: %s", variable(flag.Name), value, text)
		}
		url := strings.Contains(flag.PlaceHolder, "URL") // only the password in it is secret
		if flag.Tag.Has("secret") && !url && len(value) > 12 && strings.Contains(text, value) {
			t.Errorf("the value of %s is printed", variable(flag.Name))
		}
		if value == "" || flag.IsSlice() {
			return // is not set, or a list
		}
		if same, other := check(t, flag, nil, "--"+flag.Name+"="+value); same != status {
			t.Errorf("%s=%q gives status %d, the flag %d:\n%s%s", variable(flag.Name), value, status, same, text, other)
		}
	})
}

// An empty value, such as that of --tls-cert=$CERT without the variable, is refused: it would count as no flag at all.
func TestSettings_RefuseEmptyValues(t *testing.T) {
	for _, command := range []string{"check-config", "token", "publish", "watch", "bench", "health"} {
		arguments := map[string][]string{"token": {"ann"}, "publish": {"u"}, "watch": {"u"}}[command]
		for _, flag := range flagsOf(t, command) {
			if flag.Tag.Has("blank") {
				continue
			}
			r := shoal(t, nil, "", append([]string{command, "--" + flag.Name + "="}, arguments...)...)
			if r.status != statusUsage || !strings.Contains(r.err, "--"+flag.Name+" ") {
				t.Errorf("%s --%s= ends with %d: %s", command, flag.Name, r.status, r.err)
			}
			file := writeFile(t, "shoal.yaml", flag.Name+`: ""`)
			r = shoal(t, nil, "", append([]string{command, "--config=" + file}, arguments...)...)
			if r.status != statusUsage || !strings.Contains(r.err, file+":1: "+flag.Name+" ") {
				t.Errorf("%s with an empty %s in the file ends with %d: %s", command, flag.Name, r.status, r.err)
			}
		}
	}
	shoal(t, nil, "", "check-config", "--dev", "--config=").wantErrors(t, statusUsage, `--config is "", want a value`)
	shoal(t, nil, "", "publish", "u", "", "--dev").wantErrors(t, statusUsage, `it is "", want a value`)
	shoal(t, []string{"SHOAL_TLS_CERT="}, "", "check-config", "--dev").wantDone(t) // as if it were not set
}

// The version can be printed, and a server's health checked, whatever is wrong with settings that are for others.
func TestSettings_MistakesOfOthersFailNoHealthCheck(t *testing.T) {
	s := serveDev(t)
	env := []string{"SHOAL_QUEUE_BYTE=1", "SHOAL_QUEUE_BYTES=none"}
	address := strings.TrimPrefix(s.admin, "http://")
	file := writeFile(t, "shoal.yaml", "admin-addr: "+address+"\nfavourite: blue\nqueue-age:\ndrain: many\n")
	shoal(t, env, "", "health", "--config="+file).wantDone(t)
	shoal(t, env, "", "version", "--config="+filepath.Join(t.TempDir(), "missing")).wantDone(t)
	file = writeFile(t, "shoal.yaml", "admin-addr: [")
	shoal(t, env, "", "health", "--config="+file).wantErrors(t, statusUsage, "which is not usable YAML")
}

// One file serves all commands, so a key means the same to each of them.
func TestSettings_KeysHaveOneKindOfValue(t *testing.T) {
	kinds := map[string]string{}
	for _, command := range []string{"serve", "token", "publish", "watch", "bench", "health"} {
		for _, flag := range flagsOf(t, command) {
			kind := flag.Target.Type().String()
			if other := kinds[flag.Name]; other != "" && other != kind {
				t.Errorf("%s is %s for %s and %s for another command", flag.Name, kind, command, other)
			}
			kinds[flag.Name] = kind
		}
	}
}

// A mistake on the command line names the remedy and the command whose help explains it, and never repeats a secret that
// begins with a dash.
func TestRun_ExplainsMistakesOnTheCommandLine(t *testing.T) {
	for line, want := range map[string]string{
		"frob":                           "unexpected argument frob; see shoal --help",
		"token":                          `expected "<user-id>"; see shoal token --help`,
		"bench --frob":                   "unknown flag --frob; see shoal bench --help",
		"bench --dev --rate -1":          "--rate: a value is missing, want --rate=VALUE if the value begins with a dash; see shoal bench --help",
		"serve --dev --api-key":          "--api-key: a value is missing, want --api-key=VALUE",
		"serve --api-key a abcdef":       "unexpected argument beside --api-key; a value with spaces must be quoted; see shoal serve --help",
		"publish u f --api-key a abcdef": "unexpected argument beside --api-key; a value with spaces must be quoted",
		"serve --log-level a b":          "unexpected argument b; see shoal serve --help",
		"serve --jwt-secret -abcdef":     "--jwt-secret: a value is missing, want --jwt-secret=VALUE",
	} {
		r := shoal(t, nil, "", strings.Fields(line)...)
		r.wantErrors(t, statusUsage, want)
		if strings.Contains(r.err, "abcdef") {
			t.Errorf("%s: the secret is in %s", line, r.err)
		}
	}
}
