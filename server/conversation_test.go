package server_test

import (
	"context"
	"crypto/tls"
	"net"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"
)

// The files hold every message of the protocol, byte for byte, in the order of a conversation.
func TestServer_Conversations(t *testing.T) {
	for name, subprotocols := range map[string][]string{"base": nil, "v1": {"shoal.v1"}} {
		t.Run(name, func(t *testing.T) {
			script, err := os.ReadFile("testdata/" + name + ".txt")
			if err != nil {
				t.Fatal(err)
			}
			play(t, string(script), subprotocols...)
		})
	}
}

// The conversations of the page about the protocol take place. Their first line names the level.
func TestServer_ConversationsOfTheProtocolPage(t *testing.T) {
	page, err := os.ReadFile("../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(string(page), "```conversation\n")[1:]
	if len(blocks) != 6 {
		t.Errorf("the page has %d conversations, want 6", len(blocks))
	}
	for _, block := range blocks {
		script, _, _ := strings.Cut(block, "```")
		t.Run("", func(t *testing.T) {
			if strings.HasPrefix(script, "# shoal.v1\n") {
				play(t, script, "shoal.v1")
			} else {
				play(t, script)
			}
		})
	}
}

// play holds a conversation with a node: > the client says, < the server says, ! the publisher does, + the client
// connects again, x the server closes the connection.
func play(t *testing.T, script string, subprotocols ...string) {
	t.Helper()
	n := start(t)
	n.t = t
	c := n.open(subprotocols...)
	epochs := strings.NewReplacer()
	for i, line := range strings.Split(strings.TrimSpace(script), "\n") {
		kind, text, _ := strings.Cut(line, " ")
		switch kind {
		case "#":
		case ">":
			c.send(epochs.Replace(text))
		case "!":
			n.publishJSON("u1", text)
		case "+":
			_ = c.conn.CloseNow()
			c = n.open(subprotocols...)
		case "x":
			code, reason, _ := strings.Cut(text, " ")
			number, err := strconv.ParseUint(code, 10, 16)
			if err != nil {
				t.Fatalf("line %d: %v", i+1, err)
			}
			c.wantClose(manager.CloseReason{Code: uint16(number), Text: reason})
		case "<":
			got := c.next()
			if strings.Contains(text, `"epoch":"E1"`) {
				_, position, _ := n.manager.Newest(t.Context(), "u1")
				epochs = strings.NewReplacer(`"E1"`, `"`+position.Epoch+`"`)
			}
			if want := epochs.Replace(text); got != want {
				t.Fatalf("line %d:\ngot  %s\nwant %s", i+1, got, want)
			}
		default:
			t.Fatalf("line %d is not a line of a conversation: %s", i+1, line)
		}
	}
}

// startTLS runs a node behind TLS, with the certificate that net/http/httptest has for tests.
func startTLS(t testing.TB, change ...func(*manager.Options, *server.Options)) *node {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return startTLSOn(t, ln, change...)
}

func startTLSOn(t testing.TB, ln net.Listener, change ...func(*manager.Options, *server.Options)) *node {
	t.Helper()
	web := httptest.NewTLSServer(nil)
	config := web.TLS.Clone()
	web.Close()
	config.NextProtos = []string{"http/1.1"}
	n := startOn(t, server.TLSListener(ln, config), change...)
	trusting := &tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}
	n.dial, n.patience = trusting.DialContext, patience
	return n
}

// A connection over TLS behaves like any other.
func TestReader_TLS(t *testing.T) {
	n := startTLS(t)
	silent := n.raw(t, "")
	silent.write(0x89, "")
	silent.read() // the server knows the connection when it answers
	c := n.raw(t, v1Header())
	c.enter("u")
	message := `{"action":"no action that is known"}`
	c.write(0x01, message[:9])
	c.write(0x89, "are you there?")
	if first, payload := c.read(); first != 0x8A || payload != "are you there?" {
		t.Fatalf("got %#x %q, want a pong", first, payload)
	}
	c.write(0x80, message[9:])
	c.want(unknownAnswer)
	c.write(0x88, "\x03\xe8")
	if first, payload := c.read(); first != 0x88 || payload != "\x03\xe8" {
		t.Errorf("got %#x %q, want a close frame with 1000", first, payload)
	}
	_ = c.conn.Close()
	waitFor(t, func() bool { return n.server.Stats().Open == 1 })

	closed := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		closed <- n.server.Close(ctx)
	}()
	if first, payload := silent.read(); first != 0x88 || payload != "\x03\xf4Server reloading" {
		t.Errorf("got %#x %q, want a close frame with 1012", first, payload)
	}
	_ = silent.conn.Close()
	if err := <-closed; err != nil {
		t.Error(err)
	}
}
