package main

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

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
