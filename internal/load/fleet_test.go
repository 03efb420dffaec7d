package load

import (
	"bytes"
	"context"
	"errors"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
)

func TestFleet_CountsReceivedMessages(t *testing.T) {
	eachKind(t, func(t *testing.T, p *peer) {
		const clients, messages = 20, 30
		o := p.options(clients)
		o.Dialect.Pong = func(payload []byte) []byte { return append([]byte("answer to "), payload...) }
		var ready atomic.Int64
		o.OnReady = func() { ready.Add(1) }
		f := p.open(o)
		if c := f.Counts(); c != (Counts{}) {
			t.Errorf("before any message: %+v", c)
		}
		before := time.Now()
		p.send(string(ping))
		text := strings.Repeat("x", 200)
		for range messages {
			p.send(text)
		}
		last, err := f.WaitMessages(p.ctx, clients*messages)
		if err != nil || last.Before(before) || last.After(time.Now()) {
			t.Fatalf("the last message came at %v, error %v", last, err)
		}
		c := f.Counts()
		bytesWanted := uint64(clients * (messages*(4+len(text)) + 2 + len(ping)))
		if c.Messages != clients*messages || c.Bytes != bytesWanted || c.ReadCalls < clients || c.Closed != 0 {
			t.Errorf("counts are %+v, want %d messages, %d bytes", c, clients*messages, bytesWanted)
		}
		p.waitFor(func() bool { return len(p.heard) == clients })
		if p.heard[0] != "answer to "+string(ping) {
			t.Errorf("the ping is answered with %q", p.heard[0])
		}
		if n := f.ReadyTimes().TotalCount(); n != clients {
			t.Errorf("%d times until ready", n)
		}
		if n := ready.Load(); n != clients {
			t.Errorf("told of readiness %d times", n)
		}
		again, err := f.WaitMessages(p.ctx, 1)
		if err != nil || !again.Equal(last) {
			t.Errorf("waiting for what has come: %v, error %v; want %v", again, err, last)
		}
	})
}

func TestFleet_CountsApplicationMessages(t *testing.T) {
	eachKind(t, func(t *testing.T, p *peer) {
		o := p.options(3)
		o.Dialect.Data = func(payload []byte) int { return bytes.Count(payload, []byte("second")) }
		f := p.open(o)
		p.each(func(_ int, c *websocket.Conn) {
			w, err := c.Writer(p.ctx, websocket.MessageText)
			for _, part := range []string{"first, ", "second", strings.Repeat("y", 70_000)} {
				if err == nil {
					_, err = w.Write([]byte(part))
				}
			}
			if err = errors.Join(err, w.Close()); err != nil {
				t.Error(err)
			}
		})
		p.send("no data")
		p.send("second, second, third")
		if _, err := f.WaitMessages(p.ctx, 9); err != nil {
			t.Fatal(err)
		}
		if n := f.Counts().Messages; n != 9 {
			t.Errorf("%d messages, want one in fragments and two at once for each client", n)
		}
	})
}

func TestFleet_MeasuresLatencyFromPlannedTime(t *testing.T) {
	eachKind(t, func(t *testing.T, p *peer) {
		o := p.options(4)
		o.Sent = func(payload []byte) (int64, bool) {
			at, err := strconv.ParseInt(string(payload), 10, 64)
			return at, err == nil
		}
		f := p.open(o)
		for _, age := range []time.Duration{5 * time.Second, time.Hour, -time.Hour} {
			p.send(strconv.FormatInt(time.Now().Add(-age).UnixNano(), 10))
		}
		p.send("without a time")
		if _, err := f.WaitMessages(p.ctx, 16); err != nil {
			t.Fatal(err)
		}
		h := f.Latency()
		if h.TotalCount() != 12 || h.Min() != 0 || h.ValuesAreEquivalent(h.Max(), int64(maxLatency)) == false {
			t.Errorf("%d times from %d to %d, want 12 from 0 to %d", h.TotalCount(), h.Min(), h.Max(), maxLatency)
		}
		if q := time.Duration(h.ValueAtQuantile(50)); q < 4990*time.Millisecond || q >= maxLatency {
			t.Errorf("the median is %v, want 5s and what it took", q)
		}
		f.ResetLatency()
		if n := f.Latency().TotalCount(); n != 0 {
			t.Errorf("%d times after a reset", n)
		}
	})
}

func TestFleet_StalledClientsDoNotRead(t *testing.T) {
	eachKind(t, func(t *testing.T, p *peer) {
		const stalledClients, healthy = 2, 3
		o := p.options(stalledClients + healthy)
		o.Stalled = stalledClients
		f := p.open(o)
		// More than the buffers of a connection hold, so that a write to who does not read cannot end well.
		large := make([]byte, maxMessageBytes)
		stuck := make(chan error, stalledClients)
		p.each(func(number int, c *websocket.Conn) {
			if number >= stalledClients {
				return
			}
			go func() { // ends when the fleet is closed
				err := c.Write(p.ctx, websocket.MessageBinary, large)
				for range 3 {
					if err == nil {
						err = c.Write(p.ctx, websocket.MessageBinary, large)
					}
				}
				stuck <- err
			}()
		})
		p.each(func(number int, c *websocket.Conn) {
			if number < stalledClients {
				return
			}
			if err := c.Write(p.ctx, websocket.MessageBinary, large); err != nil {
				t.Error(err)
			}
		})
		if _, err := f.WaitMessages(p.ctx, healthy); err != nil {
			t.Fatal(err)
		}
		if c := f.Counts(); c.Messages != healthy || c.Closed != 0 {
			t.Errorf("counts are %+v", c)
		}
		f.Close()
		for range stalledClients {
			if err := <-stuck; err == nil {
				t.Error("a stalled client has read everything")
			}
		}
	})
}

func TestFleet_AnswersPingFrames(t *testing.T) {
	eachKind(t, func(t *testing.T, p *peer) {
		p.open(p.options(2))
		p.each(func(_ int, c *websocket.Conn) {
			if err := c.Ping(p.ctx); err != nil {
				t.Error(err)
			}
		})
	})
}

func TestFleet_ReportsEndedConnections(t *testing.T) {
	eachKind(t, func(t *testing.T, p *peer) {
		f := p.open(p.options(3))
		if err := f.Ended(); err != nil {
			t.Errorf("at the beginning: %v", err)
		}
		p.send("one message")
		if _, err := f.WaitMessages(p.ctx, 3); err != nil {
			t.Fatal(err)
		}
		p.each(func(_ int, c *websocket.Conn) { _ = c.Close(websocket.StatusServiceRestart, "Server reloading") })
		_, err := f.WaitMessages(p.ctx, 4)
		want := "3 of 3 connections have ended, the first: client"
		if err == nil || !strings.Contains(err.Error(), "3 of 4 messages received") || !strings.Contains(err.Error(), want) ||
			!strings.Contains(err.Error(), "the server closed the connection with 1012, Server reloading") {
			t.Errorf("error %v", err)
		}
		if n := f.Counts().Closed; n != 3 {
			t.Errorf("%d connections are closed", n)
		}
	})
}

func TestFleet_ReportsEndWithoutCloseFrame(t *testing.T) {
	eachKind(t, func(t *testing.T, p *peer) {
		f := p.open(p.options(1))
		p.each(func(_ int, c *websocket.Conn) { _ = c.CloseNow() })
		if _, err := f.WaitMessages(p.ctx, 1); err == nil || !strings.Contains(err.Error(), "client 0: the server ended") {
			t.Errorf("error %v", err)
		}
	})
}

func TestFleet_WaitMessagesEndsWithContext(t *testing.T) {
	p := newPeer(t, false)
	f := p.open(p.options(1))
	ctx, cancel := context.WithCancel(p.ctx)
	cancel()
	if _, err := f.WaitMessages(ctx, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if len(f.counts.waiters) != 0 {
		t.Error("a waiter is left")
	}
}

func TestFleet_CloseSendsCloseFrames(t *testing.T) {
	eachKind(t, func(t *testing.T, p *peer) {
		codes := make(chan websocket.StatusCode, 2)
		p.greetWith(func(c *websocket.Conn, number int) error {
			err := p.welcome(c, number)
			if err == nil {
				_, _, err = c.Read(p.ctx)
				codes <- websocket.CloseStatus(err)
			}
			return err
		})
		f, err := Open(p.ctx, p.options(2))
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		f.Close()
		for range 2 {
			if code := <-codes; code != websocket.StatusNormalClosure {
				t.Errorf("a client left with %d", code)
			}
		}
	})
}

func TestProcessCPU(t *testing.T) {
	user, system := ProcessCPU()
	for u, s := user, system; u+s == user+system; u, s = ProcessCPU() {
		if t.Context().Err() != nil {
			t.Fatal("working takes no processor time")
		}
	}
}
