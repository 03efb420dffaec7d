package main

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func drawPlan(t *rapid.T, start time.Time) *plan {
	return &plan{
		start:    start,
		rate:     rapid.SampledFrom([]float64{0.01, 3, 1000, 1e6}).Draw(t, "rate"),
		messages: rapid.IntRange(1, 3000).Draw(t, "messages"),
		burst:    rapid.SampledFrom([]int{1, 2, 7, 40, 2500}).Draw(t, "burst"),
		uploads:  rapid.IntRange(1, 12).Draw(t, "uploads"),
	}
}

func TestPlanSpreadsBurstsOverUploadsAtTheRate(t *testing.T) {
	p := &plan{start: time.Unix(100, 0), rate: 20, messages: 9, burst: 2, uploads: 3}
	for message, want := range []struct {
		upload int
		after  time.Duration
	}{
		{0, 0}, {0, 0}, {1, 100 * time.Millisecond}, {1, 100 * time.Millisecond}, {2, 200 * time.Millisecond},
		{2, 200 * time.Millisecond}, {0, 300 * time.Millisecond}, {0, 300 * time.Millisecond}, {1, 400 * time.Millisecond},
	} {
		if u, after := p.upload(message), p.at(message).Sub(p.start); u != want.upload || after != want.after {
			t.Errorf("message %d: upload %d after %v, want %+v", message, u, after, want)
		}
	}
	if end := p.end().Sub(p.start); end != 400*time.Millisecond {
		t.Errorf("the plan ends after %v", end)
	}
}

func TestNumberOfMessages(t *testing.T) {
	for _, c := range []struct {
		rate     float64
		duration time.Duration
		most     int
		want     int
	}{
		{10, time.Second, 0, 10}, {10, 1100 * time.Millisecond, 0, 11}, {3, 1100 * time.Millisecond, 0, 4},
		{0.01, time.Millisecond, 0, 1}, {10, time.Second, 7, 7}, {10, time.Second, 70, 10},
	} {
		b := benchCommand{Rate: c.rate, Duration: c.duration, Messages: c.most}
		if n := b.messages(); n != c.want {
			t.Errorf("%+v: %d messages", c, n)
		}
	}
}

// Every message is published once, not before its time, to its upload, and in order there.
func TestWorkersPublishThePlan(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := drawPlan(t, time.Unix(1_800_000_000, 0))
		b := &bench{flags: &benchCommand{Payload: 64}, id: "x"}
		if rapid.IntRange(0, 9).Draw(t, "large") == 0 {
			b.flags.Payload, p.messages = 50_000, min(p.messages, 200) // more than fit into one batch
		}
		published := newPublishing(b, p)
		workers := rapid.IntRange(1, p.uploads).Draw(t, "workers")
		var sent []int64
		next := make([]int, p.uploads) // the next message of each upload, as the plan has it
		for u := range next {
			next[u] = u * p.burst
		}
		for number := range workers {
			w := &benchWorker{publishing: published, number: number, workers: workers}
			now := p.start
			for w.next < p.messages {
				due := w.due(now)
				for _, batch := range due {
					if batch.upload%workers != number || batch.lines > maxBatchLines || batch.body.Len() > maxBatchBytes {
						t.Fatalf("worker %d of %d has %d lines for upload %d", number, workers, batch.lines, batch.upload)
					}
					sent = append(sent, checkBatch(t, p, batch, now, next)...)
				}
				if len(due) == 0 && w.next < p.messages {
					now = p.at(w.next)
				}
			}
		}
		if len(sent) != p.messages {
			t.Fatalf("%d messages are published, want %d", len(sent), p.messages)
		}
	})
}

// checkBatch returns the times in a batch, which must be those of the upload's next messages.
func checkBatch(t *rapid.T, p *plan, batch *benchBatch, now time.Time, next []int) []int64 {
	var times []int64
	for range batch.lines {
		line, _ := batch.body.ReadBytes('\n')
		at, ok := benchSentAt(line)
		message := next[batch.upload]
		if !ok || at != p.at(message).UnixNano() || at > now.UnixNano() {
			t.Fatalf("message %d is sent for %d, %v", message, at, ok)
		}
		times = append(times, at)
		next[batch.upload]++
		if next[batch.upload]%p.burst == 0 {
			next[batch.upload] += (p.uploads - 1) * p.burst
		}
	}
	return times
}

func TestExpectedMessages(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := drawPlan(t, time.Now())
		connections := rapid.IntRange(p.uploads, 50).Draw(t, "connections")
		stalled := rapid.IntRange(0, connections).Draw(t, "stalled")
		b := &bench{flags: &benchCommand{
			Connections: connections, Uploads: p.uploads, Stalled: float64(stalled) / float64(connections),
		}}
		published := newPublishing(b, p)
		var want int64
		for message := range p.messages {
			published.accepted[p.upload(message)].Add(1)
			for i := stalled; i < connections; i++ {
				if i%p.uploads == p.upload(message) {
					want++
				}
			}
		}
		if planned, out := b.expected(p), published.expected(); planned != want || out != want {
			t.Fatalf("expected %d of the plan and %d of what is out, want %d", planned, out, want)
		}
	})
}

func TestBenchMessage(t *testing.T) {
	at := time.Unix(1_800_000_000, 123)
	for _, size := range []int{64, 65, 256, 1 << 20} {
		m := appendBenchMessage([]byte("before"), at, size)[len("before"):]
		var fields struct {
			Action, Pad string
			Sent        int64
		}
		if err := json.Unmarshal(m, &fields); err != nil || fields.Action != "bench" || fields.Sent != at.UnixNano() {
			t.Errorf("%.80s: %v", m, err)
		}
		if len(m) != size {
			t.Errorf("%d bytes, want %d", len(m), size)
		}
		if sent, ok := benchSentAt(m); !ok || sent != at.UnixNano() {
			t.Errorf("sent at %d, %v", sent, ok)
		}
	}
	for _, text := range []string{
		"", `{"action":"bench",`, `{"action":"bench","sent":123}`, `{"action":"bench","sent":180000000000000000x}`,
		`{"action":"note","sent":1800000000000000000}`, `{"action":"bench","sent":9999999999999999999}`,
	} {
		if at, ok := benchSentAt([]byte(text)); ok {
			t.Errorf("%s is taken to be sent at %d", text, at)
		}
	}
}

func TestActions(t *testing.T) {
	for text, want := range map[string]bool{
		`{"action":"ping"}`: true, `{"action":"ping","a":1}`: true, `{"action":"pings"}`: false, `{"action":"ping`: false, "": false,
	} {
		if hasAction([]byte(text), "ping") != want {
			t.Errorf("%s: %v", text, !want)
		}
	}
}

func TestWhereClientsConnect(t *testing.T) {
	for url, want := range map[string]string{
		"http://host":               "host:80/ws/uploads false",
		"http://host:81/":           "host:81/ws/uploads false",
		"https://host/below/here/":  "host:443/below/here/ws/uploads true",
		"https://[::1]:8443/a%20b/": "[::1]:8443/a%20b/ws/uploads true",
	} {
		b := &bench{flags: &benchCommand{URL: url, Connections: 1}}
		o, err := b.fleetOptions(nil)
		if got := fmt.Sprint(o.Addr, o.Dialect.Path, " ", o.TLS != nil); err != nil || got != want {
			t.Errorf("%s: %s, error %v, want %s", url, got, err, want)
		}
	}
}
