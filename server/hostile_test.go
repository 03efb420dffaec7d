package server_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoal-go/shoal/internal/testlog"
	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"
)

// hostileBytes are sent after the upgrade. Each ends its own connection and no other.
var hostileBytes = map[string]string{
	"length of 2^63":        "\x81\xff\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
	"length of 2^64-1":      "\x81\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00",
	"length of 2^62":        "\x81\xff\x40\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
	"length of 65536":       "\x81\xff\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00",
	"length not shortest":   "\x81\xfe\x00\x05\x00\x00\x00\x00hello",
	"length of 1 TB":        "\x81\xff\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00",
	"no mask":               "\x81\x05hello",
	"reserved bits":         "\xf1\x80\x00\x00\x00\x00",
	"reserved opcode":       "\x83\x80\x00\x00\x00\x00",
	"reserved control":      "\x8f\x80\x00\x00\x00\x00",
	"continuation first":    "\x80\x80\x00\x00\x00\x00",
	"fragmented ping":       "\x09\x80\x00\x00\x00\x00",
	"long ping":             "\x89\xfe\x00\x7e\x00\x00\x00\x00" + strings.Repeat("x", 126),
	"invalid UTF-8":         "\x81\x82\x00\x00\x00\x00\xff\xfe",
	"text within fragments": "\x01\x81\x00\x00\x00\x00a\x81\x81\x00\x00\x00\x00b",
	"close with one byte":   "\x88\x81\x00\x00\x00\x00\x03",
	"close with bad code":   "\x88\x82\x00\x00\x00\x00\x03\xed",
	"not a frame":           "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
}

// closeFrames are the payloads of the close frames that answer hostileBytes.
var closeFrames = map[string]string{
	"length of 2^63":        "\x03\xeaInvalid frame length",
	"length of 2^64-1":      "\x03\xeaInvalid frame length",
	"length of 2^62":        "\x03\xf1Message too big",
	"length of 65536":       "\x03\xf1Message too big",
	"length not shortest":   "\x03\xeaFrame length not in its shortest form",
	"length of 1 TB":        "\x03\xf1Message too big",
	"no mask":               "\x03\xeaProtocol error",
	"reserved bits":         "\x03\xeaProtocol error",
	"reserved opcode":       "\x03\xeaProtocol error",
	"reserved control":      "\x03\xeaProtocol error",
	"continuation first":    "\x03\xeaProtocol error",
	"fragmented ping":       "\x03\xeaProtocol error",
	"long ping":             "\x03\xeaProtocol error",
	"invalid UTF-8":         "\x03\xefText is not valid UTF-8",
	"text within fragments": "\x03\xeaProtocol error",
	"close with one byte":   "\x03\xeaProtocol error",
	"close with bad code":   "\x03\xeaProtocol error",
	"not a frame":           "\x03\xeaProtocol error",
}

// A violation of the protocol is answered with its close code and a text of this server's, and never logged as an
// error: anybody can cause it.
func TestServer_NamesProtocolViolations(t *testing.T) {
	var log testlog.Buffer
	n := start(t, func(_ *manager.Options, o *server.Options) {
		o.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelInfo}))
	})
	for name, bytes := range hostileBytes {
		conn := n.raw(t, "")
		if _, err := io.WriteString(conn.conn, bytes); err != nil {
			t.Fatal(err)
		}
		if op, payload := conn.read(); op != 0x88 || payload != closeFrames[name] {
			t.Errorf("%s: answered with %#x %q, want the close frame %q", name, op, payload, closeFrames[name])
		}
		_ = conn.conn.Close()
	}
	if text := log.String(); text != "" {
		t.Errorf("logged: %s", text)
	}
	if panics := n.server.Stats().Panics; panics != 0 {
		t.Errorf("%d panics", panics)
	}
}

// A client that closes its side without a close frame gets none: 1000 would tell it to stop.
func TestServer_AnswersEndOfStreamWithoutCloseFrame(t *testing.T) {
	n := start(t)
	conn := n.raw(t, "")
	conn.write(0x81, `{"type":"auth","token":"u"}`)
	if _, payload := conn.read(); !strings.Contains(payload, "auth_success") {
		t.Fatalf("got %q", payload)
	}
	if err := conn.conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(conn.conn)
	if err != nil || len(rest) != 0 {
		t.Errorf("got %q, %v; want the end of the stream", rest, err)
	}
}

// Short fragments count against the client's message rate, so that a message of endless empty frames ends.
func TestServer_CountsFragmentsAgainstRate(t *testing.T) {
	n := start(t)
	conn := n.raw(t, "")
	conn.write(0x81, `{"type":"auth","token":"u"}`)
	conn.read()
	go func() {
		_, _ = conn.conn.Write([]byte("\x01\x80\x00\x00\x00\x00"))
		empty := bytes.Repeat([]byte("\x00\x80\x00\x00\x00\x00"), 1000)
		for range 1000 {
			if _, err := conn.conn.Write(empty); err != nil {
				return
			}
		}
	}()
	if op, payload := conn.read(); op != 0x88 || payload != "\x03\xf0Message rate exceeded" {
		t.Errorf("got %#x %q, want 1008", op, payload)
	}
	_ = conn.conn.Close()
}

// The limit of a first message ends with it: a longer message may follow in the same segment as its last bytes.
func TestServer_LimitOfFirstMessageEndsWithIt(t *testing.T) {
	n := start(t, neverIdle, func(_ *manager.Options, o *server.Options) {
		o.PingInterval = 24 * time.Hour // a ping must not come between
		o.OnMessage = func(c *server.Client, m server.Incoming) bool {
			c.SendText(fmt.Appendf(nil, "%d bytes", len(m.Data)))
			return true
		}
	})
	first := `{"type":"auth","token":"u"}`
	frame := append([]byte{0x81, 0x80 | byte(len(first)), 0, 0, 0, 0}, first...)
	long := append([]byte{0x81, 0x80 | 126, 0x9c, 0x40, 0, 0, 0, 0}, bytes.Repeat([]byte("x"), 40000)...)
	for cut := range len(frame) {
		conn := n.raw(t, "")
		if _, err := conn.conn.Write(frame[:cut]); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.conn.Write(append(append([]byte(nil), frame[cut:]...), long...)); err != nil {
			t.Fatal(err)
		}
		conn.want(`{"action":"auth_success","user_id":"u"}`)
		conn.want("40000 bytes")
		_ = conn.conn.Close()
	}
}

// A client that has not authenticated makes the server allocate little, also if it announces a large message.
func TestServer_AllocatesLittleForAnnouncedLengths(t *testing.T) {
	n := start(t, func(_ *manager.Options, o *server.Options) { o.MaxClientMessageBytes = 64 << 20 })
	const clients = 50
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for range clients {
		conn := n.raw(t, "")
		if _, err := io.WriteString(conn.conn, "\x81\xff\x00\x00\x00\x00\x03\xff\xff\xff\x00\x00\x00\x00"); err != nil {
			t.Fatal(err)
		}
		if op, payload := conn.read(); op != 0x88 || !strings.HasPrefix(payload, "\x03\xf1") {
			t.Fatalf("got %#x %q, want 1009", op, payload)
		}
	}
	runtime.ReadMemStats(&after)
	if perClient := (after.TotalAlloc - before.TotalAlloc) / clients; perClient > 256<<10 {
		t.Errorf("%d bytes allocated for each client", perClient)
	}
}

func TestServer_NoInputEndsTheProcess(t *testing.T) {
	n := start(t)
	healthy := n.login("ann")
	for name, bytes := range hostileBytes {
		t.Run(name, func(t *testing.T) {
			conn := n.raw(t, "")
			if _, err := io.WriteString(conn.conn, bytes); err != nil {
				t.Fatal(err)
			}
			if err := readToEnd(conn.conn); err != nil {
				t.Fatalf("the connection stays open: %v", err)
			}
		})
	}
	waitFor(t, func() bool { return n.server.Stats().Open == 1 })
	healthy.send(`{"action":"subscribe_upload","upload_id":"a"}`)
	waitFor(t, func() bool { return len(n.manager.UploadSubscriberIDs("a")) == 1 })
	n.publish("a", 1)
	healthy.want(`{"action":"note","n":1}`)
}

// readToEnd returns nil when the connection has ended, however it ended.
func readToEnd(conn net.Conn) error {
	if _, err := io.Copy(io.Discard, conn); errors.Is(err, context.DeadlineExceeded) || isTimeout(err) {
		return err
	}
	return nil
}

func isTimeout(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.As(err, &timeout) && timeout.Timeout()
}

func TestServer_LogsNoSecrets(t *testing.T) {
	var log testlog.Buffer
	n := start(t, func(_ *manager.Options, o *server.Options) {
		o.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	c := n.login("ann-token-4711")
	c.send(`{"action":"subscribe_upload","upload_id":"broken"}`)
	c.send(`{"action":"private-4711"}`)
	refused := n.open()
	refused.send(`{"type":"auth","token":"bad/4711"}`)
	refused.wantClose(manager.InvalidToken)
	waitFor(t, func() bool { return strings.Contains(log.String(), "authorization unavailable") })
	for _, line := range strings.Split(log.String(), "\n") {
		if strings.Contains(strings.ReplaceAll(line, "user=ann-token-4711", ""), "4711") {
			t.Errorf("logged: %s", line)
		}
	}
}

// The client need not wait for the answer to its upgrade before it authenticates.
func TestUpgrade_FramesAheadOfTheAnswer(t *testing.T) {
	n := start(t)
	conn, err := n.dial(context.Background(), "tcp", n.host)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	auth := `{"type":"auth","token":"u"}`
	_, err = fmt.Fprintf(conn, "GET /ws/uploads HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"+
		"\x81%s\x00\x00\x00\x00%s", n.host, []byte{0x80 | byte(len(auth))}, auth)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"action":"auth_success","user_id":"u"}`
	got := ""
	for buf := make([]byte, 256); !strings.HasSuffix(got, want); {
		k, err := conn.Read(buf)
		if err != nil {
			t.Fatalf("after %q: %v", got, err)
		}
		got += string(buf[:k])
	}
}

// Clients that come, speak nonsense, subscribe, and go at random leave nothing behind.
func TestServer_NothingIsLeftAfterAStorm(t *testing.T) {
	n := start(t)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(uint64(i), 7))
			for range 20 {
				n.visit(random)
			}
		})
	}
	wg.Go(func() {
		for i := range 200 {
			n.publish([]string{"a", "b", "c"}[i%3], i)
		}
	})
	wg.Wait()
	waitFor(t, func() bool {
		s := n.server.Stats()
		return s.Open == 0 && s.Connections == 0 && s.Users == 0 && s.Subscriptions == 0
	})
}

// visit is the life of one client.
func (n *node) visit(random *rand.Rand) {
	c, _, err := n.tryOpen(nil, []string{"shoal.v1", "other"}[random.IntN(2)])
	if err != nil {
		n.t.Error(err)
		return
	}
	defer c.conn.CloseNow() //nolint:errcheck // the end, one way or the other
	messages := []string{
		`{"type":"auth","token":"ann"}`, `{"type":"auth","token":"bob/1ms"}`, `{"type":"auth","token":"bad"}`, `{`,
		`{"action":"subscribe_upload","upload_id":"a"}`, `{"action":"subscribe_upload","upload_id":"b"}`,
		`{"action":"unsubscribe_upload","upload_id":"a"}`, `{"action":"resume","uploads":{"c":{"epoch":"x","offset":1}}}`,
	}
	for i := range random.IntN(6) {
		m := messages[random.IntN(len(messages))]
		if i == 0 && random.IntN(4) > 0 {
			m = messages[0]
		}
		if c.conn.Write(c.ctx, 1, []byte(m)) != nil {
			return
		}
	}
	if random.IntN(2) == 0 {
		_ = c.conn.Close(1000, "")
	}
}

func TestReader_TextMustBeUTF8(t *testing.T) {
	n := start(t)
	conn := n.raw(t, "")
	conn.write(0x81, `{"type":"auth","token":"u"}`)
	if op, payload := conn.read(); op != 0x81 || payload != `{"action":"auth_success","user_id":"u"}` {
		t.Fatalf("got %#x %q", op, payload)
	}
	conn.write(0x81, "{\"action\":\"\xff\"}")
	if op, payload := conn.read(); op != 0x88 || !strings.HasPrefix(payload, "\x03\xef") {
		t.Errorf("got %#x %q, want a close frame with 1007", op, payload)
	}
}
