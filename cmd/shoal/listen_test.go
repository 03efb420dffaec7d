package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/pires/go-proxyproto"
)

// proxyHeader returns a PROXY header of a version.
func proxyHeader(t *testing.T, version byte, source string) []byte {
	t.Helper()
	from, err := net.ResolveTCPAddr("tcp", source)
	if err != nil {
		t.Fatal(err)
	}
	to := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 443}
	if from.IP.To4() == nil {
		to.IP = net.ParseIP("2001:db8::1")
	}
	header := proxyproto.HeaderProxyFromAddrs(version, from, to)
	var text bytes.Buffer
	if _, err := header.WriteTo(&text); err != nil {
		t.Fatal(err)
	}
	return text.Bytes()
}

// A header is read to its last byte and not beyond, in pieces of any size.
func TestProxyConn_ReadsExactlyTheHeader(t *testing.T) {
	const payload = "GET / HTTP/1.1\r\n\r\n"
	v2 := proxyHeader(t, 2, "198.51.100.7:4711")
	local := append([]byte(nil), v2...)
	local[12] = 0x20 // the command LOCAL
	for name, c := range map[string]struct {
		send   string
		remote string // "": the peer's own
		fails  bool
	}{
		"version 1":           {string(proxyHeader(t, 1, "198.51.100.7:4711")) + payload, "198.51.100.7:4711", false},
		"version 2":           {string(v2) + payload, "198.51.100.7:4711", false},
		"version 2, IPv6":     {string(proxyHeader(t, 2, "[2001:db8::7]:4711")) + payload, "[2001:db8::7]:4711", false},
		"version 1, unknown":  {"PROXY UNKNOWN\r\n" + payload, "", false},
		"version 2, local":    {string(local) + payload, "", false},
		"none":                {payload, "", false},
		"version 1, no end":   {"PROXY TCP4 " + strings.Repeat("1", 200), "", true},
		"version 1, nonsense": {"PROXY TCP4 a b c d\r\n" + payload, "", true},
		"version 2, huge":     {string(v2[:14]) + "\xff\xff" + payload, "", true},
		"version 2, cut":      {string(v2[:20]), "", true},
	} {
		for _, piece := range []int{1, 7, 4096} {
			near, far := net.Pipe()
			go func() {
				for rest := c.send; rest != ""; {
					n := min(piece, len(rest))
					if _, err := io.WriteString(far, rest[:n]); err != nil {
						return
					}
					rest = rest[n:]
				}
				far.Close()
			}()
			conn := &proxyConn{Conn: near}
			want := c.remote
			if want == "" {
				want = near.RemoteAddr().String()
			}
			if got := conn.RemoteAddr().String(); !c.fails && got != want {
				t.Errorf("%s: the address is %s, want %s", name, got, want)
			}
			got, err := io.ReadAll(conn)
			if c.fails && (len(got) > 0 && err == nil && strings.Contains(string(got), "GET") || conn.Underlying() == near) {
				t.Errorf("%s: read %q, %v", name, got, err)
			}
			if !c.fails && (string(got) != payload || err != nil || conn.Underlying() != near) {
				t.Errorf("%s in pieces of %d: read %q, %v", name, piece, got, err)
			}
			near.Close()
		}
	}
}

// proxied opens a WebSocket behind a PROXY header; nil if it is refused with a status.
func proxied(t *testing.T, url string, header []byte) (status int) {
	t.Helper()
	transport := &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		if err == nil {
			_, err = conn.Write(header)
		}
		return conn, err
	}}
	t.Cleanup(transport.CloseIdleConnections)
	conn, response, err := websocket.Dial(t.Context(), url+"/ws/uploads",
		&websocket.DialOptions{HTTPClient: &http.Client{Transport: transport}})
	if err == nil {
		t.Cleanup(func() { _ = conn.CloseNow() })
	}
	if response == nil {
		t.Fatal(err)
	}
	return response.StatusCode
}

func TestServe_TakesClientsAddressesFromThePROXYProtocol(t *testing.T) {
	s := serveDev(t, "--trusted-proxy=127.0.0.0/8", "--max-connections-per-ip=1")
	for version := range byte(3) {
		if version == 0 {
			continue
		}
		client := proxyHeader(t, version, "198.51.100."+string('0'+version)+":4711")
		for i, want := range []int{101, 429} {
			if got := proxied(t, s.url, client); got != want {
				t.Errorf("version %d: connection %d gets %d, want %d", version, i+1, got, want)
			}
		}
	}
	if got := proxied(t, s.url, nil); got != 101 {
		t.Errorf("a connection without a header gets %d", got)
	}
}

// Nobody but a trusted proxy can make up addresses.
func TestServe_RefusesThePROXYProtocolOfOthers(t *testing.T) {
	s := serveDev(t, "--trusted-proxy=192.0.2.0/24")
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = conn.Write(append(proxyHeader(t, 1, "198.51.100.7:1"), "GET /healthz HTTP/1.0\r\n\r\n"...))
	answer, err := io.ReadAll(conn)
	if !strings.HasPrefix(string(answer), "HTTP/1.1 400") && !errors.Is(err, net.ErrClosed) {
		t.Errorf("it answers %q, %v", answer, err)
	}
}
