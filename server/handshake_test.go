package server_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/shoal-go/shoal/internal/testlog"
	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"
)

const goodHandshake = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" +
	"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"

// Every handshake that RFC 6455 forbids is refused with a text that names the header, and its body never becomes
// frames.
func TestUpgrade_RefusesInvalidHandshakes(t *testing.T) {
	auth := "\x81\x9b\x00\x00\x00\x00" + `{"type":"auth","token":"u"}`
	for name, c := range map[string]struct {
		proto, headers, body string
		status               int
		text                 string
	}{
		"good":              {"1.1", goodHandshake, "", 101, ""},
		"two lines of list": {"1.1", strings.Replace(goodHandshake, "Connection: Upgrade", "Connection: keep-alive\r\nConnection: upgrade", 1), "", 101, ""},
		"HTTP/1.0":          {"1.0", goodHandshake, "", 400, "HTTP/1.1"},
		"no Upgrade":        {"1.1", strings.Replace(goodHandshake, "websocket", "h2c", 1), "", 426, "Upgrade"},
		"no Connection":     {"1.1", strings.Replace(goodHandshake, "Connection: Upgrade", "Connection: close", 1), "", 426, "Connection"},
		"version 8":         {"1.1", strings.Replace(goodHandshake, "13", "8", 1), "", 426, "Sec-WebSocket-Version"},
		"no version":        {"1.1", strings.Replace(goodHandshake, "Sec-WebSocket-Version: 13\r\n", "", 1), "", 426, "Sec-WebSocket-Version"},
		"two versions":      {"1.1", goodHandshake + "Sec-WebSocket-Version: 8\r\n", "", 400, "Sec-WebSocket-Version"},
		"version twice":     {"1.1", goodHandshake + "Sec-WebSocket-Version: 13\r\n", "", 400, "Sec-WebSocket-Version"},
		"no key":            {"1.1", strings.Replace(goodHandshake, "Key", "Kee", 1), "", 400, "Sec-WebSocket-Key is missing"},
		"short key":         {"1.1", strings.Replace(goodHandshake, "AAAAAAAAAAAAAAAAAAAAAA==", "AAAA", 1), "", 400, "Sec-WebSocket-Key"},
		"key of 18 bytes":   {"1.1", strings.Replace(goodHandshake, "AAAAAAAAAAAAAAAAAAAAAA==", "AAAAAAAAAAAAAAAAAAAAAAAA", 1), "", 400, "Sec-WebSocket-Key"},
		"key not in base64": {"1.1", strings.Replace(goodHandshake, "AAAAAAAAAAAAAAAAAAAAAA==", "not base64", 1), "", 400, "Sec-WebSocket-Key"},
		"two keys":          {"1.1", goodHandshake + "Sec-WebSocket-Key: BBBBBBBBBBBBBBBBBBBBBA==\r\n", "", 400, "Sec-WebSocket-Key"},
		"body":              {"1.1", goodHandshake + fmt.Sprintf("Content-Length: %d\r\n", len(auth)), auth, 400, "body"},
		"announced body":    {"1.1", goodHandshake + "Content-Length: 12\r\n", "", 400, "body"},
		"chunked body":      {"1.1", goodHandshake + "Transfer-Encoding: chunked\r\n", fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(auth), auth), 400, "body"},
		"empty body":        {"1.1", goodHandshake + "Content-Length: 0\r\n", "", 101, ""},
	} {
		t.Run(name, func(t *testing.T) {
			n := start(t)
			conn, err := net.Dial("tcp", n.host)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(patience))
			if _, err := fmt.Fprintf(conn, "GET /ws/uploads HTTP/%s\r\nHost: %s\r\n%s\r\n%s", c.proto, n.host, c.headers, c.body); err != nil {
				t.Fatal(err)
			}
			response, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			if response.StatusCode == http.StatusSwitchingProtocols {
				if c.status != response.StatusCode {
					t.Fatal("upgraded")
				}
				return
			}
			text, _ := io.ReadAll(response.Body)
			if response.StatusCode != c.status || !strings.Contains(string(text), c.text) {
				t.Errorf("answered with %d %q, want %d and %q", response.StatusCode, text, c.status, c.text)
			}
			if c.status == 426 && (response.Header.Get("Upgrade") != "websocket" || response.Header.Get("Sec-WebSocket-Version") != "13") {
				t.Errorf("426 without its headers: %v", response.Header)
			}
			if refused := n.server.Stats().Refused.Handshake; refused != 1 {
				t.Errorf("%d refusals counted, want 1", refused)
			}
		})
	}
}

// HTTP/2 forbids the headers Connection and Upgrade in a response.
func TestUpgrade_AnswersHTTP2WithoutUpgradeHeader(t *testing.T) {
	n := start(t)
	h2 := httptest.NewUnstartedServer(n.server.Handler())
	h2.EnableHTTP2 = true
	h2.StartTLS()
	defer h2.Close()
	transport := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	defer transport.CloseIdleConnections()
	response, err := (&http.Client{Transport: transport}).Get(h2.URL + "/ws/uploads")
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	if response.ProtoMajor != 2 || response.StatusCode != http.StatusUpgradeRequired || response.Header.Get("Upgrade") != "" {
		t.Errorf("answered with %s %d %v", response.Proto, response.StatusCode, response.Header)
	}
}

// A response writer that hides the connection is the embedder's mistake: an error names its type, and it is counted.
func TestUpgrade_ReportsHiddenHijacker(t *testing.T) {
	var log testlog.Buffer
	n := start(t, func(_ *manager.Options, o *server.Options) { o.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	type hiding struct{ http.ResponseWriter }
	outer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n.server.Handler().ServeHTTP(hiding{w}, r)
	}))
	defer outer.Close()
	for range 3 {
		request, _ := http.NewRequest(http.MethodGet, outer.URL+"/ws/uploads", http.NoBody)
		for _, line := range strings.Split(strings.TrimSpace(goodHandshake), "\r\n") {
			name, value, _ := strings.Cut(line, ": ")
			request.Header.Set(name, value)
		}
		response, err := outer.Client().Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if response.StatusCode != http.StatusInternalServerError {
			t.Errorf("answered with %d", response.StatusCode)
		}
	}
	if text := log.String(); strings.Count(text, "level=ERROR") != 1 || !strings.Contains(text, "hiding") {
		t.Errorf("logged: %s", text)
	}
	if s := n.server.Stats(); s.HijackFailed != 3 || s.Open != 0 {
		t.Errorf("counted %d, open %d", s.HijackFailed, s.Open)
	}
}
