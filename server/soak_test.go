package server_test

import (
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/shoal-go/shoal/internal/wsframe"
	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"
)

// soakTime is how long the soak test lasts: what SHOAL_STRESS says, or a second.
func soakTime(t *testing.T) time.Duration {
	t.Helper()
	text, set := os.LookupEnv("SHOAL_STRESS")
	if !set {
		return time.Second
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("SHOAL_STRESS is %q, must be a duration such as 30s", text)
	}
	return d
}

// Clients that send in pieces, in fragments, too much, half of it or nonsense, and that go in every way there is,
// change nothing for those beside them: these get every message and every answer, in order. Nothing is left of
// anybody.
func TestServer_HostileClientsBesideHealthyOnes(t *testing.T) {
	n := start(t, func(_ *manager.Options, o *server.Options) {
		o.IdleTimeout, o.PingInterval, o.CloseTimeout = time.Minute, 30*time.Second, 100*time.Millisecond
		o.OnMessage = func(_ *server.Client, m server.Incoming) bool {
			if len(m.Data) == 13 {
				panic("a hook with a bug")
			}
			return false
		}
	})
	lasts := soakTime(t)
	n.patience += lasts
	over := time.After(lasts)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(uint64(i), 11))
			for !isClosed(stop) {
				n.assault(random)
			}
		})
	}
	for range 4 {
		c := n.login("healthy", "shoal.v1")
		subscribe(t, c, "a", 0)
		wg.Go(func() { c.keepTalking(stop) })
	}
	wg.Go(func() {
		for i := 0; !isClosed(stop); i++ {
			n.publish("a", i)
			<-time.After(time.Millisecond)
		}
	})
	<-over
	close(stop)
	wg.Wait()
	waitFor(t, func() bool {
		s := n.server.Stats()
		return s.Open == 0 && s.Connections == 0 && s.Users == 0 && s.Subscriptions == 0
	})
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// keepTalking asks again and again, and checks that every question is answered and that messages come without a
// gap.
func (c *client) keepTalking(stop <-chan struct{}) {
	defer c.conn.CloseNow() //nolint:errcheck // the end, one way or the other
	offset := 0.0
	for !isClosed(stop) {
		if err := c.conn.Write(c.ctx, 1, []byte(`{"action":"unsubscribe_upload","upload_id":"none"}`)); err != nil {
			c.t.Errorf("a healthy client: %v", err)
			return
		}
		for answered := false; !answered; {
			m := c.object()
			switch at, isMessage := m["offset"].(float64); {
			case m["action"] == "unsubscribed":
				answered = true
			case !isMessage || offset != 0 && at != offset+1:
				c.t.Errorf("after offset %v a healthy client got %v", offset, m)
				return
			default:
				offset = at
			}
		}
		<-time.After(30 * time.Millisecond) // keeps to what a client may send
	}
}

// assault is the life of one hostile client.
func (n *node) assault(random *rand.Rand) {
	conn, err := net.Dial("tcp", n.host)
	if err != nil {
		n.t.Error(err)
		return
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	socket := conn.(*net.TCPConn) // dialled as such
	if random.IntN(4) > 0 {       // else closing is a proper end, without a reset
		_ = socket.SetLinger(0)
	}
	stream := []byte("GET /ws/uploads HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
	for range random.IntN(12) {
		stream = appendNonsense(stream, random)
	}
	if random.IntN(2) == 0 {
		stream = stream[:random.IntN(len(stream)+1)]
	}
	longest := []int{1 << 4, 1 << 10, 1 << 20}[random.IntN(3)]
	for len(stream) > 0 {
		piece := stream[:min(len(stream), 1+random.IntN(longest))]
		if _, err := conn.Write(piece); err != nil {
			return
		}
		stream = stream[len(piece):]
	}
	_ = conn.SetDeadline(time.Now().Add(time.Duration(random.IntN(300)) * time.Millisecond))
	switch random.IntN(4) {
	case 0:
		_ = socket.CloseWrite()
		_ = readToEnd(conn)
	case 1:
		_, _ = conn.Read(make([]byte, 256))
	case 2:
		_ = readToEnd(conn)
	}
}

// appendNonsense appends a frame or two, most of them good ones.
func appendNonsense(stream []byte, random *rand.Rand) []byte {
	text := func(first byte, payload string) {
		stream = appendFrame(stream, first, payload)
	}
	switch random.IntN(12) {
	case 0, 1, 2, 3:
		text(0x81, `{"type":"auth","token":"hostile"}`)
	case 4:
		text(0x81, `{"action":"subscribe_upload","upload_id":"a"}`)
	case 5: // in fragments, a ping between them
		text(0x01, `{"action":"subscribe_`)
		text(0x89, "x")
		text(0x00, "")
		text(0x80, `upload","upload_id":"a"}`)
	case 6:
		text(0x82, string(make([]byte, random.IntN(70_000))))
	case 7: // a flood
		for range random.IntN(300) {
			text(0x81, `{"action":"pong"}`)
		}
	case 8:
		text(0x81, "thirteen byte") // panics in the hook
	case 9:
		text(byte(random.IntN(256)), "any opcode")
	case 10: // half of a character in each fragment, or no character at all
		text(0x01, "{\"type\":\"\xc3")
		text(0x80, []string{"\xa4\"}", "\xff\"}"}[random.IntN(2)])
	default:
		for range random.IntN(20) {
			stream = append(stream, byte(random.IntN(256)))
		}
	}
	return stream
}

// appendFrame appends a masked frame.
func appendFrame(dst []byte, first byte, payload string) []byte {
	return wsframe.AppendMasked(dst, first, [4]byte{1, 2, 3, 4}, []byte(payload))
}
