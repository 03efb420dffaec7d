package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/shoal-go/shoal/internal/load"
)

// busyShare is the share of a core per poller above which the generator may limit the measurement.
const busyShare = 0.8

// benchResult is the result of a run, in the form of --json. Times are in nanoseconds.
type benchResult struct {
	Version  string    `json:"version"`
	Go       string    `json:"go"`
	Platform string    `json:"platform"`
	CPUs     int       `json:"cpus"`
	Started  time.Time `json:"started"`
	URL      string    `json:"url"`

	Load        benchLoad        `json:"load"`
	Interrupted bool             `json:"interrupted"`
	Connections connectionResult `json:"connections"`
	Messages    messageResult    `json:"messages"`
	Generator   generatorResult  `json:"generator"`
	Server      struct {
		Before serverCounts `json:"before"`
		After  serverCounts `json:"after"`
	} `json:"server"`
}

// benchLoad is the requested load.
type benchLoad struct {
	Connections  int           `json:"connections"`
	Uploads      int           `json:"uploads"`
	Stalled      int           `json:"stalled"`
	Ramp         float64       `json:"ramp_per_second"`
	Rate         float64       `json:"rate_per_second"`
	Burst        int           `json:"burst"`
	PayloadBytes int           `json:"payload_bytes"`
	Publishers   int           `json:"publishers"`
	Pollers      int           `json:"pollers"`
	Duration     time.Duration `json:"duration_ns"`
}

type connectionResult struct {
	Ready int `json:"ready"`
	// Ended are connections that read and have ended before the run did.
	Ended   int              `json:"ended"`
	Connect load.Percentiles `json:"connect_ns"`
}

type messageResult struct {
	Planned   int   `json:"planned"`
	Published int64 `json:"published"`
	Expected  int64 `json:"expected"`
	Delivered int64 `json:"delivered"`
	// Lost is the number of missing messages; below zero, more arrived than were published.
	Lost      int64            `json:"lost"`
	Seconds   float64          `json:"seconds"`
	PerSecond float64          `json:"delivered_per_second"`
	Latency   load.Percentiles `json:"latency_ns"`

	times   *hdrhistogram.Histogram // nil if nothing has been measured
	refused bool                    // a message, which has ended the run
}

type generatorResult struct {
	CPUSeconds float64 `json:"cpu_seconds"`
	Seconds    float64 `json:"seconds"`
	// Cores is how many cores the generator kept busy, its publishers included.
	Cores float64 `json:"cores"`
	// Bound says that it was so busy that it may have measured itself.
	Bound bool `json:"bound"`
}

func newBenchResult(c *benchCommand) *benchResult {
	return &benchResult{
		Version: buildVersion(), Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH, CPUs: runtime.NumCPU(),
		Started: time.Now().UTC(), URL: redacted(c.URL),
		Load: benchLoad{
			Connections: c.Connections, Uploads: c.Uploads, Stalled: c.stalled(), Ramp: c.Ramp, Rate: c.Rate, Burst: c.Burst,
			PayloadBytes: int(c.Payload), Publishers: min(c.Publishers, c.Uploads), Pollers: c.Pollers, Duration: c.Duration,
		},
		Messages: messageResult{Planned: c.messages()},
	}
}

func newConnectionResult(c *benchCommand, f *load.Fleet) connectionResult {
	return connectionResult{
		Ready: c.Connections, Ended: f.Counts().Closed, Connect: load.PercentilesOf(f.ReadyTimes()),
	}
}

func newMessageResult(p *plan, published, expected int64, f *load.Fleet, last time.Time) messageResult {
	delivered := received(f)
	m := messageResult{
		Planned: p.messages, Published: published, Expected: expected, Delivered: delivered, Lost: expected - delivered,
		times: f.Latency(),
	}
	m.Latency = load.PercentilesOf(m.times)
	if took := last.Sub(p.start); delivered > 0 && took > 0 {
		m.Seconds = took.Seconds()
		m.PerSecond = float64(delivered) / m.Seconds
	}
	return m
}

func newGeneratorResult(c *benchCommand, cpu, took time.Duration) generatorResult {
	g := generatorResult{CPUSeconds: cpu.Seconds(), Seconds: took.Seconds()}
	if took > 0 {
		g.Cores = cpu.Seconds() / took.Seconds()
	}
	g.Bound = g.Cores > busyShare*float64(c.Pollers)
	return g
}

// loss is an error if not everything has come that was published, or not every client has stayed.
func (r *benchResult) loss(ended error) error {
	var all []error
	switch lost := r.Messages.Lost; {
	case lost > 0:
		all = append(all, fmt.Errorf("%d of %d messages did not arrive", lost, r.Messages.Expected))
	case lost < 0:
		all = append(all, fmt.Errorf("%d messages arrived more often than they were published", -lost))
	}
	return errors.Join(append(all, ended)...)
}

// json returns the result as one line.
func (r *benchResult) json() string {
	line, err := json.Marshal(r)
	if err != nil {
		panic("numbers and texts have a JSON form")
	}
	return string(line)
}
