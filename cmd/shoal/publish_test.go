package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/shoal-go/shoal/internal/testlog"
)

const note = `{"action":"note","text":"hello"}`

func TestPublishFromStandardInputAndFile(t *testing.T) {
	s := serveDev(t)
	flags := []string{"--dev", "--url=" + s.url + "/"}
	for i, args := range [][]string{
		{"publish", "a/b ü"},
		{"publish", "a/b ü", "-"},
		{"publish", "a/b ü", writeFile(t, "m.ndjson", note+"\n\n"+note)},
		{"publish", "a/b ü", writeFile(t, "bom.ndjson", "\ufeff\n"+note+"\n"+note)},
	} {
		r := shoal(t, nil, note+"\n"+note+"\n", append(args, flags...)...)
		r.wantDone(t)
		last := fmt.Sprintf(", offset %d\n", 2*i+2)
		if !strings.HasPrefix(r.out, "accepted 2, epoch ") || !strings.HasSuffix(r.out, last) {
			t.Errorf("%q printed %q", args, r.out)
		}
	}
}

// A file on the command line wins over a message in the environment.
func TestPublish_FileWinsOverEnvironment(t *testing.T) {
	s := serveDev(t)
	env := []string{"SHOAL_STAGE=indexing", "SHOAL_STATUS=done", "SHOAL_PERCENT=50", "SHOAL_MESSAGE=hello"}
	r := shoal(t, env, note+"\n"+note+"\n", "publish", "u", "-", "--dev", "--url="+s.url)
	r.wantDone(t)
	if !strings.HasPrefix(r.out, "accepted 2, epoch ") {
		t.Errorf("printed %q", r.out)
	}
	shoal(t, env, "", "publish", "u", "-", "--dev", "--url="+s.url, "--status=late").wantErrors(t, statusUsage,
		`the file "-" and a message made of flags are both given`)
}

func TestPublishInBatches(t *testing.T) {
	s := serveDev(t)
	input := strings.Repeat(note+"\n", maxBatchLines+1)
	r := shoal(t, nil, input, "publish", "u", "--dev", "--url="+s.url)
	r.wantDone(t)
	if !strings.HasPrefix(r.out, "accepted 1001, ") || !strings.HasSuffix(r.out, "offset 1001\n") {
		t.Errorf("printed %q", r.out)
	}
	r = shoal(t, nil, input+"{}\n", "publish", "v", "--dev", "--url="+s.url)
	r.wantErrors(t, statusFailed,
		"the server refused: line 1002: action is missing; "+
			"1001 messages before that are published, up to offset 1001")
}

func TestPublishRefusedByTheServer(t *testing.T) {
	s := serveDev(t)
	url := "--url=" + s.url
	for name, c := range map[string]struct {
		input string
		args  []string
		want  string
	}{
		"wrong key": {note, []string{"--api-key=hidden"},
			"the API key is not one of those configured; check --api-key"},
		"not JSON":    {"hello", []string{"--dev"}, "the server refused: line 1: "},
		"bad stage":   {"", []string{"--dev", "--stage=Not a slug", "--status=analyzing"}, "the server refused: payload.stage "},
		"empty input": {"\n \n", []string{"--dev"}, "there is no message in the input"},
		"no file":     {"", []string{"--dev", "missing.ndjson"}, "cannot read the messages: open missing.ndjson"},
	} {
		t.Run(name, func(t *testing.T) {
			r := shoal(t, nil, c.input, append([]string{"publish", "u", url}, c.args...)...)
			r.wantErrors(t, statusFailed, c.want)
			if strings.Contains(r.err, "hidden") {
				t.Errorf("the key is printed:\n%s", r.err)
			}
		})
	}
}

func TestPublishRefusesUsage(t *testing.T) {
	message := []string{"--stage=indexing", "--status=embedding"}
	for name, c := range map[string]struct {
		args []string
		want []string
	}{
		"no upload":    {[]string{"--dev"}, []string{`expected "<upload-id>`}},
		"empty upload": {[]string{"", "--dev"}, []string{"upload-id must not be empty"}},
		"dots":         {[]string{"..", "--dev"}, []string{"upload-id .. cannot stand in a URL's path"}},
		"no key":       {[]string{"u"}, []string{"--api-key is missing, want one of the server's, or --dev"}},
		"bad key":      {[]string{"u", "--api-key=hidden\n"}, nil},
		"URL": {[]string{"u", "--dev", "--url=localhost:80"},
			[]string{`--url is "localhost:80", want the server's address, such as http://`}},
		"URL unparsed": {[]string{"u", "--dev", "--url=http://a b"}, []string{"--url cannot be parsed"}},
		"no stage":     {[]string{"u", "--dev", "--status=s"}, []string{"--stage is missing"}},
		"no status":    {[]string{"u", "--dev", "--stage=s"}, []string{"--status is missing"}},
		"neither":      {[]string{"u", "--dev", "--percent=0"}, []string{"--stage is missing", "--status is missing"}},
		"percent": {append(message, "u", "--dev", "--percent=100.1"),
			[]string{`--percent is "100.1", want a number from 0 to 100`}},
		"percent NaN": {append(message, "u", "--dev", "--percent=NaN"), []string{`--percent is "NaN"`}},
		"no UTF-8":    {append(message, "u", "--dev", "--message=caf\xe9"), []string{"--message is not valid UTF-8"}},
		"file and flag": {append(message, "u", "f", "--dev"),
			[]string{`the file "f" and a message made of flags are both given`}},
	} {
		t.Run(name, func(t *testing.T) {
			if c.want == nil { // A line break at the end of a key is taken off: it comes from a file or a shell.
				r := shoal(t, nil, "", append([]string{"publish", "--url=http://127.0.0.1:1"}, c.args...)...)
				r.wantErrors(t, statusFailed, "there is no message in the input")
				return
			}
			shoal(t, nil, "", append([]string{"publish"}, c.args...)...).wantErrors(t, statusUsage, c.want...)
		})
	}
}

func TestPublishWithoutAServer(t *testing.T) {
	const nothing = "nothing answers at http://me:xxxxx@127.0.0.1:1; start the server with shoal serve, or name its address"
	at := []string{"publish", "u", "--dev", "--url=http://me:hidden@127.0.0.1:1"}
	shoal(t, nil, note, append(at, "--retry-for=0s")...).wantErrors(t, statusFailed, nothing)
	shoal(t, nil, note, append(at, "--retry-for=1s")...).wantErrors(t, statusFailed,
		nothing, "given up after 1s: "+nothing)
}

// foreign is a server that answers everything alike.
func foreign(t *testing.T, answer http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(answer)
	t.Cleanup(s.Close)
	return s.URL
}

func TestPublishToAStranger(t *testing.T) {
	published := foreign(t, func(http.ResponseWriter, *http.Request) {
		t.Error("a redirect is followed, with the key")
	})
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		want   string
	}{
		"page": {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") },
			"the server answered 200 OK; check that --url"},
		"202": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(202) },
			"the answer is not that of a shoal server"},
		"redirect": {http.RedirectHandler(published, http.StatusTemporaryRedirect).ServeHTTP,
			"the server answered 307"},
		"hostile": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(400)
			fmt.Fprint(w, `{"detail":"a\n\u001b[31mb"}`)
		}, "the server refused: a  [31mb"},
		"hangs up": {hangUp, "cannot reach the server at http://127.0.0.1:"},
		"endless":  {endless, "the server answered 500 Internal Server Error; check"},
		"broken off": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "9")
			w.WriteHeader(202)
		}, "broke off"},
	} {
		t.Run(name, func(t *testing.T) {
			r := shoal(t, nil, note, "publish", "u", "--dev", "--retry-for=0s", "--url="+foreign(t, c.answer))
			r.wantErrors(t, statusFailed, c.want)
		})
	}
}

func endless(w http.ResponseWriter, _ *http.Request) {
	w.WriteHeader(http.StatusInternalServerError)
	for {
		if _, err := w.Write(bytes.Repeat([]byte("x"), 64<<10)); err != nil {
			return
		}
	}
}

// TestPublishKeepsToTheBoundsOfABatch looks at the requests themselves.
func TestPublishKeepsToTheBoundsOfABatch(t *testing.T) {
	var lines []int
	url := foreign(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if len(body) > maxBatchBytes || r.Header.Get("Content-Type") != "application/x-ndjson" {
			t.Errorf("a request of %d bytes, %s", len(body), r.Header.Get("Content-Type"))
		}
		n := bytes.Count(body, []byte("\n"))
		lines = append(lines, n)
		w.WriteHeader(http.StatusAccepted)
		_ = json.NewEncoder(w).Encode(map[string]any{"accepted": n, "epoch": "e", "offset": 7})
	})
	big := strings.Repeat("x", maxBatchBytes/2) + "\n"
	r := shoal(t, nil, big+big+"x\n"+strings.Repeat("y\n", maxBatchLines), "publish", "u", "--dev", "--url="+url)
	r.wantDone(t)
	// A machine that is busy may make the input look like a pipe that pauses, and more requests of it.
	if slices.Max(lines) > maxBatchLines || lines[0] != 1 || r.out != "accepted 1003, epoch e, offset 7\n" {
		t.Errorf("requests of %v lines, printed %q", lines, r.out)
	}
}

// An invalid line of a pipe is named with its number, after the lines before it are published.
func TestPublish_NamesInvalidLine(t *testing.T) {
	s := serveDev(t)
	input := strings.Repeat(note+"\n\n", 20) + "oops\n" + note + "\n"
	r := shoal(t, nil, input, "publish", "u", "--dev", "--url="+s.url)
	r.wantErrors(t, statusFailed, "the server refused: line 41: the message is not valid JSON")
	if !strings.HasSuffix(r.err, "; 20 messages before that are published, up to offset 20\n") {
		t.Errorf("errors: %s", r.err)
	}
}

// A carriage return does not end a line: the invalid line with one is named by its number too, and the lines before it
// are published.
func TestPublish_CarriageReturnWithinLine(t *testing.T) {
	s := serveDev(t)
	input := note + "\r\n\r\n{\"action\":\"note\",\r\"n\":1}\n{\"action\":\"note\",\r\"n\":x}\n"
	r := shoal(t, nil, input, "publish", "u", "--dev", "--url="+s.url)
	r.wantErrors(t, statusFailed, "the server refused: line 4: the message is not valid JSON")
	if !strings.HasSuffix(r.err, "; 2 messages before that are published, up to offset 2\n") {
		t.Errorf("errors: %s", r.err)
	}
}

// Actions of the application's own are published as they are.
func TestPublish_TakesAnyAction(t *testing.T) {
	s := serveDev(t)
	const message = `{"action":"build_progress","build_id":7,"payload":{"eta_seconds":4,"steps":["a"]}}`
	shoal(t, nil, message, "publish", "u", "--dev", "--url="+s.url).wantDone(t)
	if _, text := call(t, "GET", s.url+"/v1/uploads/u", devSecret, ""); !strings.Contains(text, message) {
		t.Errorf("the newest message is %s", text)
	}
}

// An interrupt ends the command also while the server is out of reach.
func TestPublish_EndsOnInterruptWithoutAServer(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	var errs testlog.Buffer
	ended := make(chan int, 1)
	go func() {
		args := []string{"publish", "u", "--dev", "--url=http://127.0.0.1:1", "--retry-for=8760h"}
		ended <- run(ctx, args, nil, strings.NewReader(note), io.Discard, &errs)
	}()
	eventually(t, "it tries again", func() bool { return strings.Contains(errs.String(), "trying again") })
	interrupt()
	const want = "shoal: interrupted before the server has answered\n"
	if status := ends(t, ended); status != statusFailed || !strings.HasSuffix(errs.String(), want) {
		t.Errorf("status %d, errors:\n%s", status, &errs)
	}
}
