package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"github.com/shoal-go/shoal/internal/testlog"
)

func TestServeFromTokenToMessage(t *testing.T) {
	s := serve(t, 1, "--jwt-secret="+goodSecret, "--authorize=claims", "--api-key=first", "--api-key=the-key")

	token := shoal(t, []string{"SHOAL_JWT_SECRET=" + goodSecret}, "", "token", "alice", "--upload=mine-*")
	token.wantDone(t)
	c := connect(t, s.url)
	if got := c.authenticate(token.out); got != "alice" {
		t.Errorf("authenticated as %v", got)
	}
	c.send(`{"action":"subscribe_upload","upload_id":"another's"}`)
	c.send(`{"action":"subscribe_upload","upload_id":"mine-1"}`)

	flags := []string{"--url=" + s.url, "--api-key=the-key"}
	message := []string{"--stage=indexing", "--status=embedding", "--percent=80", "--message=nearly"}
	other := shoal(t, nil, "", append(append([]string{"publish", "another's"}, flags...), message...)...)
	other.wantDone(t)
	published := shoal(t, nil, "", append(append([]string{"publish", "mine-1"}, flags...), message...)...)
	published.wantDone(t)
	if !strings.HasPrefix(published.out, "accepted 1, epoch ") || !strings.HasSuffix(published.out, ", offset 1\n") {
		t.Errorf("publish printed %q", published.out)
	}
	payload, _ := c.receive("upload_progress")["payload"].(map[string]any)
	if payload["upload_id"] != "mine-1" || payload["progress_percent"] != 80.0 || payload["message"] != "nearly" {
		t.Errorf("received %v", payload)
	}
	for _, secret := range []string{goodSecret, "the-key", strings.TrimSpace(token.out), "nearly"} {
		if strings.Contains(s.log.String()+strings.Join(s.out, "\n"), secret) {
			t.Errorf("the log or the output holds %q", secret)
		}
	}
}

func TestServeDrains(t *testing.T) {
	s := serveDev(t)
	if status, _ := call(t, "GET", s.admin+"/healthz", "", ""); status != 200 {
		t.Errorf("/healthz answers %d", status)
	}
	if status, _ := call(t, "GET", s.admin+"/readyz", "", ""); status != 200 {
		t.Errorf("/readyz answers %d", status)
	}
	c := login(t, s.url)
	code := make(chan websocket.StatusCode)
	go func() { code <- c.closed() }()
	if status := s.end(); status != statusDone {
		t.Errorf("status = %d", status)
	}
	if got := <-code; got != websocket.StatusServiceRestart {
		t.Errorf("closed with %d, want 1012", got)
	}
}

// The log says what an empty or missing setting has switched off: nodes that are alone, and an API that refuses everybody.
func TestServe_LogsWhatIsSwitchedOff(t *testing.T) {
	for _, s := range []*served{
		serve(t, 1, "--jwt-secret="+goodSecret, "--authorize=open"),
		serve(t, 1, "--jwt-secret="+goodSecret, "--authorize=open", "--api-key=key"),
	} {
		status, _ := call(t, "GET", s.url+"/v1/stats", "key", "")
		s.end()
		log := s.log.String()
		if closed := strings.Contains(log, `msg="HTTP API closed"`); closed != (status == 403) || !strings.Contains(log, "broker=memory") {
			t.Errorf("the API answers %d, the log is\n%s", status, log)
		}
	}
}

// A terminal that takes no more output, for example after Ctrl-S, does not keep the server from ending in order.
func TestServe_EndsWhileItsOutputStandsStill(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	reader, writer := io.Pipe()
	defer reader.Close()
	var log testlog.Buffer
	status := make(chan int, 1)
	go func() {
		args := []string{"serve", "--dev", "--addr=127.0.0.1:0", "--admin-addr=127.0.0.1:0"}
		status <- run(ctx, args, nil, nil, writer, &log)
	}()
	eventually(t, "it serves", func() bool { return strings.Contains(log.String(), "msg=serving") })
	cancel()
	if got := ends(t, status); got != statusDone {
		t.Errorf("status = %d, log:\n%s", got, log.String())
	}
}

func TestServeIsNotReadyWhileItDrains(t *testing.T) {
	s := serveDev(t, "--drain=1m")
	c := login(t, s.url)
	ended := make(chan int)
	go func() { ended <- s.end() }()
	// The client does not answer the close, so the draining continues until it leaves.
	for status := 0; status != 503; {
		status, _ = call(t, "GET", s.admin+"/readyz", "", "")
	}
	_ = c.conn.CloseNow()
	if status := <-ended; status != statusDone {
		t.Errorf("status = %d", status)
	}
}

func TestServeOnABusyPort(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	address := busy.Addr().String()
	shoal(t, nil, "", "serve", "--dev", "--addr="+address).wantErrors(t, statusFailed,
		"cannot listen on "+address+": the address is in use; choose another address with --addr")
	shoal(t, nil, "", "serve", "--dev", "--addr=127.0.0.1:0", "--admin-addr="+address).wantErrors(t, statusFailed,
		"cannot listen on "+address+": the address is in use; choose another address with --admin-addr")
}

func TestServeOnAnAddressOfAnotherMachine(t *testing.T) {
	r := shoal(t, nil, "", "serve", "--jwt-secret="+goodSecret, "--authorize=open", "--addr=192.0.2.1:0")
	r.wantErrors(t, statusFailed,
		"cannot listen on 192.0.2.1:0: bind: cannot assign requested address; choose another address with --addr")
}

// A key server that is away leaves the node running and unready.
func TestServe_WithoutItsKeysIsUnready(t *testing.T) {
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	s := serve(t, 1, "--jwks=http://"+gone.Addr().String(), "--jwt-audience=any", "--authorize=open")
	if status, text := call(t, "GET", s.admin+"/readyz", "", ""); status != 503 || !strings.Contains(text, "JWKS") {
		t.Errorf("/readyz answers %d %q, want 503 with the reason", status, text)
	}
}

func TestServeAsksAnAuthorizer(t *testing.T) {
	s := serve(t, 1, "--jwt-secret="+goodSecret, "--authorize=http://127.0.0.1:1/may", "--api-key=k")
	if status, _ := call(t, "GET", s.url+"/v1/stats", "k", ""); status != 200 {
		t.Errorf("/v1/stats answers %d", status)
	}
}

func TestServeLogsJSONAndPrintsNothing(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var out bytes.Buffer
	reader, writer := io.Pipe()
	status := make(chan int, 1)
	go func() {
		args := []string{"serve", "--dev", "--addr=127.0.0.1:0", "--admin-addr=127.0.0.1:0", "--log-format=json"}
		status <- run(ctx, args, nil, nil, &out, writer)
		_ = writer.Close()
	}()
	var entry struct{ Msg, Addr string }
	for log := json.NewDecoder(reader); log.Decode(&entry) == nil; cancel() {
		if entry.Msg == "serving" && !strings.HasPrefix(entry.Addr, "http://127.0.0.1:") {
			t.Errorf("entry is %+v", entry)
		}
	}
	if got := <-status; got != statusDone || out.Len() > 0 || entry.Msg != "ended" {
		t.Errorf("status = %d, output %q, last entry %+v", got, out.String(), entry)
	}
}

// Behind a prefix everything public is there, and the other commands take it as part of the URL.
func TestServeBehindPathPrefix(t *testing.T) {
	s := serve(t, 1, "--jwt-secret="+goodSecret, "--authorize=open", "--api-key=the-key", "--path-prefix=/a/b")
	root := strings.TrimSuffix(s.url, "/a/b")
	if root == s.url {
		t.Fatalf("the welcome names %s", s.url)
	}
	if status, _ := call(t, "GET", root+"/v1/stats", "the-key", ""); status != 404 {
		t.Errorf("without the prefix the API answers %d", status)
	}
	token := shoal(t, []string{"SHOAL_JWT_SECRET=" + goodSecret}, "", "token", "alice")
	c := connect(t, s.url)
	c.authenticate(token.out)
	c.send(`{"action":"subscribe_upload","upload_id":"x"}`)
	published := shoal(t, nil, "", "publish", "x", "--url="+s.url, "--api-key=the-key", "--stage=indexing",
		"--status=embedding", "--percent=80", "--message=nearly")
	published.wantDone(t)
	c.receive("upload_progress")
}

// During --shutdown-delay the node is unready and everything still works; then it drains.
func TestServe_DelaysShutdown(t *testing.T) {
	s := serveDev(t, "--shutdown-delay=2s")
	ended := make(chan int)
	go func() { ended <- s.end() }()
	for status := 0; status != 503; {
		status, _ = call(t, "GET", s.admin+"/readyz", "", "")
	}
	c := login(t, s.url) // a new client is served
	code := make(chan websocket.StatusCode)
	go func() { code <- c.closed() }()
	if status, body := call(t, "POST", s.url+"/v1/uploads/u/messages", devSecret, `{"action":"note"}`); status != 202 {
		t.Errorf("publishing answers %d %s", status, body)
	}
	if got := <-code; got != websocket.StatusServiceRestart {
		t.Errorf("closed with %d, want 1012", got)
	}
	if status := <-ended; status != statusDone {
		t.Errorf("status = %d", status)
	}
}

// A publisher in the middle of a slow body does not delay the end beyond --drain.
func TestServe_EndsDespiteSlowPublisher(t *testing.T) {
	s := serveDev(t, "--drain=2s")
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "POST /v1/uploads/u/messages HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer dev\r\n"+
		"Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	status := s.end()
	t.Logf("ended after %v with status %d", time.Since(begin), status)
	if status != statusDone {
		t.Errorf("status = %d", status)
	}
	if _, err := io.ReadAll(conn); err != nil && !strings.Contains(err.Error(), "reset") {
		t.Error(err)
	}
}

// The descriptors that the process may open bound its connections, and leave a reserve.
func TestLimitConnections(t *testing.T) {
	for _, c := range []struct{ wanted, files, connections, sockets int }{
		{0, 0, 0, 0}, {5, 0, 5, 0},
		{0, 20_000, 20_000 - 128, 20_000 - 64}, {100, 20_000, 100, 164}, {50_000, 20_000, 20_000 - 128, 20_000 - 64},
		{0, 256, 128, 192}, {0, 64, 16, 32}, {10, 64, 10, 26}, {0, 2, 1, 1},
	} {
		connections, sockets := limitConnections(c.wanted, c.files)
		if connections != c.connections || sockets != c.sockets {
			t.Errorf("%d wanted, %d files: %d and %d, want %d and %d",
				c.wanted, c.files, connections, sockets, c.connections, c.sockets)
		}
	}
}

// A message from a pipe is published before the next one is there.
func TestPublish_SendsLinesAsTheyCome(t *testing.T) {
	bodies := make(chan string, 10)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		bodies <- string(body)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusAccepted)
		_, _ = io.WriteString(w, `{"accepted":1,"epoch":"e","offset":1}`)
	}))
	defer server.Close()
	in, feed := io.Pipe()
	done := make(chan int)
	var out, errs strings.Builder
	go func() {
		done <- run(t.Context(), []string{"publish", "u", "--api-key=k", "--url=" + server.URL}, nil, in, &out, &errs)
	}()
	for _, message := range []string{`{"action":"a"}`, `{"action":"b"}`} {
		if _, err := io.WriteString(feed, message+"\n"); err != nil {
			t.Fatal(err)
		}
		if got := <-bodies; got != message+"\n" {
			t.Errorf("published %q, want %q", got, message)
		}
	}
	_ = feed.Close()
	if status := <-done; status != statusDone {
		t.Errorf("status = %d: %s", status, errs.String())
	}
}

// A signal that is sent twice at once counts once: timeout(1) signals a process and its group.
func TestReleaseLater_LeavesAMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var released atomic.Bool
		ctx, signalled := context.WithCancel(t.Context())
		now := releaseLater(ctx, func() { released.Store(true) })
		signalled()
		<-time.After(sameSignal - 1)
		if synctest.Wait(); released.Load() {
			t.Error("a second signal ends the process at once")
		}
		<-time.After(1)
		if synctest.Wait(); !released.Load() {
			t.Error("a later signal does not end the process")
		}
		released.Store(false)
		if now(); !released.Load() {
			t.Error("it is not released at once")
		}
	})
}
