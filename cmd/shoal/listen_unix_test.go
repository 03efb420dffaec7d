//go:build unix

package main

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/coder/websocket"
)

// overUnix returns a client that connects to a Unix socket for every URL.
func overUnix(t *testing.T, path string) *http.Client {
	t.Helper()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// A proxy that a reload adds may send the PROXY protocol, although none was trusted at the start.
func TestReload_TrustsThePROXYProtocolOfNewProxies(t *testing.T) {
	settings := "authorize: open\nmax-connections-per-ip: 1\n"
	config := writeFile(t, "shoal.yaml", settings)
	s := serve(t, 1, "--jwt-secret="+goodSecret, "--config="+config)
	if err := os.WriteFile(config, []byte(settings+"trusted-proxy: [127.0.0.0/8]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.hangUp(t, "msg=reloaded")
	for i, want := range []int{101, 429} {
		if got := proxied(t, s.url, proxyHeader(t, 1, "198.51.100.1:4711")); got != want {
			t.Errorf("connection %d gets %d, want %d", i+1, got, want)
		}
	}
}

// Every --addr is served, Unix sockets among them, which are replaced when a process has left them behind.
func TestServe_ListensOnUnixSocketsAndSeveralAddresses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	left, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	left.(*net.UnixListener).SetUnlinkOnClose(false) // listening on "unix"
	left.Close()

	s := serve(t, 1, "--jwt-secret="+goodSecret, "--authorize=open", "--api-key=k", "--addr=unix:"+path,
		"--addr=127.0.0.1:0", "--socket-mode=0600")
	urls := strings.Split(s.url, ", ")
	if len(urls) != 3 || urls[1] != "unix:"+path {
		t.Fatalf("it serves on %q", urls)
	}
	for _, url := range []string{urls[0], urls[2]} {
		if status, _ := call(t, "GET", url+"/v1/stats", "k", ""); status != 200 {
			t.Errorf("%s answers %d", url, status)
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket's mode is %v, %v", info, err)
	}
	token := shoal(t, []string{"SHOAL_JWT_SECRET=" + goodSecret}, "", "token", "alice")
	c := dial(t, "ws://local", &websocket.DialOptions{HTTPClient: overUnix(t, path)})
	if got := c.authenticate(token.out); got != "alice" {
		t.Errorf("authenticated as %v", got)
	}
	r := shoal(t, nil, "", "serve", "--dev", "--addr=unix:"+path, "--admin-addr=127.0.0.1:0")
	r.wantErrors(t, statusFailed, "another process listens there")
	if status := s.end(); status != statusDone {
		t.Errorf("status %d", status)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the socket is left behind: %v", err)
	}
}

// A node that ends leaves the sockets of its successor alone, the public and the admin one.
func TestServe_LeavesSocketsOfOthersAlone(t *testing.T) {
	folder := t.TempDir()
	path, admin := filepath.Join(folder, "s"), filepath.Join(folder, "admin")
	s := serve(t, 1, "--jwt-secret="+goodSecret, "--authorize=open", "--addr=unix:"+path, "--admin-addr=unix:"+admin)
	for _, name := range []string{path, admin} {
		if err := os.Rename(name, name+".old"); err != nil {
			t.Fatal(err)
		}
		successor, err := net.Listen("unix", name)
		if err != nil {
			t.Fatal(err)
		}
		defer successor.Close()
	}
	if status := s.end(); status != statusDone {
		t.Errorf("status %d", status)
	}
	for _, name := range []string{path, admin} {
		if conn, err := net.Dial("unix", name); err != nil {
			t.Errorf("the successor's socket is gone: %v", err)
		} else {
			_ = conn.Close()
		}
	}
}

func TestServe_RefusesPathsThatAreNoSockets(t *testing.T) {
	file := writeFile(t, "f", "precious")
	r := shoal(t, nil, "", "serve", "--dev", "--addr=unix:"+file, "--admin-addr=127.0.0.1:0")
	r.wantErrors(t, statusFailed, "the path exists and is not a socket")
	if text, err := os.ReadFile(file); err != nil || string(text) != "precious" {
		t.Errorf("the file holds %q, %v", text, err)
	}
	r = shoal(t, nil, "", "serve", "--dev", "--addr=unix:relative", "--socket-mode=0999")
	r.wantErrors(t, statusUsage, "want unix: and an absolute path", "--socket-mode")
}

// Nothing but data is sent on a connection, and nothing is set for it that it does not need.
func TestConnectionsAreNotKeptAliveByTCP(t *testing.T) {
	l, err := (&serveFlags{}).listen("addr", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	raw, err := accepted.(*net.TCPConn).SyscallConn() // listen is for TCP
	if err != nil {
		t.Fatal(err)
	}
	var on int
	if controlErr := raw.Control(func(fd uintptr) {
		on, err = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_KEEPALIVE)
	}); controlErr != nil || err != nil || on != 0 {
		t.Errorf("SO_KEEPALIVE is %d, errors %v and %v", on, controlErr, err)
	}
}

// On a Unix socket alone, the welcome of a development server has a command that works, and no page for a browser.
func TestDevWelcome_WorksOnUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	reader, writer := io.Pipe()
	ended := make(chan int)
	go func() {
		args := []string{"serve", "--dev", "--addr=unix:" + path, "--admin-addr=127.0.0.1:0"}
		ended <- run(ctx, args, nil, strings.NewReader(""), writer, io.Discard)
	}()
	var welcome []string
	for lines := bufio.NewScanner(reader); len(welcome) < 3 && lines.Scan(); {
		welcome = append(welcome, lines.Text())
	}
	command := welcome[len(welcome)-1]
	if text := strings.Join(welcome, "\n"); strings.Contains(text, "demo page") || !strings.HasPrefix(command, "curl ") {
		t.Errorf("the welcome is %s", text)
	}
	out, err := exec.CommandContext(t.Context(), "sh", "-c", command+" --silent --write-out ' %{http_code}'").CombinedOutput()
	if err != nil || !strings.HasSuffix(string(out), " 202") {
		t.Errorf("%s: %v, %s", command, err, out)
	}
	cancel()
	if status := <-ended; status != statusDone {
		t.Errorf("status = %d", status)
	}
}
