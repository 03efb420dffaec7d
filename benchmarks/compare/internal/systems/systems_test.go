package systems

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/message"
	"github.com/shoal-go/shoal/internal/load"
)

// centrifuge's node, shut down, leaves behind workers that sleep for a second.
func TestMain(m *testing.M) {
	const worker = "github.com/centrifugal/centrifuge/internal/dissolve.(*Dissolver).runWorker"
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction(worker))
}

const (
	clients  = 20
	burst    = 40
	testTime = time.Minute
)

// Every system delivers exactly the published messages, to their receivers, in order.
func TestDelivery(t *testing.T) {
	for _, e := range All() {
		if e.Part == StormOnly || e.Part == IntakeOnly || e.Command != "" {
			continue
		}
		for _, channels := range []int{1, clients} {
			t.Run(fmt.Sprintf("%s/channels=%d", e.Name, channels), func(t *testing.T) { deliver(t, e, channels) })
		}
	}
}

func deliver(t *testing.T, e Entry, channels int) {
	ctx, cancel := context.WithTimeout(t.Context(), testTime)
	defer cancel()
	system, url := start(t, e)
	dialect := e.Dialect(Audience{Channels: channels})
	var all []*client
	for i := range clients {
		all = append(all, connect(ctx, t, url, dialect, i))
	}
	eventually(ctx, t, func() bool { return system.Subscriptions() == clients })

	// One burst, and the same again one by one: a system may join messages that arrive together.
	messages := some(burst*channels, channels, message.MinSize, 1)
	if err := system.Publish(messages); err != nil {
		t.Fatal(err)
	}
	for _, m := range some(3*channels, channels, 1000, uint64(len(messages)+1)) {
		messages = append(messages, m)
		if err := system.Publish([]message.Message{m}); err != nil {
			t.Fatal(err)
		}
	}
	var receiving sync.WaitGroup
	for i, c := range all {
		var wanted []message.Message
		for _, m := range messages {
			if m.Channel == message.Channel(i%channels) {
				wanted = append(wanted, m)
			}
		}
		receiving.Go(func() { c.expect(ctx, t, wanted) })
	}
	receiving.Wait()
	for _, c := range all {
		c.leave()
	}
	eventually(ctx, t, func() bool { return system.Subscriptions() == 0 })
}

// The storm's dialects are acknowledged, too.
func TestStorm(t *testing.T) {
	for _, e := range All() {
		if e.Part != Everywhere && e.Part != StormOnly || e.Command != "" {
			continue
		}
		t.Run(e.Name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), testTime)
			defer cancel()
			_, url := start(t, e)
			dialect := e.Dialect(Audience{Channels: clients, Storm: true})
			for i := range clients {
				connect(ctx, t, url, dialect, i).leave()
			}
		})
	}
}

// start runs a system until the test is over.
func start(t *testing.T, e Entry) (System, string) {
	t.Helper()
	system, err := e.New()
	if err != nil {
		t.Fatal(err)
	}
	edge := httptest.NewServer(system.Handler())
	t.Cleanup(func() {
		edge.Close()
		if err := system.Close(); err != nil {
			t.Error(err)
		}
	})
	return system, strings.Replace(edge.URL, "http", "ws", 1)
}

// some makes messages round-robin over channels.
func some(n, channels, size int, number uint64) []message.Message {
	messages := make([]message.Message, n)
	for i := range messages {
		messages[i] = message.Message{
			Channel: message.Channel(i % channels), Sent: 1_790_000_000_000_000_000, Number: number + uint64(i), Size: size,
		}
	}
	return messages
}

// eventually waits for a condition that nothing tells of.
func eventually(ctx context.Context, t *testing.T, condition func() bool) {
	t.Helper()
	for !condition() {
		select {
		case <-ctx.Done():
			t.Fatal("what was waited for did not come")
		case <-time.After(time.Millisecond):
		}
	}
}

// client is one that is subscribed.
type client struct {
	conn    *websocket.Conn
	dialect load.Dialect
}

func connect(ctx context.Context, t *testing.T, url string, d load.Dialect, i int) *client {
	t.Helper()
	var protocols []string
	if d.Subprotocol != "" {
		protocols = []string{d.Subprotocol}
	}
	conn, _, err := websocket.Dial(ctx, url+d.Path, &websocket.DialOptions{Subprotocols: protocols})
	if err != nil {
		t.Fatal(err)
	}
	conn.SetReadLimit(-1)
	c := &client{conn, d}
	t.Cleanup(c.leave)
	if d.Hello != nil {
		for _, hello := range d.Hello(i) {
			if err := conn.Write(ctx, websocket.MessageText, hello); err != nil {
				t.Fatal(err)
			}
		}
	}
	for d.Ready != nil {
		_, payload, err := conn.Read(ctx)
		if err != nil {
			t.Fatalf("client %d has not become ready: %v", i, err)
		}
		if d.Ready(payload) {
			break
		}
	}
	return c
}

func (c *client) leave() { _ = c.conn.CloseNow() }

// expect reads the wanted messages, and no other that counts.
func (c *client) expect(ctx context.Context, t *testing.T, wanted []message.Message) {
	for len(wanted) > 0 {
		_, payload, err := c.conn.Read(ctx)
		if err != nil {
			t.Errorf("%d messages are missing: %v", len(wanted), err)
			return
		}
		if c.dialect.Data != nil && c.dialect.Data(payload) == 0 {
			continue
		}
		if wanted, err = match(c.dialect, payload, wanted); err != nil {
			t.Error(err)
			return
		}
	}
}

// match removes the contents of a WebSocket message.
func match(d load.Dialect, payload []byte, wanted []message.Message) ([]message.Message, error) {
	parts := bytes.Split(bytes.TrimSpace(payload), []byte("\n"))
	if d.Data != nil && d.Data(payload) != len(parts) {
		return wanted, fmt.Errorf("%d of %d messages count", d.Data(payload), len(parts))
	}
	for _, part := range parts {
		if len(wanted) == 0 {
			return nil, errors.New("more came than was published")
		}
		want := wanted[0].JSON()
		enveloped := bytes.HasPrefix(part, []byte(publication))
		if !enveloped && !bytes.Equal(part, want) || !bytes.Contains(part, want) {
			return wanted, fmt.Errorf("got  %s\nwant %s", part, want)
		}
		wanted = wanted[1:]
	}
	return wanted, nil
}
