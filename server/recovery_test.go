package server_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"
)

// slowLine is 160 kbit/s in bytes per second.
const slowLine = 20_000

// slowConn reads at a number of bytes per second.
type slowConn struct {
	net.Conn
	rate int
}

func (c slowConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p[:min(len(p), max(1, c.rate/10))])
	<-time.After(time.Second * time.Duration(n) / time.Duration(c.rate))
	return n, err
}

// slow makes the clients that connect from now on read at a number of bytes per second.
func (n *node) slow(rate int) {
	dial := n.dial
	n.dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return slowConn{conn, rate}, nil
	}
}

// missed describes the messages that a client has missed.
type missed struct {
	uploads, messages, bytes int
}

// store publishes the messages and returns the positions before the first, as a client has them.
func (m missed) store(n *node) map[string]manager.Position {
	n.t.Helper()
	since := map[string]manager.Position{}
	for u := range m.uploads {
		upload := fmt.Sprint("u", u)
		for i := range m.messages {
			since[upload] = n.publishJSON(upload, event(i+1, m.bytes))
		}
		since[upload] = manager.Position{Epoch: since[upload].Epoch}
	}
	return since
}

func event(number, size int) string {
	return fmt.Sprintf(`{"action":"note","n":%d,"pad":%q}`, number, strings.Repeat("x", size))
}

// resumeMessage is the client's request.
func resumeMessage(t testing.TB, since map[string]manager.Position) string {
	t.Helper()
	data, err := json.Marshal(map[string]any{"action": "resume", "uploads": since})
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// v1Message is a message on shoal.v1, of all actions.
type v1Message struct {
	Action    string                      `json:"action"`
	UploadID  string                      `json:"upload_id"`
	Offset    uint64                      `json:"offset"`
	Skipped   uint64                      `json:"skipped"`
	Recovered bool                        `json:"recovered"`
	Number    int                         `json:"n"`
	Uploads   map[string]manager.Position `json:"uploads"`
}

func (c *client) nextV1() v1Message {
	c.t.Helper()
	var m v1Message
	if err := json.Unmarshal([]byte(c.next()), &m); err != nil {
		c.t.Fatal(err)
	}
	return m
}

// wantRecovery reads the answer to a resume and all missed messages. Messages of one upload are in order.
func (c *client) wantRecovery(m missed) {
	c.t.Helper()
	answer := c.nextV1()
	if answer.Action != "resumed" || len(answer.Uploads) != m.uploads {
		c.t.Fatalf("the answer is %s with %d uploads, want %d", answer.Action, len(answer.Uploads), m.uploads)
	}
	for id, pos := range answer.Uploads {
		if pos.Offset != uint64(m.messages) {
			c.t.Fatalf("the answer has %s at %d, want %d", id, pos.Offset, m.messages)
		}
	}
	counts := map[int]int{} // messages with that number
	for range m.uploads * m.messages {
		got := c.nextV1()
		counts[got.Number]++
		if got.Offset != uint64(got.Number) || got.Skipped > 0 {
			c.t.Fatalf("message %+v", got)
		}
		if got.Number > 1 && counts[got.Number] > counts[got.Number-1] {
			c.t.Fatalf("message %d came before message %d", got.Number, got.Number-1)
		}
	}
}

// missedMost are more messages than a queue with the default limits holds.
var missedMost = []missed{{20, 64, 100}, {1, 2000, 100}, {1024, 2, 50}, {3, 60, 8000}, {40, 64, 1000}}

// missedMore are more messages than a queue with the limits of the smallest queues of the tests holds.
var missedMore = []missed{{20, 8, 100}, {1, 200, 100}, {128, 2, 50}, {3, 10, 8000}, {10, 16, 1000}}

// A client that reads at full speed recovers everything on its first connection.
func TestRecovery_CompletesOverLoopback(t *testing.T) {
	for _, m := range missedMost {
		t.Run(fmt.Sprintf("%+v", m), func(t *testing.T) {
			n := start(t, func(mo *manager.Options, _ *server.Options) { mo.HistoryMessages = 4096 })
			since := m.store(n)
			for range 3 {
				c := n.login("ann", "shoal.v1")
				c.send(resumeMessage(t, since))
				c.wantRecovery(m)
			}
		})
	}
}

// So does one behind a line of 160 kbit/s, for any valid combination of the limits of queues and histories.
func TestRecovery_CompletesOverSlowLineForAnyLimits(t *testing.T) {
	for _, limits := range []struct{ messages, bytes int }{{0, 0}, {1, 0}, {16, 0}, {0, 4096}, {1, 4096}} {
		all := missedMore
		if limits.messages == 0 && limits.bytes == 0 {
			all = missedMost
		}
		for _, m := range all {
			t.Run(fmt.Sprintf("%+v/%+v", limits, m), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n := startPiped(t, neverIdle, func(mo *manager.Options, so *server.Options) {
						mo.HistoryMessages, mo.HistoryTTL = m.messages, 24*time.Hour
						so.QueueMessages, so.QueueBytes = limits.messages, limits.bytes
						if limits.bytes > 0 { // the smallest queue that is valid for these messages
							mo.MaxMessageBytes = max(m.bytes+100, limits.bytes-server.FrameOverhead)
							so.QueueBytes = mo.MaxMessageBytes + server.FrameOverhead
						}
					})
					since := m.store(n)
					n.slow(slowLine)
					c := n.login("ann", "shoal.v1")
					c.send(resumeMessage(t, since))
					c.wantRecovery(m)
				})
			})
		}
	}
}

// One upload recovers by `since` in the same way, and so do the snapshots of a base page that subscribes to everything.
func TestRecovery_OfSubscribeUpload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := startPiped(t, neverIdle, func(mo *manager.Options, so *server.Options) {
			mo.HistoryMessages, mo.HistoryTTL = 4096, 24*time.Hour
			so.QueueMessages, so.ClientMessageBurst = 16, 2000
		})
		since := missed{1, 2000, 100}.store(n)
		for u := range 1024 {
			n.publishJSON(fmt.Sprint("page", u), event(1, 200))
		}
		n.slow(slowLine)
		c := n.login("ann", "shoal.v1")
		c.send(fmt.Sprintf(`{"action":"subscribe_upload","upload_id":"u0","since":{"epoch":%q,"offset":0}}`, since["u0"].Epoch))
		if ack := c.nextV1(); ack.Action != "subscribed" || ack.Offset != 2000 || !ack.Recovered {
			t.Fatalf("acknowledged with %+v", ack)
		}
		for i := range 2000 {
			if got := c.nextV1(); got.Number != i+1 {
				t.Fatalf("message %d came, want %d", got.Number, i+1)
			}
		}
		for _, protocols := range [][]string{nil, {"shoal.v1"}} {
			page := n.login("bob", protocols...)
			done := make(chan struct{})
			go func() {
				defer close(done)
				for u := range 1024 {
					page.send(fmt.Sprintf(`{"action":"subscribe_upload","upload_id":"page%d"}`, u))
				}
			}()
			for range 1024 * (1 + len(protocols)) {
				page.next()
			}
			<-done
		}
	})
}

// Live messages: those of other uploads do not wait for a recovery, those of the same upload follow it.
func TestRecovery_DoesNotDelayOtherUploads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := startPiped(t, neverIdle, func(mo *manager.Options, _ *server.Options) { mo.HistoryMessages = 1000 })
		since := missed{1, 500, 1000}.store(n) // 25 s
		n.slow(slowLine)
		c := n.login("ann", "shoal.v1")
		c.send(`{"action":"subscribe_upload","upload_id":"live"}`)
		c.next()
		c.send(resumeMessage(t, since))
		c.next()
		go func() {
			for i := range 10 {
				<-time.After(time.Second)
				n.publishJSON("live", fmt.Sprintf(`{"action":"live","n":%d,"at":"%d"}`, i, time.Now().UnixMilli()))
				n.publishJSON("u0", event(501+i, 100))
			}
		}()
		next, live := 1, 0
		for next <= 510 || live < 10 {
			text := c.next()
			var got struct {
				v1Message
				At int64 `json:"at,string"`
			}
			if err := json.Unmarshal([]byte(text), &got); err != nil {
				t.Fatal(err)
			}
			switch {
			case got.Action == "live":
				live++
				if late := time.Now().UnixMilli() - got.At; late > 1000 {
					t.Errorf("a live message came after %d ms", late)
				}
			case got.Number != next:
				t.Fatalf("message %d of the recovery came, want %d", got.Number, next)
			default:
				next++
			}
		}
	})
}

// An upload that is forgotten in the middle of its recovery: the client gets what was stored for it, then the new
// epoch.
func TestRecovery_OfForgottenUpload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := startPiped(t, neverIdle)
		since := missed{1, 64, 1000}.store(n)
		n.slow(slowLine)
		c := n.login("ann", "shoal.v1")
		c.send(resumeMessage(t, since))
		c.next()
		if err := n.manager.Forget(t.Context(), "u0"); err != nil {
			t.Fatal(err)
		}
		n.publishJSON("u0", event(1, 10))
		for i := range 64 {
			if got := c.nextV1(); got.Number != i+1 {
				t.Fatalf("message %+v came, want %d", got, i+1)
			}
		}
		if got := c.nextV1(); got.Action != "subscribed" || got.Recovered || got.Offset != 0 {
			t.Errorf("after the recovery came %+v, want the new position", got)
		}
		if got := c.nextV1(); got.Number != 1 || got.Offset != 1 {
			t.Errorf("in the new epoch came %+v", got)
		}
	})
}

// A client that unsubscribes in the middle of a recovery gets the acknowledgement at once.
func TestRecovery_EndsWithUnsubscribe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := startPiped(t, neverIdle, func(mo *manager.Options, _ *server.Options) { mo.HistoryMessages = 1000 })
		since := missed{1, 500, 1000}.store(n) // 25 s
		n.slow(slowLine)
		c := n.login("ann", "shoal.v1")
		c.send(resumeMessage(t, since))
		c.next()
		c.send(`{"action":"unsubscribe_upload","upload_id":"u0"}`)
		begun := time.Now()
		for c.nextV1().Action != "unsubscribed" {
		}
		if took := time.Since(begun); took > 2*time.Second {
			t.Errorf("the acknowledgement took %v", took)
		}
		c.send(`{"action":"subscribe_upload","upload_id":"u0"}`)
		if ack, newest := c.nextV1(), c.nextV1(); ack.Action != "subscribed" || newest.Number != 500 {
			t.Errorf("subscribing again got %+v and %+v", ack, newest)
		}
	})
}

// A client that leaves in the middle of a recovery leaves nothing behind and recovers the rest when it comes back.
func TestRecovery_ContinuesOnTheNextConnection(t *testing.T) {
	n := start(t, func(mo *manager.Options, _ *server.Options) { mo.HistoryMessages, mo.HistoryBytes = 4096, 16<<20 })
	m := missed{1, 4000, 1000}
	since := m.store(n)
	c := n.login("ann", "shoal.v1")
	c.send(resumeMessage(t, since))
	c.next()
	for range 100 {
		c.next()
	}
	_ = c.conn.CloseNow()
	waitFor(t, func() bool { return n.manager.Stats().Connections == 0 })
	c = n.login("ann", "shoal.v1")
	since["u0"] = manager.Position{Epoch: since["u0"].Epoch, Offset: 100}
	c.send(resumeMessage(t, since))
	c.next()
	for i := 101; i <= m.messages; i++ {
		if got := c.nextV1(); got.Number != i {
			t.Fatalf("message %d came, want %d", got.Number, i)
		}
	}
}

// A batch published at once does not disconnect clients that read, nor does a publisher that is always ahead of them.
func TestServer_BatchDoesNotDisconnectReadingClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // whose time does not pass while a slow machine is at work
		n := startPiped(t)
		c := n.login("ann", "shoal.v1")
		c.send(`{"action":"subscribe_upload","upload_id":"a"}`)
		c.next()
		const messages = 5000
		var lines strings.Builder
		for i := range messages {
			lines.WriteString(event(i+1, 100) + "\n")
		}
		req, err := http.NewRequest(http.MethodPost, "http://"+n.host+"/v1/uploads/a/messages", strings.NewReader(lines.String()))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer key")
		req.Header.Set("Content-Type", "application/x-ndjson")
		resp, err := (&http.Client{Transport: &http.Transport{DialContext: n.dial, DisableKeepAlives: true}}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusAccepted {
			t.Fatalf("the batch was answered with %s", resp.Status)
		}
		for i := range messages {
			if got := c.nextV1(); got.Number != i+1 {
				t.Fatalf("message %d came, want %d", got.Number, i+1)
			}
		}
		go func() {
			for i := range 4 * messages {
				n.publishJSON("a", event(i+1, 100))
			}
		}()
		for i := range 4 * messages {
			if got := c.nextV1(); got.Number != i+1 {
				t.Fatalf("%+v came, want message %d", got, i+1)
			}
		}
	})
}
