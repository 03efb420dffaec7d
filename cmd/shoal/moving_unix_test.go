//go:build unix

package main

import (
	"bufio"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// python runs the application of docs/moving-from-python.md and returns its first line.
func python(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "python3", append([]string{"testdata/python/application.py"}, args...)...).Output()
	if err != nil {
		t.Fatalf("this test needs python3 (install it): application.py %q: %v", args[0], err)
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return line
}

// oldService starts the listener of the Python service and returns its messages.
func oldService(t *testing.T, redis string) <-chan string {
	t.Helper()
	command := exec.CommandContext(t.Context(), "python3", "testdata/python/application.py", "listen", redis)
	out, err := command.StdoutPipe()
	if err == nil {
		err = command.Start()
	}
	if err != nil {
		t.Fatalf("this test needs python3 (install it): %v", err)
	}
	lines := make(chan string, 100)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for scanner := bufio.NewScanner(out); scanner.Scan(); {
			lines <- scanner.Text()
		}
	}()
	t.Cleanup(func() {
		_ = command.Process.Kill()
		<-ended
		_ = command.Wait()
	})
	if first := <-lines; first != "listening" {
		t.Fatalf("the listener says %q", first)
	}
	return lines
}

// receiveText returns the next message with an action, byte for byte.
func (s *socket) receiveText(action string) string {
	s.t.Helper()
	for {
		_, data, err := s.conn.Read(s.ctx)
		if err != nil {
			s.t.Fatalf("waiting for %s: %v", action, err)
		}
		if strings.Contains(string(data), `"action":"`+action+`"`) {
			return string(data)
		}
	}
}

// TestMoving_BothServicesRun takes the steps of docs/moving-from-python.md: the Python application keeps publishing and
// listening on Redis, its tokens and its page stay as they are, and Shoal serves the page's WebSocket.
func TestMoving_BothServicesRun(t *testing.T) {
	redis := reserveRedis(t).start()
	old := oldService(t, redis.address)
	const key = "an-api-key"
	s := serve(t, 1, "--broker=redis://"+redis.address, "--jwt-secret="+goodSecret, "--authorize=open",
		"--token-expiry=connect", "--allowed-origin=https://app.example:8443", "--api-key="+key)
	eventually(t, "the node is ready", func() bool {
		status, _ := call(t, http.MethodGet, s.admin+"/readyz", "", "")
		return status == http.StatusOK
	})

	// Step 2 and 3: the application's tokens, the page's messages, the publisher's bytes.
	page := connect(t, s.url)
	if user := page.authenticate(python(t, "token", goodSecret, "ann", "3")); user != "ann" {
		t.Fatalf("the token belongs to %v", user)
	}
	expiry := time.Now().Add(3 * time.Second)
	page.send(`{"action":"subscribe_upload","upload_id":"cat"}`)
	eventually(t, "the page follows the upload", func() bool {
		_, body := call(t, http.MethodGet, s.url+"/v1/uploads/cat/subscribers", key, "")
		return strings.Contains(body, `"ann"`)
	})
	published := python(t, "publish", redis.address, "cat", "größer 🐟")
	if got := page.receiveText("upload_progress"); got != published {
		t.Errorf("the page received\n%s, published was\n%s", got, published)
	}
	if got := <-old; got != published {
		t.Errorf("the old service received\n%s, published was\n%s", got, published)
	}

	// Step 5: the publisher moves to the HTTP API; both services still get its messages.
	if status := python(t, "post", s.url, key, "cat", "by HTTP"); status != "202" {
		t.Fatalf("posted: %s", status)
	}
	if got := page.receive("upload_progress"); !strings.HasSuffix(got["timestamp"].(string), "Z") {
		t.Errorf("the timestamp is %v, want one in UTC", got["timestamp"])
	}
	if got := <-old; !strings.Contains(got, "by HTTP") {
		t.Errorf("the old service received %s", got)
	}

	// Step 6: until then a page outlives its token of 30 minutes, as in the Python service.
	eventually(t, "the token has expired", func() bool { return time.Now().After(expiry.Add(time.Second)) })
	last := python(t, "publish", redis.address, "cat", "after the token's end")
	if got := page.receiveText("upload_progress"); got != last {
		t.Errorf("the page received\n%s, published was\n%s", got, last)
	}
}

// Step 1: a secret of 14 bytes is refused with a remedy, before anything is changed.
func TestMoving_ShortSecretIsNamed(t *testing.T) {
	r := shoal(t, nil, "", "check-config", "--jwt-secret=dev-secret-key", "--authorize=open")
	if r.status != statusUsage || !strings.Contains(r.err, "--jwt-secret has 14 bytes, want at least 32, such as openssl rand -hex 32 prints") {
		t.Errorf("status %d: %s", r.status, r.err)
	}
}

// Step 4: behind a proxy that sends `Host $host`, the page's origin has a port that the host lacks.
func TestMoving_ProxyWithoutPort(t *testing.T) {
	handshake := func(url string) int {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/ws/uploads", nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Host = "app.example"
		for name, value := range map[string]string{
			"Origin": "https://app.example:8443", "Connection": "Upgrade", "Upgrade": "websocket",
			"Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "MDEyMzQ1Njc4OWFiY2RlZg==",
		} {
			request.Header.Set(name, value)
		}
		response, err := http.DefaultTransport.RoundTrip(request)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		return response.StatusCode
	}
	args := []string{"--jwt-secret=" + goodSecret, "--authorize=open"}
	if got := handshake(serve(t, 1, args...).url); got != http.StatusForbidden {
		t.Errorf("without --allowed-origin: %d", got)
	}
	if got := handshake(serve(t, 1, append(args, "--allowed-origin=https://app.example:8443")...).url); got != http.StatusSwitchingProtocols {
		t.Errorf("with --allowed-origin: %d", got)
	}
}

// The commands and file names of the page exist.
func TestMoving_PageNamesWhatExists(t *testing.T) {
	page, err := os.ReadFile("../../docs/moving-from-python.md")
	if err != nil {
		t.Fatal(err)
	}
	flags := shoal(t, nil, "", "serve", "--help").out
	for _, word := range strings.FieldsFunc(string(page), func(r rune) bool { return strings.ContainsRune(" \n`,()=|", r) }) {
		if strings.HasPrefix(word, "--") && len(word) > 3 && !strings.Contains(flags, word) {
			t.Errorf("the page names %s, which serve does not have", word)
		}
	}
}
