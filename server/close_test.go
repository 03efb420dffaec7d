package server_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"
)

func TestDrain_SendsReconnectThenServerReloading(t *testing.T) {
	n := start(t)
	base, v1, silent := n.login("ann"), n.login("bob", "shoal.v1"), n.open()
	base.send(`{"action":"subscribe_upload","upload_id":"a"}`)
	waitFor(t, func() bool { return len(n.manager.UploadSubscriberIDs("a")) == 1 })
	n.publish("a", 1)

	drained := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		drained <- n.server.Drain(ctx, 0)
	}()
	if before := base.wantClose(manager.ServerReloading); len(before) != 1 || before[0] != `{"action":"note","n":1}` {
		t.Errorf("before the close frame came %q, want what was queued", before)
	}
	before := v1.wantClose(manager.ServerReloading)
	var told struct {
		Action string  `json:"action"`
		After  float64 `json:"retry_after_ms"`
	}
	if len(before) != 1 || json.Unmarshal([]byte(before[0]), &told) != nil || told.Action != "reconnect" || told.After <= 0 {
		t.Errorf("before the close frame came %q, want reconnect", before)
	}
	silent.wantClose(manager.ServerReloading)
	if err := <-drained; err != nil {
		t.Error(err)
	}
	if _, resp, err := n.tryOpen(nil); err == nil || resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
		t.Errorf("a new connection got %v, want 503 with Retry-After", err)
	}
}

// TestClose_ReconnectPrecedesEveryCodeThatAsksForIt: regardless of its text and of who closes the connection.
func TestClose_ReconnectPrecedesEveryCodeThatAsksForIt(t *testing.T) {
	n := start(t)
	for _, code := range []uint16{1000, 1012, 1013, 4000} {
		c, reason := n.login("ann", "shoal.v1"), manager.CloseReason{Code: code, Text: "of the operator"}
		if _, err := n.manager.DisconnectUser(t.Context(), "ann", reason); err != nil {
			t.Fatal(err)
		}
		before := c.wantClose(reason)
		told := len(before) == 1 && strings.HasPrefix(before[0], `{"action":"reconnect"`)
		if wanted := code == 1012 || code == 1013; told != wanted {
			t.Errorf("before %d came %q", code, before)
		}
	}
}

// TestDrain_RestIsToldAtTheDeadline: clients whose turn would come after the deadline of the context receive reconnect
// and their close frame nevertheless.
func TestDrain_RestIsToldAtTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := startPiped(t)
		var reading sync.WaitGroup
		for i := range 20 {
			c := n.login(fmt.Sprint("user", i), "shoal.v1")
			reading.Go(func() {
				before := c.wantClose(manager.ServerReloading)
				if len(before) == 0 || !strings.HasPrefix(before[len(before)-1], `{"action":"reconnect"`) {
					t.Errorf("before the close frame came %q, want reconnect", before)
				}
			})
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := n.server.Drain(ctx, time.Hour); err != nil {
			t.Error(err)
		}
		reading.Wait()
	})
}

// TestDrain_CancelledTellsTheRest: a caller that no longer waits gets its error, and all clients their close frames,
// whether their turn has come or not, and also when they have not authenticated.
func TestDrain_CancelledTellsTheRest(t *testing.T) {
	for _, spread := range []time.Duration{0, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			n := startPiped(t)
			clients := []*client{n.open("shoal.v1")}
			for i := range 20 {
				clients = append(clients, n.login(fmt.Sprint("user", i), "shoal.v1"))
			}
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			time.AfterFunc(time.Second, cancel)
			begin := time.Now()
			if err := n.server.Drain(ctx, spread); !errors.Is(err, context.Canceled) {
				t.Errorf("spread %v: %v, want the context's error", spread, err)
			}
			if took := time.Since(begin); took != time.Second {
				t.Errorf("spread %v: it returned after %v, want 1s", spread, took)
			}
			for _, c := range clients {
				c.wantClose(manager.ServerReloading)
			}
		})
	}
}

// Close flushes the queued answers of connections that have not authenticated.
func TestServer_CloseFlushesUnauthenticatedConnections(t *testing.T) {
	n := start(t)
	var silent []*raw
	for range 20 {
		c := n.raw(t, "")
		c.write(0x89, "")
		c.read() // the server knows the connection when it answers
		silent = append(silent, c)
	}
	closed := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		closed <- n.server.Close(ctx)
	}()
	for _, c := range silent {
		if first, payload := c.read(); first != 0x88 || payload != "\x03\xf4Server reloading" {
			t.Errorf("got %#x %q, want a close frame with 1012", first, payload)
		}
		_ = c.conn.Close()
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
}

func TestClient_MessageLimits(t *testing.T) {
	n := start(t, func(_ *manager.Options, o *server.Options) {
		o.MaxClientMessageBytes = 1024
		o.PingInterval, o.IdleTimeout = 24*time.Hour, 48*time.Hour
		o.ClientMessageRate, o.ClientMessageBurst = 0.001, 5
	})
	large := n.login("ann")
	large.send(strings.Repeat("x", 1025))
	if _, _, err := large.conn.Read(large.ctx); websocket.CloseStatus(err) != websocket.StatusMessageTooBig {
		t.Errorf("a message too big ended with %v, want 1009", err)
	}
	many := n.login("bob")
	for range 5 {
		many.send(`{"action":"pong"}`)
	}
	many.wantClose(manager.TooManyMessages)
}

// A user with too many connections that are alive gets no further one; a connection that has been silent for more than
// a ping interval gives way.
func TestServer_SilentConnectionOfAUserGivesWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := startPiped(t, func(m *manager.Options, _ *server.Options) { m.MaxConnectionsPerUser = 2 })
		silent := n.raw(t, "Authorization: Bearer ann\r\n")
		_ = silent.conn.SetDeadline(time.Time{})
		closed := make(chan string, 1)
		go func() { // reads, and answers nothing
			for {
				if first, payload := silent.read(); first == 0x88 {
					closed <- payload
					return
				}
			}
		}()
		alive := n.login("ann")
		messages := make(chan string, 1)
		go func() { // the library answers pings
			for {
				_, data, err := alive.conn.Read(alive.ctx)
				if err != nil {
					return
				}
				if text := string(data); text != `{"action":"ping"}` {
					messages <- text
				}
			}
		}()
		synctest.Wait()
		second := n.open()
		second.send(`{"type":"auth","token":"ann"}`)
		if before := second.wantClose(manager.TooManyConnections); len(before) != 0 {
			t.Errorf("before the close frame came %q, want nothing", before)
		}
		<-time.After(40 * time.Second)
		third := n.login("ann")
		if payload := <-closed; payload != "\x03\xe9Idle timeout" {
			t.Errorf("the silent connection is closed with %q, want 1001", payload)
		}
		third.send(`{"action":"subscribe_upload","upload_id":"a"}`)
		synctest.Wait()
		n.publish("a", 1)
		third.want(`{"action":"note","n":1}`)
		if got := <-messages; got != `{"action":"note","n":1}` {
			t.Errorf("the other connection gets %s", got)
		}
	})
}

func TestClient_SlowConsumerIsClosed(t *testing.T) {
	n := start(t, func(_ *manager.Options, o *server.Options) { o.QueueMessages = 16 })
	slow, healthy := n.login("ann", "shoal.v1"), n.login("bob")
	subscribe(t, slow, "a", 0)
	healthy.send(`{"action":"subscribe_upload","upload_id":"a"}`)
	waitFor(t, func() bool { return len(n.manager.UploadSubscriberIDs("a")) == 2 })

	message := `{"action":"note","text":"` + strings.Repeat("x", 60_000) + `"}`
	published := 0
	for n.server.Stats().SlowConsumers == 0 { // the kernel takes some megabytes first
		n.publishJSON("a", message)
		healthy.want(message)
		published++
	}
	last := ""
	received := 0
	for _, m := range slow.wantClose(manager.SlowConsumer) {
		last = m
		received++
	}
	var told struct {
		Action string `json:"action"`
	}
	if json.Unmarshal([]byte(last), &told) != nil || told.Action != "reconnect" {
		t.Errorf("the last message is %.80q, want reconnect", last)
	}
	if received >= published {
		t.Errorf("received all %d messages, want some dropped", published)
	}
	waitFor(t, func() bool { return n.manager.Stats().Connections == 1 })
}

func TestClient_ConflatedOnlyWhileSlow(t *testing.T) {
	n := start(t)
	c := n.login("ann", "shoal.v1")
	subscribe(t, c, "a", 0)
	text := strings.Repeat("x", 50_000)
	progress := func(percent float64) {
		_, err := n.manager.Publish(context.Background(), "a", manager.UploadProgress{
			Status: manager.StatusAnalyzing, Stage: manager.StageIndexing, Percent: percent, Message: text,
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	published := 0
	for n.manager.Stats().Conflated < 100 {
		progress(float64(published % 100))
		published++
	}
	if _, err := n.manager.Publish(context.Background(), "a", manager.UploadCompleted{Description: "done"}); err != nil {
		t.Fatal(err)
	}
	received, skipped, offset := 0, 0, 0.0
	for {
		m := c.object()
		if at := m["offset"].(float64); at <= offset {
			t.Fatalf("offset %v after %v", at, offset)
		}
		offset = m["offset"].(float64)
		if m["action"] == "upload_completed" {
			break
		}
		received++
		if k, ok := m["skipped"].(float64); ok {
			skipped += int(k)
		}
	}
	if received+skipped != published || skipped < 100 {
		t.Errorf("received %d and skipped %d of %d messages", received, skipped, published)
	}
}

// Pings are spread over the interval and come as a message and as a WebSocket ping. A client that answers neither is
// closed with 1001 after the idle timeout; one that answers either stays.
func TestKeepalive_ClosesSilentClientsOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := startPiped(t)
		begin := time.Now()
		const clients = 128
		first := make(chan time.Duration, clients)
		idle := n.raw(t, "Authorization: Bearer silent\r\n")
		_ = idle.conn.SetDeadline(time.Time{})
		for i := range clients - 1 {
			c := n.login(fmt.Sprint("user", i))
			go func() { // answers pings until the node is closed
				for pings := 0; ; pings++ {
					_, data, err := c.conn.Read(c.ctx)
					if err != nil {
						return
					}
					if string(data) != `{"action":"ping"}` {
						t.Errorf("got %s, want a ping", data)
					}
					if pings == 0 {
						first <- time.Since(begin)
					}
					if i%2 == 0 { // the others answer only the WebSocket ping, as the library does by itself
						_ = c.conn.Write(c.ctx, websocket.MessageText, []byte(`{"action":"pong"}`))
					}
				}
			}()
		}
		messages, pings := 0, 0
		for first, payload := idle.read(); first != 0x88; first, payload = idle.read() {
			switch {
			case first == 0x89:
				pings++
			case payload == `{"action":"ping"}`:
				messages++
			}
		}
		if lasted := time.Since(begin); lasted != 90*time.Second || messages != 3 || pings != 3 {
			t.Errorf("a silent client lasted %v with %d messages and %d pings, want 90s, 3 and 3", lasted, messages, pings)
		}
		byTime := map[time.Duration]int{}
		for range clients - 1 {
			at := <-first
			if at > 30*time.Second {
				t.Errorf("first ping after %v", at)
			}
			byTime[at]++
		}
		for at, count := range byTime {
			if count > 2 {
				t.Errorf("%d clients were pinged at once after %v", count, at)
			}
		}
		<-time.After(10 * time.Minute)
		if left := n.manager.Stats().Connections; left != clients-1 {
			t.Errorf("%d clients that answer are left, want %d", left, clients-1)
		}
	})
}

func TestReader_PingIsAnsweredWithItsPayload(t *testing.T) {
	n := start(t)
	conn := n.raw(t, "")
	conn.write(0x89, "hello")
	if op, payload := conn.read(); op != 0x8A || payload != "hello" {
		t.Errorf("answered with %#x %q, want a pong with hello", op, payload)
	}
	conn.write(0x89, "")
	if op, payload := conn.read(); op != 0x8A || payload != "" {
		t.Errorf("answered with %#x %q, want an empty pong", op, payload)
	}
}

func TestReader_CloseHandshake(t *testing.T) {
	n := start(t)
	c := n.login("ann")
	if err := c.conn.Close(websocket.StatusNormalClosure, "bye"); err != nil {
		t.Errorf("the close handshake failed: %v", err)
	}
	waitFor(t, func() bool { return n.server.Stats().Open == 0 && n.manager.Stats().Connections == 0 })
}

func TestReader_ConnectionLostWithoutCloseFrame(t *testing.T) {
	n := start(t)
	c := n.login("ann")
	c.send(`{"action":"subscribe_upload","upload_id":"a"}`)
	waitFor(t, func() bool { return len(n.manager.UploadSubscriberIDs("a")) == 1 })
	if err := c.conn.CloseNow(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool {
		s := n.server.Stats()
		return s.Open == 0 && s.Connections == 0 && s.Subscriptions == 0 && s.Users == 0
	})
}

// A client that sends without end and reads nothing must still get its close frame: the bytes it has sent
// must not turn the closing of the socket into a reset. In the first case its bytes are still read, in the second
// reading has ended with the frame that was too large.
func TestClient_CloseFrameArrivesDespiteUnreadInput(t *testing.T) {
	for name, test := range map[string]struct {
		size int
		want string
	}{
		"message not understood": {16_000, "\x0f\xa4Invalid message format"},
		"message too large":      {60_000, "\x03\xf1Message too big"},
	} {
		for transport, start := range map[string]func(testing.TB, ...func(*manager.Options, *server.Options)) *node{
			"TCP": start, "TLS": startTLS,
		} {
			t.Run(name+" "+transport, func(t *testing.T) {
				n := start(t)
				conn := n.raw(t, "")
				for range 6_000_000 / test.size {
					conn.write(0x81, strings.Repeat("x", test.size)) // no auth message
				}
				if op, payload := conn.read(); op != 0x88 || !strings.HasPrefix(payload, test.want) {
					t.Errorf("got %#x %q, want the close frame %q", op, payload, test.want)
				}
				for range 1000 { // a client that has not read it yet, and is reset if the socket is closed
					if _, err := conn.conn.Write([]byte("\x81\x84\x00\x00\x00\x00more")); err != nil {
						t.Fatalf("sending: %v", err)
					}
				}
			})
		}
	}
}

func TestServer_CloseCutsOffStuckClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newPipeListener()
		n := startOn(t, ln)
		n.dial, n.patience = ln.dial, 24*time.Hour
		c := n.login("ann") // reads nothing from now on, so nothing can be written to its pipe
		_ = c
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		begin := time.Now()
		if err := n.server.Drain(ctx, 0); err == nil {
			t.Error("draining a stuck client returned no error")
		}
		if took := time.Since(begin); took > 3*time.Second {
			t.Errorf("took %v, want at most the 3s of the context", took)
		}
	})
}

// An invalid close code does not reach the wire, and a hook finds the reason for the end of its connection.
func TestClient_CloseReason(t *testing.T) {
	for _, c := range []struct{ given, want manager.CloseReason }{
		{manager.CloseReason{}, manager.NormalClosure},
		{manager.CloseReason{Code: 1005}, manager.InternalError},
		{manager.CloseReason{Code: 99, Text: "x"}, manager.InternalError},
		{manager.CloseReason{Code: 4100, Text: "mine"}, manager.CloseReason{Code: 4100, Text: "mine"}},
		{manager.CloseReason{Code: 4100, Text: strings.Repeat("é", 62)},
			manager.CloseReason{Code: 4100, Text: strings.Repeat("é", 61)}},
	} {
		ended := make(chan manager.CloseReason, 1)
		n := start(t, func(_ *manager.Options, o *server.Options) {
			o.OnMessage = func(client *server.Client, _ server.Incoming) bool { client.Close(c.given); return true }
			o.OnDisconnect = func(_ *server.Client, reason manager.CloseReason) { ended <- reason }
		})
		client := n.login("ann")
		client.send(`{"action":"mine"}`)
		client.wantClose(c.want)
		if got := <-ended; got != c.want {
			t.Errorf("CloseReason() = %v, want %v", got, c.want)
		}
	}
}
