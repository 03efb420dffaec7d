package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/shoal-go/shoal/internal/load"
	"github.com/shoal-go/shoal/internal/testlog"
)

func TestBenchTable(t *testing.T) {
	r := newBenchResult(&benchCommand{
		URL: "http://me:hidden@host", Connections: 5000, Uploads: 1, Stalled: 0.05, Rate: 0.5, Burst: 40, Payload: 256,
		Publishers: 4, Pollers: 2, Duration: 200 * time.Second,
	})
	r.Connections = connectionResult{Ready: 5000, Ended: 1, Connect: load.Percentiles{P50: 999, P99: 1500}}
	r.Messages.Published, r.Messages.Expected, r.Messages.Delivered, r.Messages.Lost = 99, 470_250, 470_247, 3
	r.Messages.PerSecond, r.Messages.Seconds = 1_234_567.8, 1.234
	r.Messages.Latency = load.Percentiles{
		P50: 1_000_000, P90: 12_345_678, P99: 123_456_789, P999: 1_234_567_890, Max: 61_000_000_000,
	}
	r.Messages.times = hdrhistogram.New(1, 1000, 3)
	r.Generator = generatorResult{Cores: 1.61, Bound: true}
	r.Server.Before, r.Server.After = serverCounts{"sent": 10}, serverCounts{"sent": 1010, "slow_consumers": 7, "users": 3}
	const want = `load         connections: 5,000, uploads: 1, stalled: 250; 0.5 messages/s in bursts of 40, 256 B each
connections  5,000 of 5,000 ready, 1 ended
connect      p50 999 ns, p99 1.50 µs
published    99 of 100
delivered    470,247 of 470,250, 3 lost
throughput   1,234,567 messages/s over 1.23 s
latency      p50 1.00 ms, p90 12.3 ms, p99 123 ms, p99.9 1.23 s, max 61.0 s
generator    161 % of a core, pollers: 2
server       sent 1,000, slow consumers 7
note: the generator used more than 80 % of a core for each poller: the numbers may be its own limit and not the server's; give it more --pollers, or another machine
note: not all that was planned could be published in time: the rate is more than the server takes from these publishers`
	if got := r.table(); got != want {
		t.Errorf("printed\n%s\nwant\n%s", got, want)
	}
	if strings.Contains(r.json(), "hidden") {
		t.Errorf("the password is printed: %s", r.json())
	}
}

func TestGeneratorIsBoundAboveTheShare(t *testing.T) {
	for cpu, want := range map[time.Duration]bool{time.Second: false, 1600 * time.Millisecond: false, 1601 * time.Millisecond: true} {
		if g := newGeneratorResult(&benchCommand{Pollers: 2}, cpu, time.Second); g.Bound != want || g.Cores != cpu.Seconds() {
			t.Errorf("%v in a second: %+v", cpu, g)
		}
	}
}

func TestLoss(t *testing.T) {
	for lost, want := range map[int64]string{0: "", 2: "2 of 5 messages did not arrive", -2: "2 messages arrived more often"} {
		r := &benchResult{Messages: messageResult{Expected: 5, Lost: lost}}
		err := r.loss(nil)
		if want == "" && err != nil || want != "" && (err == nil || !strings.HasPrefix(err.Error(), want)) {
			t.Errorf("%d lost: %v", lost, err)
		}
	}
	if err := new(benchResult).loss(errors.New("ended")); err == nil || err.Error() != "ended" {
		t.Errorf("error %v", err)
	}
}

func TestLatencyPlot(t *testing.T) {
	const caption = `a < b & "c"`
	times := hdrhistogram.New(1, int64(10*time.Minute), 3)
	empty := latencyPlot(times, caption)
	wantXML(t, empty)
	if !strings.Contains(empty, "no messages were received") || strings.Contains(empty, "NaN") {
		t.Errorf("without messages:\n%s", empty)
	}
	for _, spread := range [][]int64{{5}, {int64(10 * time.Minute)}, {1, 1_000_000, int64(10 * time.Minute)}} {
		times.Reset()
		for range 2000 {
			for _, value := range spread {
				if err := times.RecordValue(value); err != nil {
					t.Fatal(err)
				}
			}
		}
		picture := latencyPlot(times, caption)
		wantXML(t, picture)
		if strings.Contains(picture, "NaN") || strings.Contains(picture, "Inf") || strings.Count(picture, "<polyline") != 1 {
			t.Errorf("%v:\n%s", spread, picture)
		}
		if strings.Contains(picture, `y1="-`) || strings.Contains(picture, ",-") {
			t.Errorf("%v leaves the picture:\n%s", spread, picture)
		}
	}
}

func TestBarsOnATerminal(t *testing.T) {
	out := &testlog.Buffer{}
	l := &live{out, true}
	full := l.show(quantity{"growing", 1000, func() int64 { return 1000 }}, quantity{"nothing", 0, func() int64 { return 0 }})
	full()
	part := l.show(quantity{"part", 10, func() int64 { return 4 }})
	part()
	for _, want := range []string{"growing", "1,000 of 1,000", "nothing", "0 of 0", "part", "4 of 10"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in\n%s", want, out)
		}
	}
}
