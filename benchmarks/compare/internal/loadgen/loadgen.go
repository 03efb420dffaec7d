// Package loadgen runs the clients in a process of their own, and reports the received messages to the runner.
package loadgen

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/shoal-go/shoal/internal/load"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/control"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/message"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/systems"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/usage"
)

// The kinds of requests.
const (
	Open   = "open"   // the clients connect, once in the life of the process
	Wait   = "wait"   // until so many messages have come in Total since the clients are open
	Reset  = "reset"  // the latencies are forgotten
	Look   = "look"   // nothing is done; the answer has the times
	Intake = "intake" // Publishers publish while For lasts
	Quit   = "quit"
)

// Request is one thing to do.
type Request struct {
	Do string `json:"do"`

	// For Open.
	System      string `json:"system,omitempty"`
	Addr        string `json:"addr,omitempty"`
	Connections int    `json:"connections,omitempty"`
	Channels    int    `json:"channels,omitempty"`
	Stalled     int    `json:"stalled,omitempty"`
	Storm       bool   `json:"storm,omitempty"`
	Latency     bool   `json:"latency,omitempty"`
	TLS         bool   `json:"tls,omitempty"`

	// For Intake: Messages go out at once, over all Channels if Spread is set, otherwise to one for each publisher.
	Publishers int           `json:"publishers,omitempty"`
	Messages   int           `json:"messages,omitempty"`
	Bytes      int           `json:"bytes,omitempty"`
	Spread     bool          `json:"spread,omitempty"`
	For        time.Duration `json:"for,omitempty"`

	// For Wait.
	Total   uint64        `json:"total,omitempty"`
	Timeout time.Duration `json:"timeout,omitempty"`
}

// Times are percentiles, in nanoseconds.
type Times struct {
	Count int64 `json:"count"`
	P50   int64 `json:"p50"`
	P99   int64 `json:"p99"`
	P999  int64 `json:"p999"`
	Max   int64 `json:"max"`
}

// Answer is the result of a request. All answers contain the state of the clients afterwards.
type Answer struct {
	// Began is when Open began, and Ended when the last client was ready or the last message came that was
	// waited for, in nanoseconds of Unix time.
	Began int64 `json:"began,omitempty"`
	Ended int64 `json:"ended,omitempty"`
	// Complete: all messages that were waited for have come.
	Complete bool `json:"complete,omitempty"`
	// Missing says why not.
	Missing string `json:"missing,omitempty"`

	// Published is how many messages Intake has published.
	Published uint64 `json:"published,omitempty"`

	Messages uint64 `json:"messages"`
	Bytes    uint64 `json:"bytes"`
	Reads    uint64 `json:"reads"`
	// Closed is how many connections have ended.
	Closed int   `json:"closed"`
	CPU    int64 `json:"cpu"`
	// Latency, from when a message was meant to be sent until it came, and Ready, from dialling until
	// subscribed, are in the answer to Look.
	Latency Times `json:"latency"`
	Ready   Times `json:"ready"`
}

// process is the clients' process.
type process struct {
	ctx   context.Context //nolint:containedctx // the life of the process
	fleet *load.Fleet     // nil before Open
}

// Run executes requests until it receives quit or in ends. Then it ends all connections.
func Run(ctx context.Context, in io.Reader, out io.Writer) error {
	p := &process{ctx: ctx}
	var ready Answer
	p.look(&ready)
	if err := control.Reply(out, ready, nil); err != nil {
		return err
	}
	err := control.Serve(in, out, p.handle)
	if p.fleet != nil {
		p.fleet.Close()
	}
	return err
}

func (p *process) handle(q Request) (a Answer, last bool, err error) {
	switch {
	case q.Do == Open:
		a, err = p.open(q)
	case q.Do == Quit:
		last = true
	case q.Do == Intake:
		a, err = p.intake(q)
	case q.Do == Look && p.fleet == nil:
	case p.fleet == nil:
		err = errors.New("loadgen: no clients are open")
	case q.Do == Wait:
		a = p.wait(q)
	case q.Do == Reset:
		p.fleet.ResetLatency()
	case q.Do == Look:
		a.Latency, a.Ready = TimesOf(p.fleet.Latency()), TimesOf(p.fleet.ReadyTimes())
	default:
		err = fmt.Errorf("loadgen: %q cannot be done, want %s, %s, %s, %s, %s or %s", q.Do, Open, Wait, Reset, Look, Intake, Quit)
	}
	p.look(&a)
	return a, last, err
}

// stormParallel is how many clients of a storm are under way at a time: as many as a listener's queue holds
// with room to spare. Beyond that the kernel drops connections, and their second try a second later is all that
// would be measured.
const stormParallel = 1024

func (p *process) open(q Request) (Answer, error) {
	if p.fleet != nil {
		return Answer{}, errors.New("loadgen: the clients are open already")
	}
	entry, err := systems.Find(q.System)
	if err != nil {
		return Answer{}, err
	}
	o := load.Options{
		Addr:        q.Addr,
		Connections: q.Connections,
		Dialect:     entry.Dialect(systems.Audience{Channels: q.Channels, Storm: q.Storm}),
		Stalled:     q.Stalled,
		// With one, half of the machine would idle at the end of each round, when all is written and not yet read.
		Pollers: runtime.NumCPU(),
	}
	if q.Storm {
		o.DialParallel = stormParallel
	}
	if q.Latency {
		o.Sent = message.SentAt
	}
	if q.TLS {
		o.TLS = systems.ClientTLS()
		if err := p.getTicket(o); err != nil {
			return Answer{}, err
		}
	}
	began := time.Now()
	p.fleet, err = load.Open(p.ctx, o)
	return Answer{Began: began.UnixNano(), Ended: time.Now().UnixNano()}, err
}

// getTicket connects one client and disconnects it again, so that all others resume its session.
func (p *process) getTicket(o load.Options) error {
	o.Connections, o.Stalled = 1, 0
	first, err := load.Open(p.ctx, o)
	if err == nil {
		first.Close()
	}
	return err
}

func (p *process) wait(q Request) Answer {
	ctx, cancel := context.WithTimeoutCause(p.ctx, q.Timeout, fmt.Errorf("waited for %v", q.Timeout))
	defer cancel()
	last, err := p.fleet.WaitMessages(ctx, q.Total)
	a := Answer{Ended: last.UnixNano(), Complete: err == nil}
	if err != nil {
		a.Missing = err.Error()
	}
	return a
}

// look notes how the clients stand.
func (p *process) look(a *Answer) {
	a.CPU = usage.CPU()
	if p.fleet == nil {
		return
	}
	counts := p.fleet.Counts()
	a.Messages, a.Bytes, a.Reads, a.Closed = counts.Messages, counts.Bytes, counts.ReadCalls, counts.Closed
}

// NewTimes returns a histogram of times of up to a minute, in nanoseconds.
func NewTimes() *hdrhistogram.Histogram { return hdrhistogram.New(1, int64(time.Minute), 3) }

// TimesOf returns the percentiles of a histogram of nanoseconds.
func TimesOf(h *hdrhistogram.Histogram) Times {
	return Times{
		Count: h.TotalCount(),
		P50:   h.ValueAtQuantile(50),
		P99:   h.ValueAtQuantile(99),
		P999:  h.ValueAtQuantile(99.9),
		Max:   h.Max(),
	}
}
