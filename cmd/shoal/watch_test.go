package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode"

	"github.com/shoal-go/shoal/client"
	"github.com/shoal-go/shoal/internal/testlog"
)

// running is a command that runs beside the test.
type running struct {
	t     *testing.T
	lines *bufio.Scanner
	in    *io.PipeWriter
	errs  *testlog.Buffer
	stop  context.CancelFunc
	ended chan int
}

// begin starts a command whose standard input and output are pipes.
func begin(t *testing.T, args ...string) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	input, in := io.Pipe()
	out, output := io.Pipe()
	r := &running{t, bufio.NewScanner(out), in, &testlog.Buffer{}, cancel, make(chan int, 1)}
	go func() {
		status := run(ctx, args, nil, input, output, r.errs)
		_ = output.Close()
		r.ended <- status
	}()
	t.Cleanup(func() {
		cancel()
		_ = in.Close()
		_ = out.Close()
	})
	return r
}

// want reads the next line, which must begin with these words.
func (r *running) want(line string) {
	r.t.Helper()
	if !r.lines.Scan() {
		r.t.Fatalf("it ended, want %q; errors:\n%s", line, r.errs)
	}
	if got := r.lines.Text(); !strings.HasPrefix(got, line) {
		r.t.Fatalf("printed %q, want %q", got, line)
	}
}

// wantEnd waits for the end of the command and checks its status and its errors.
func (r *running) wantEnd(status int, errs string) {
	r.t.Helper()
	for r.lines.Scan() {
		r.t.Errorf("printed %q too", r.lines.Text())
	}
	if got := ends(r.t, r.ended); got != status || r.errs.String() != errs {
		r.t.Errorf("status %d, want %d; errors:\n%swant:\n%s", got, status, r.errs, errs)
	}
}

const (
	completedMessage = `{"action":"upload_completed","description":"A cat","audit_score":97}`
	failedMessage    = `{"action":"upload_failed","error_message":"no space"}`
)

func progressMessage(percent int, message string) string {
	text, _ := json.Marshal(message)
	return fmt.Sprintf(`{"action":"upload_progress","payload":{"status":"analyzing","stage":"vision_analysis",`+
		`"progress_percent":%d,"message":%s}}`, percent, text)
}

// send publishes a message to a development server.
func (s *served) send(t *testing.T, uploadID, message string) {
	t.Helper()
	if status, text := call(t, "POST", s.url+"/v1/uploads/"+uploadID+"/messages", devSecret, message); status != http.StatusAccepted {
		t.Fatalf("publishing: %d %s", status, text)
	}
}

func TestWatch_PrintsLinesUntilCompleted(t *testing.T) {
	s := serveDev(t)
	s.send(t, "u", progressMessage(10, "first"))
	w := begin(t, "watch", "u", "--dev", "--url="+s.url+"/")
	w.want("u: 10% vision_analysis: first")
	s.send(t, "u", progressMessage(20, "second"))
	w.want("u: 20% vision_analysis: second")
	s.send(t, "u", progressMessage(20, "second"))
	s.send(t, "u", `{"action":"build_log","payload":{"text":"go build"}}`)
	w.want("u: build_log: go build")
	s.send(t, "u", completedMessage)
	w.want("u: 100% completed: A cat")
	w.wantEnd(statusDone, "")
}

func TestWatch_StatusTellsOutcomes(t *testing.T) {
	s := serveDev(t)
	s.send(t, "good", completedMessage)
	s.send(t, "bad", failedMessage)
	for _, c := range []struct {
		ids    []string
		status int
		errs   string
	}{
		{[]string{"good"}, statusDone, ""},
		{[]string{"good", "good"}, statusDone, ""},
		{[]string{"bad"}, statusFailed, "shoal: bad failed: no space\n"},
		{[]string{"good", "bad"}, statusFailed, "shoal: bad failed: no space\n"},
	} {
		r := shoal(t, nil, "", append([]string{"watch", "--dev", "--url=" + s.url}, c.ids...)...)
		if r.status != c.status || r.err != c.errs {
			t.Errorf("%v: status %d, want %d; errors %q, want %q", c.ids, r.status, c.status, r.err, c.errs)
		}
	}
}

// Escape sequences and other characters that steer a terminal are replaced, wherever they come from.
func TestWatch_PrintsNoControlCharacters(t *testing.T) {
	s := serveDev(t)
	const evil = "a\x1b[2J\u009b31m\u202eb\u2028c\td"
	text, _ := json.Marshal(evil)
	s.send(t, "u", fmt.Sprintf(`{"action":"note","text":%s}`, text))
	w := begin(t, "watch", "u", "--dev", "--url="+s.url)
	w.want("u: note: a [2J 31m b c d")
	s.send(t, "u", `{"action":"upload_progress","payload":{"status":"analyzing","stage":"vision_analysis",`+
		`"progress_percent":1,"message":`+string(text)+`,"error_message":`+string(text)+`}}`)
	w.want("u: 1% vision_analysis: a [2J 31m b c d error: a [2J 31m b c d")
	s.send(t, "u", `{"action":"upload_failed","error_message":`+string(text)+`}`)
	w.want("u: 1% failed: a [2J 31m b c d")
	w.wantEnd(statusFailed, "shoal: u failed: a [2J 31m b c d\n")
}

func TestWatch_JSONIsOneObjectPerLine(t *testing.T) {
	s := serveDev(t)
	s.send(t, "u", "{\"action\":\"note\", \"text\":\"\u009b\U000E0001é\", \"n\":1e400}")
	w := begin(t, "watch", "u", "--json", "--dev", "--url="+s.url)
	w.want(`{"action":"note","text":"\u009b\udb40\udc01é","n":1e400,"offset":1,"upload_id":"u"}`)
	s.send(t, "u", progressMessage(1, ""))
	w.want(`{"action":"upload_progress","payload":{"upload_id":"u"`)
	s.send(t, "u", failedMessage)
	w.want(`{"action":"upload_failed"`)
	w.wantEnd(statusFailed, "shoal: u failed: no space\n")
}

// FuzzJSONLine: a line has printable characters only, and means the same as the message.
func FuzzJSONLine(f *testing.F) {
	for _, seed := range []string{`{"a":"\u001b"}`, "{\"a\":\"\x7f\u009b\u202e\U000E0001\"}", "{\n\"a\" : [1, 2e5]}", `"\ud800"`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var want, got any
		if json.Unmarshal(data, &want) != nil {
			return
		}
		line := jsonLine(data)
		if strings.ContainsFunc(line, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%q is not printable", line)
		}
		if err := json.Unmarshal([]byte(line), &got); err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%q became %q: %v", data, line, err)
		}
	})
}

func TestWatch_RefusesUsage(t *testing.T) {
	many := make([]string, maxWatched+1)
	for i := range many {
		many[i] = fmt.Sprint(i)
	}
	for name, c := range map[string]struct {
		args []string
		want []string
	}{
		"no upload":  {[]string{"--dev"}, []string{`expected "<upload-id> ..."`}},
		"bad upload": {[]string{"a\nb", "--dev"}, []string{"upload-id must not contain control characters"}},
		"too many":   {append(many, "--dev"), []string{"1001 uploads are given, want at most 1000"}},
		"no token":   {[]string{"u"}, []string{"--token is missing, want a token such as one of shoal token, or --dev"}},
		"two tokens": {[]string{"u", "--dev", "--token=x"}, []string{"--token and --dev are given, want one of them"}},
		"no file":    {[]string{"u", "--token-file=/nonexistent"}, []string{"--token-file cannot be read: open /nonexistent"}},
		"empty file": {[]string{"u", "--token-file=" + writeFile(t, "token", "\n")}, []string{"--token-file holds no token"}},
		"large file": {[]string{"u", "--token-file=" + writeFile(t, "large", strings.Repeat("x", maxTokenBytes+1))},
			[]string{"--token-file cannot be read: it is larger than 65536 bytes"}},
		"UTF-16": {[]string{"u", "--token-file=" + writeFile(t, "utf16", "\xff\xfex\x00")},
			[]string{"--token-file cannot be read: it is in UTF-16, want UTF-8"}},
		"bad URL":   {[]string{"u", "--dev", "--url=localhost:1"}, []string{`--url is "localhost:1", want the server's address`}},
		"URL query": {[]string{"u", "--dev", "--url=http://a/?b"}, []string{"without a query"}},
		"no time":   {[]string{"u", "--dev", "--give-up-after=0s"}, []string{`--give-up-after is "0s", want a duration`}},
	} {
		t.Run(name, func(t *testing.T) {
			args := append([]string{"watch", "--give-up-after=1s"}, c.args...) // where it is not refused
			shoal(t, nil, "", args...).wantErrors(t, statusUsage, c.want...)
		})
	}
}

// A source of the token on the command line wins over one in the environment, and that over one in the file.
func TestWatch_HighestSourceOfTheTokenWins(t *testing.T) {
	dev, file := writeFile(t, "shoal.yaml", "dev: true\n"), writeFile(t, "token", "of-a-file")
	both := writeFile(t, "both.yaml", "dev: true\ntoken: t\n")
	for name, c := range map[string]struct {
		env, args []string
		want      string // the source, or the complaint
	}{
		"flag, environment":      {[]string{"SHOAL_TOKEN=x"}, []string{"--dev"}, "dev"},
		"flag, file":             {nil, []string{"--token=x", "--config=" + dev}, "token"},
		"environment, file":      {[]string{"SHOAL_TOKEN_FILE=" + file}, []string{"--config=" + dev}, "token-file"},
		"all three":              {[]string{"SHOAL_TOKEN=x"}, []string{"--token-file=" + file, "--config=" + dev}, "token-file"},
		"file":                   {nil, []string{"--config=" + dev}, "dev"},
		"two in the environment": {[]string{"SHOAL_TOKEN=x", "SHOAL_DEV=1"}, nil, "SHOAL_TOKEN and SHOAL_DEV are given, want one of them"},
		"two in the file":        {nil, []string{"--config=" + both}, both + ":2: token and " + both + ":1: dev are given, want one of them"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSettings(c.env)
			parser, err := newParser(s, streams{}, nil)
			if err != nil {
				t.Fatal(err)
			}
			parsed, err := parser.Parse(append([]string{"watch", "u"}, c.args...))
			if err != nil {
				t.Fatal(err)
			}
			command := parsed.Selected().Target.Addr().Interface().(*watchCommand)
			err = s.check(command)
			var got []string
			if err != nil {
				got = append(got, err.Error())
			} else {
				for source, used := range map[string]bool{"token": command.Token != "", "token-file": command.TokenFile != "", "dev": command.Dev} {
					if used {
						got = append(got, source)
					}
				}
			}
			if len(got) != 1 || got[0] != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// A run that cannot succeed ends with one line that names the remedy, and a status of its own.
func TestWatch_GivesUp(t *testing.T) {
	dev := serveDev(t)
	claims := serve(t, 1, "--jwt-secret="+goodSecret, "--authorize=claims")
	token := shoal(t, nil, "", "token", "ann", "--jwt-secret="+goodSecret, "--upload=mine")
	token.wantDone(t)
	strange := foreign(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") })
	rude := foreign(t, hangUp)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"hangs up":   {[]string{"--token=hidden", "--url=" + rude, "--give-up-after=1s"}, "given up after 1s: cannot reach the server at " + rude + ": the connection broke off"},
		"silent":     {[]string{"--token=hidden", "--url=http://" + silent.Addr().String(), "--give-up-after=1s"}, "given up after 1s: cannot reach the server at http://" + silent.Addr().String() + ": it does not answer in time"},
		"no TLS":     {[]string{"--token=hidden", "--url=" + strings.Replace(rude, "http:", "https:", 1), "--give-up-after=1s"}, "cannot reach the server at https://"},
		"bad token":  {[]string{"--token=hidden", "--url=" + dev.url}, "the server refuses the token: "},
		"no dev":     {[]string{"--dev", "--url=" + claims.url}, "is not a development server; give a token with --token"},
		"forbidden":  {[]string{"--token=" + strings.TrimSpace(token.out), "--url=" + claims.url}, "the token's user may not follow the upload u"},
		"no shoal":   {[]string{"--token=hidden", "--url=" + strange}, "is not a shoal server; check --url"},
		"page":       {[]string{"--dev", "--url=" + strange}, "is not a development server"},
		"no server":  {[]string{"--token=hidden", "--url=http://me:hidden@127.0.0.1:1", "--give-up-after=1s"}, "given up after 1s: nothing answers at http://me:xxxxx@127.0.0.1:1; start"},
		"no dev yet": {[]string{"--dev", "--url=http://127.0.0.1:1", "--give-up-after=1s"}, "given up after 1s: nothing answers at http://127.0.0.1:1; start"},
	} {
		t.Run(name, func(t *testing.T) {
			r := shoal(t, nil, "", append([]string{"watch", "u"}, c.args...)...)
			lines := strings.Split(strings.TrimSuffix(r.err, "\n"), "\n")
			if last := lines[len(lines)-1]; r.status != statusGivenUp || !strings.HasPrefix(last, "shoal: ") || !strings.Contains(last, c.want) {
				t.Errorf("status %d, errors:\n%s\nwant %q", r.status, r.err, c.want)
			}
			if strings.Contains(r.err, "hidden") || len(lines) > 2 || r.out != "u: given up\n" {
				t.Errorf("printed %q, errors:\n%s", r.out, r.err)
			}
		})
	}
}

// hangUp ends the connection of a request without an answer.
func hangUp(w http.ResponseWriter, _ *http.Request) {
	if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
		_ = conn.Close()
	}
}

// Errors of a connection are told in words that name no step of a library, and an own text is kept.
func TestNetworkReason_NamesNoLibrary(t *testing.T) {
	for want, err := range map[string]error{
		"the connection broke off":   fmt.Errorf("failed to get reader: failed to read frame header: %w", io.EOF),
		"nothing listens there":      &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED},
		"no host has the name a.b":   &net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: "a.b", IsNotFound: true}},
		"it does not speak TLS":      http.ErrSchemeMismatch,
		"it does not speak HTTP":     errors.New(`net/http: HTTP/1.x transport connection broken: malformed HTTP response "x"`),
		"it does not answer in time": fmt.Errorf("waiting: %w", context.DeadlineExceeded),
		"an own text":                errors.New("an own text"),
	} {
		if got, _ := networkReason(err); got != want {
			t.Errorf("%v: %q, want %q", err, got, want)
		}
	}
}

// A proxy that is away is named, and not the server behind it. Package net/http reads the variables that name it only once.
func TestWatch_ExplainsProxies(t *testing.T) {
	away := &net.OpError{Op: "proxyconnect", Net: "tcp", Err: syscall.ECONNREFUSED}
	text := (&watchCommand{}).explain(fmt.Errorf("failed: %w", away))
	if !strings.Contains(text, "HTTPS_PROXY") || strings.Contains(text, "nothing answers") {
		t.Errorf("explained as %q", text)
	}
}

// A token file is read again when the server needs a fresh token.
func TestWatch_ReadsTokenFileAgain(t *testing.T) {
	s := serve(t, 1, "--jwt-secret="+goodSecret, "--authorize=open", "--api-key="+devSecret)
	token := shoal(t, nil, "", "token", "ann", "--jwt-secret="+goodSecret)
	token.wantDone(t)
	s.send(t, "u", completedMessage)
	r := shoal(t, nil, "", "watch", "u", "--token-file="+writeFile(t, "token", "\ufeff"+token.out), "--url="+s.url)
	r.wantDone(t)
}

func TestWatch_MeasuresRate(t *testing.T) {
	u := newWatched("u")
	at := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	receive := func(percent, seconds float64, more string) string {
		u.receive(client.Message{Action: client.ActionProgress, Data: fmt.Appendf(nil,
			`{"payload":{"stage":"s","progress_percent":%v%s},"timestamp":%q}`, percent, more,
			at.Add(time.Duration(seconds*float64(time.Second))).Format(time.RFC3339Nano))})
		_, pace, _ := u.describe()
		return pace
	}
	for i, c := range []struct {
		percent, seconds float64
		more, want       string
	}{
		{10, 0, "", ""},
		{11, 0.5, "", ""}, // too short a time
		{20, 10, "", "1.0%/s, 1m20s left"},
		{20, 10, `,"eta_seconds":7`, "1.0%/s, 7s left"},
		{20, 10, `,"eta_seconds":-1`, "1.0%/s, 1m20s left"},
		{5, 20, "", ""}, // it went back
		{6, 140, "", "0.5%/min, 3h8m0s left"},
		{6.001, 100000, "", "0.0%/min"},
		{200, 100001, "", "0.1%/min, 0s left"},
	} {
		if got := receive(c.percent, c.seconds, c.more); got != c.want {
			t.Errorf("message %d: %q, want %q", i, got, c.want)
		}
	}
	u.interrupted()
	if _, pace, _ := u.describe(); pace != "" {
		t.Errorf("after an interruption: %q", pace)
	}
}

// An output that is gone ends the command and is a failure, whatever the outcome.
func TestWatch_EndsWithItsOutput(t *testing.T) {
	s := serveDev(t)
	s.send(t, "open", progressMessage(1, ""))
	s.send(t, "good", completedMessage)
	s.send(t, "bad", failedMessage)
	for id, want := range map[string]string{
		"open": "shoal: cannot print the messages: gone; 1 of 1 uploads have not ended\n",
		"good": "shoal: cannot print the messages: gone\n",
		"bad":  "shoal: bad failed: no space\nshoal: cannot print the messages: gone\n",
	} {
		var errs testlog.Buffer
		status := run(t.Context(), []string{"watch", id, "--dev", "--url=" + s.url}, nil, nil, brokenWriter{}, &errs)
		if status != statusFailed || errs.String() != want {
			t.Errorf("%s: status %d, errors:\n%s", id, status, &errs)
		}
	}
}

// A token file that is empty for a moment, while another program replaces it, is read again.
func TestWatch_ReadsReplacedTokenFile(t *testing.T) {
	s := serve(t, 1, "--jwt-secret="+goodSecret, "--authorize=open", "--api-key="+devSecret)
	token := shoal(t, nil, "", "token", "ann", "--jwt-secret="+goodSecret)
	token.wantDone(t)
	s.send(t, "u", completedMessage)
	command := &watchCommand{TokenFile: writeFile(t, "token", "")}
	var reasons []error
	c, err := client.New(s.url, client.Options{Token: command.token, OnState: func(state client.State) {
		if state.Status != client.Waiting {
			return
		}
		reasons = append(reasons, state.Err)
		if err := os.WriteFile(command.TokenFile, []byte(token.out), 0o600); err != nil {
			t.Error(err)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for m, err := range c.Follow(t.Context(), "u") {
		if err != nil || !m.Terminal() {
			t.Errorf("got %s, %v", m.Data, err)
		}
		break
	}
	if err := errors.Join(reasons...); err == nil || !strings.Contains(err.Error(), "--token-file holds no token") {
		t.Errorf("the reasons of delays are %v", err)
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("gone") }
