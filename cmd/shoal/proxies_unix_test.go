//go:build unix

package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/shoal-go/shoal/internal/testlog"
)

// proxy is a reverse proxy that runs with a configuration of deploy/ in front of a server of the test.
type proxy struct {
	t      *testing.T
	url    string
	folder string
	// config is the path of the adapted configuration.
	config  string
	process *exec.Cmd
}

// proxyKind says how one of the proxies is run.
type proxyKind struct {
	program, config string
	// adapt are the parts of the configuration that the test replaces: PORT is its own port, FOLDER its folder.
	adapt []string
	args  func(p *proxy) []string
	env   func(p *proxy) []string
	// reload replaces the configuration.
	reload func(t *testing.T, p *proxy)
	// keeps: WebSockets outlive a reload. If not, they are closed with 1001.
	keeps bool
}

var proxyKinds = map[string]proxyKind{
	"nginx": {
		program: "nginx", config: "nginx.conf",
		adapt: []string{
			"listen 80;", "listen 127.0.0.1:PORT;", "/var/log/nginx/access.log", "FOLDER/access.log",
			"http {\n", "pid FOLDER/pid;\nerror_log FOLDER/error.log;\nhttp {\nclient_body_temp_path FOLDER/body;\n" +
				"proxy_temp_path FOLDER/proxy;\nfastcgi_temp_path FOLDER/fastcgi;\nuwsgi_temp_path FOLDER/uwsgi;\n" +
				"scgi_temp_path FOLDER/scgi;\n",
			"worker_connections 65536", "worker_connections 512",
		},
		args:   func(p *proxy) []string { return []string{"-p", p.folder, "-c", p.config, "-g", "daemon off;"} },
		reload: func(t *testing.T, p *proxy) { p.signal(t, syscall.SIGHUP) },
		keeps:  true,
	},
	"caddy": {
		program: "caddy", config: "Caddyfile",
		adapt: []string{
			":80 {", "http://127.0.0.1:PORT {",
			"\tgrace_period", "\tadmin unix/FOLDER/admin\n\tdefault_bind 127.0.0.1\n\tgrace_period",
		},
		args: func(p *proxy) []string { return []string{"run", "--config", p.config, "--adapter", "caddyfile"} },
		env: func(p *proxy) []string {
			return []string{"XDG_DATA_HOME=" + p.folder, "XDG_CONFIG_HOME=" + p.folder, "HOME=" + p.folder}
		},
		reload: func(t *testing.T, p *proxy) {
			command := exec.Command("caddy", "reload", "--force", "--config", p.config, "--adapter", "caddyfile",
				"--address", "unix/"+p.folder+"/admin")
			if out, err := command.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
		},
	},
	"haproxy": {
		program: "haproxy", config: "haproxy.cfg",
		adapt:  []string{"bind :80", "bind 127.0.0.1:PORT", "maxconn 100000", "maxconn 100"},
		args:   func(p *proxy) []string { return []string{"-W", "-f", p.config} },
		reload: func(t *testing.T, p *proxy) { p.signal(t, syscall.SIGUSR2) },
		keeps:  true,
	},
}

// startProxy runs a proxy in front of a server and waits until it answers.
func startProxy(t *testing.T, kind proxyKind, target string) *proxy {
	t.Helper()
	t.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin") // where Debian has servers
	if _, err := exec.LookPath(kind.program); err != nil {
		t.Fatalf("%s is not installed: run .ci/tools.sh", kind.program)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	_ = listener.Close()
	_, port, _ := net.SplitHostPort(address)
	p := &proxy{t: t, url: "http://" + address, folder: t.TempDir()}
	p.config = filepath.Join(p.folder, kind.config)
	text := read(t, "deploy/"+kind.config)
	for i := 0; i < len(kind.adapt); i += 2 {
		if !strings.Contains(text, kind.adapt[i]) {
			t.Fatalf("deploy/%s has no %q", kind.config, kind.adapt[i])
		}
		text = strings.ReplaceAll(text, kind.adapt[i], kind.adapt[i+1])
	}
	for _, node := range []string{"10.0.0.1:8080", "10.0.0.2:8080", "10.0.0.3:8080"} {
		text = strings.ReplaceAll(text, node, strings.TrimPrefix(target, "http://"))
	}
	text = strings.NewReplacer("PORT", port, "FOLDER", p.folder).Replace(text)
	if err := os.WriteFile(p.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	log := &testlog.Buffer{}
	p.process = exec.Command(kind.program, kind.args(p)...)
	p.process.Stdout, p.process.Stderr, p.process.Env = log, log, os.Environ()
	if kind.env != nil {
		p.process.Env = append(p.process.Env, kind.env(p)...)
	}
	if err := p.process.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = p.process.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		_ = p.process.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(patience):
			_ = p.process.Process.Kill()
			t.Errorf("%s does not end:\n%s", kind.program, log)
		}
	})
	p.await(log, ended)
	return p
}

// await waits until the proxy reaches the server.
func (p *proxy) await(log *testlog.Buffer, ended chan struct{}) {
	p.t.Helper()
	for deadline := time.After(patience); ; {
		response, err := http.Get(p.url + "/v1/stats")
		if err == nil {
			_ = response.Body.Close()
			if response.StatusCode == http.StatusUnauthorized { // the server asks for an API key
				return
			}
		}
		select {
		case <-ended:
			p.t.Fatalf("it has ended:\n%s", log)
		case <-deadline:
			p.t.Fatalf("it does not answer (%v):\n%s", err, log)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (p *proxy) signal(t *testing.T, signal syscall.Signal) {
	t.Helper()
	if err := p.process.Process.Signal(signal); err != nil {
		t.Fatal(err)
	}
}

// eventStream is a client of Server-Sent Events.
type eventStream struct {
	t        *testing.T
	response *http.Response
	lines    *bufio.Scanner
	lastID   string
}

// streamEvents requests a stream with the token in the header, or in the address if the path has one.
func streamEvents(t *testing.T, address, token, lastID string) *eventStream {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	if lastID != "" {
		request.Header.Set("Last-Event-ID", lastID)
	}
	transport := &http.Transport{DisableKeepAlives: true}
	response, err := transport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = response.Body.Close() })
	if response.StatusCode != http.StatusOK {
		t.Fatalf("%s answers %s", address, response.Status)
	}
	return &eventStream{t, response, bufio.NewScanner(response.Body), lastID}
}

// next returns the next message, or nil at the end of the stream.
func (s *eventStream) next() (message map[string]any) {
	s.t.Helper()
	for s.lines.Scan() {
		name, value, _ := strings.Cut(s.lines.Text(), ": ")
		switch name {
		case "id":
			s.lastID = value
		case "data":
			if err := json.Unmarshal([]byte(value), &message); err != nil {
				s.t.Fatal(err)
			}
			return message
		}
	}
	return nil
}

// receive returns the next message with an action, passing over others.
func (s *eventStream) receive(action string) map[string]any {
	s.t.Helper()
	for {
		message := s.next()
		if message == nil {
			s.t.Fatalf("the stream ended while waiting for %s: %v", action, s.lines.Err())
		}
		if message["action"] == action {
			return message
		}
	}
}

// Behind each proxy, WebSockets and event streams work, messages come at once, and a reload loses none.
func TestDeploy_Proxies(t *testing.T) {
	for name, kind := range proxyKinds {
		t.Run(name, func(t *testing.T) {
			s := serveDev(t)
			p := startProxy(t, kind, s.url)
			// Two users: a connection gets the messages of all uploads that its user follows, so the WebSocket could get the
			// first one twice.
			token := func(user string) string {
				printed := shoal(t, nil, "", "token", user, "--dev")
				printed.wantDone(t)
				return strings.TrimSpace(printed.out)
			}
			jwt := token("bob")
			ws := dial(t, p.url, &websocket.DialOptions{HTTPHeader: http.Header{"Origin": {p.url}}})
			ws.authenticate(token("alice"))
			ws.send(`{"action":"subscribe_upload","upload_id":"film"}`)
			events := streamEvents(t, p.url+"/events/uploads/film", jwt, "")
			events.receive("subscribed")
			publish := func(n float64) {
				t.Helper()
				message := fmt.Sprintf(`{"action":"note","n":%v}`, n)
				status, body := call(t, "POST", p.url+"/v1/uploads/film/messages", "dev", message)
				if status != http.StatusAccepted {
					t.Fatalf("publishing answers %d %s", status, body)
				}
			}
			receive := func(n float64) {
				t.Helper()
				if got := ws.receive("note")["n"]; got != n {
					t.Errorf("the WebSocket got %v, want %v", got, n)
				}
				if got := events.receive("note")["n"]; got != n {
					t.Errorf("the stream got %v, want %v", got, n)
				}
			}
			publish(1)
			receive(1)
			for _, path := range []string{"/", "/dev/token?user=eve", "/metrics"} {
				if status, _ := call(t, "GET", p.url+path, "", ""); status != http.StatusNotFound {
					t.Errorf("%s answers %d, want 404", path, status)
				}
			}

			kind.reload(t, p)
			publish(2)
			if kind.keeps {
				receive(2)
				_ = events.response.Body.Close()
			}
			if !kind.keeps {
				if code := ws.closed(); code != websocket.StatusGoingAway {
					t.Errorf("the reload closes the WebSocket with %v", code)
				}
			}
			again := streamEvents(t, p.url+"/events/uploads/film", jwt, events.lastID)
			if got := again.receive("subscribed"); got["recovered"] != true {
				t.Errorf("after the reload: %v", got)
			}
			if !kind.keeps && again.receive("note")["n"] != 2.0 {
				t.Error("message 2 is lost")
			}
			p.checkLargestStream(jwt)
			_ = again.response.Body.Close()
			_ = events.response.Body.Close()
			awaitStreams(t, s.url, 0)
		})
	}
}

// checkLargestStream follows as many uploads as fit in a stream, twice, so that the proxy gets their ids and positions.
func (p *proxy) checkLargestStream(token string) {
	p.t.Helper()
	var query url.Values = map[string][]string{}
	for i := range 64 {
		query.Add("id", fmt.Sprintf("%08x-8000-4000-8000-%012x", i, i))
	}
	last := ""
	for range 2 {
		s := streamEvents(p.t, p.url+"/events/uploads?"+query.Encode(), token, last)
		for range 64 {
			if got := s.receive("subscribed"); got["recovered"] != (last != "") {
				p.t.Fatalf("got %v", got)
			}
		}
		last = s.lastID
		_ = s.response.Body.Close()
	}
}

// awaitStreams waits until a server has a number of event streams: the proxy closes the streams of clients that left.
func awaitStreams(t *testing.T, url string, want int) {
	t.Helper()
	for deadline := time.After(patience); ; {
		_, text := call(t, "GET", url+"/v1/stats", "dev", "")
		var stats struct {
			Open struct {
				SSE int `json:"sse"`
			} `json:"open_by_transport"`
		}
		if err := json.Unmarshal([]byte(text), &stats); err != nil {
			t.Fatal(err)
		}
		if stats.Open.SSE == want {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("%d streams are open, want %d", stats.Open.SSE, want)
		case <-time.After(10 * time.Millisecond):
		}
	}
}
