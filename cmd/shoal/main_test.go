package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"

	"github.com/shoal-go/shoal/internal/testlog"
)

// asCommand makes the test binary be the command itself, for tests that need a process of its own.
const asCommand = "SHOAL_TEST_AS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		main()
	}
	goleak.VerifyTestMain(m)
}

// goodSecret is a JWT secret that passes outside development.
const goodSecret = "0123456789abcdef0123456789abcdef"

// result is the status and the output of a command.
type result struct {
	status   int
	out, err string
}

// shoal runs a command. env are NAME=value.
func shoal(t *testing.T, env []string, stdin string, args ...string) result {
	t.Helper()
	var out, errs bytes.Buffer
	status := run(t.Context(), args, env, strings.NewReader(stdin), &out, &errs)
	return result{status, out.String(), errs.String()}
}

// withoutLog returns the result of a server without the lines of its log, which are in JSON.
func (r result) withoutLog() result {
	var errs strings.Builder
	for line := range strings.Lines(r.err) {
		if !strings.HasPrefix(line, "{") {
			errs.WriteString(line)
		}
	}
	r.err = errs.String()
	return r
}

// wantDone checks that a command has succeeded without an error message.
func (r result) wantDone(t *testing.T) {
	t.Helper()
	if r.status != statusDone || r.err != "" {
		t.Fatalf("status = %d, errors:\n%s", r.status, r.err)
	}
}

// wantErrors checks a command's status and its complaints: one line for each of want, which holds it.
func (r result) wantErrors(t *testing.T, status int, want ...string) {
	t.Helper()
	lines := strings.Split(strings.TrimSuffix(r.err, "\n"), "\n")
	if r.status != status || len(lines) != len(want) {
		t.Fatalf("status = %d, want %d with %d lines:\n%s", r.status, status, len(want), r.err)
	}
	for i, line := range lines {
		if !strings.HasPrefix(line, "shoal: ") || !strings.Contains(line, want[i]) {
			t.Errorf("line %d is\n%s\nwant in it\n%s", i+1, line, want[i])
		}
	}
	if r.out != "" {
		t.Errorf("standard output: %q", r.out)
	}
}

func writeFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// patience bounds a test that would otherwise never end. No test waits for it to pass. NATS servers that have lost their
// leader need 4 to 9 seconds for each attempt at an election, and more than one attempt on a busy machine.
const patience = 2 * time.Minute

// soon bounds the time in which a command ends, or refuses its settings. No test waits for it to pass.
const soon = 30 * time.Second

// ends returns the status of a command that is about to end. It may be called from any goroutine.
func ends(t *testing.T, status <-chan int) int {
	t.Helper()
	late := time.NewTimer(soon)
	defer late.Stop()
	select {
	case got := <-status:
		return got
	case <-late.C:
		t.Errorf("the command has not ended within %v", soon)
		return -1
	}
}

// served is a server that runs in this process.
type served struct {
	url, admin string
	out        []string // the lines of its welcome
	log        *testlog.Buffer
	wait       func() int // returns its status when it has ended
	end        func() int // ends it in an orderly way and waits
}

// serve starts a server on free ports and reads its welcome, which has the given number of lines.
func serve(t *testing.T, lines int, args ...string) *served {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	reader, writer := io.Pipe()
	s := &served{log: &testlog.Buffer{}}
	status := make(chan int, 1)
	args = append([]string{"serve", "--addr=127.0.0.1:0", "--admin-addr=127.0.0.1:0"}, args...)
	go func() {
		status <- run(ctx, args, nil, strings.NewReader(""), writer, s.log)
		_ = writer.Close()
	}()
	s.wait = sync.OnceValue(func() int { return ends(t, status) })
	s.end = func() int {
		cancel()
		return s.wait()
	}
	t.Cleanup(func() {
		if status := s.end(); status != statusDone {
			t.Errorf("status = %d, log:\n%s", status, s.log)
		}
		http.DefaultClient.CloseIdleConnections()
	})
	welcome := bufio.NewScanner(reader)
	for range lines {
		if !welcome.Scan() {
			t.Fatalf("it ended with status %d:\n%s", s.end(), s.log)
		}
		s.out = append(s.out, welcome.Text())
	}
	first, admin, _ := strings.Cut(s.out[0], ", health on ")
	s.url, s.admin = strings.TrimPrefix(first, "shoal serves on "), admin
	return s
}

// serveDev starts a development server, whose welcome has four lines.
func serveDev(t *testing.T, args ...string) *served {
	t.Helper()
	return serve(t, 4, append([]string{"--dev"}, args...)...)
}

// call makes a request and returns the status and body of its answer.
func call(t *testing.T, method, url, key, body string) (int, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if key != "" {
		request.Header.Set("Authorization", "Bearer "+key)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

// socket is a client on a WebSocket.
type socket struct {
	t    *testing.T
	conn *websocket.Conn
	ctx  context.Context
}

func connect(t *testing.T, url string) *socket {
	t.Helper()
	return dial(t, url, nil)
}

func dial(t *testing.T, url string, options *websocket.DialOptions) *socket {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	conn, _, err := websocket.Dial(ctx, url+"/ws/uploads", options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.CloseNow() })
	return &socket{t, conn, ctx}
}

// login connects to a development server and authenticates as alice.
func login(t *testing.T, url string) *socket {
	t.Helper()
	token := shoal(t, nil, "", "token", "alice", "--dev")
	token.wantDone(t)
	c := connect(t, url)
	c.authenticate(token.out)
	return c
}

// authenticate sends a token, as a command has printed it, and returns whom the server takes the client for.
func (s *socket) authenticate(token string) any {
	s.t.Helper()
	s.send(fmt.Sprintf(`{"type":"auth","token":%q}`, strings.TrimSpace(token)))
	return s.receive("auth_success")["user_id"]
}

func (s *socket) send(message string) {
	s.t.Helper()
	if err := s.conn.Write(s.ctx, websocket.MessageText, []byte(message)); err != nil {
		s.t.Fatal(err)
	}
}

// receive returns the next message with an action, passing over others.
func (s *socket) receive(action string) map[string]any {
	s.t.Helper()
	for {
		_, data, err := s.conn.Read(s.ctx)
		if err != nil {
			s.t.Fatalf("waiting for %s: %v", action, err)
		}
		var message map[string]any
		if err := json.Unmarshal(data, &message); err != nil {
			s.t.Fatal(err)
		}
		if message["action"] == action {
			return message
		}
	}
}

// closed returns the code that the server closes with.
func (s *socket) closed() websocket.StatusCode {
	for {
		if _, _, err := s.conn.Read(s.ctx); err != nil {
			return websocket.CloseStatus(err)
		}
	}
}

// eventually returns when a condition holds, and ends the test if that takes too long.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	late := time.NewTimer(patience)
	defer late.Stop()
	for !condition() {
		select {
		case <-again.C:
		case <-late.C:
			t.Fatalf("still waiting until %s", what)
		}
	}
}
