package runner

import (
	"context"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/link"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/nodes"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/systems"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/yardsticks"
)

// The scenarios of one server with its clients.
const (
	Burst   = "S1"
	Single  = "S2"
	Unicast = "S3"
	Latency = "S4"
	Memory  = "S5"
	Storm   = "S6"
)

// AllScenarios lists the scenarios that Scenarios are the flags of.
func AllScenarios() []string {
	return []string{Burst, Single, Unicast, Latency, Memory, Storm, results.Fresh, results.Direct, results.Intake}
}

// Scenarios are the flags of S1 to S6 and S10 to S12.
type Scenarios struct {
	Clients
	Scenario []string `enum:"${scenarios}" placeholder:"S1,S2" help:"Scenarios to measure, of S1 to S6 and S10 to S12 (all but S10, which needs root)."`
	System   []string `enum:"${systems}" aliases:"systems" placeholder:"NAME" help:"Systems to measure, see compare systems (all)."`

	Idle          []int           `default:"5000,15000" within:"1 to 1000000" help:"Idle clients of S5."`
	UnicastRounds int             `default:"10" within:"1 to 1000000" help:"Messages to each client that S3 publishes at once."`
	Share         []float64       `default:"0.5" within:"0.001 to 1" help:"Rates of S4, as shares of what the write loop delivers in S2."`
	Stalled       []float64       `default:"0,0.05" within:"0 to 0.999" help:"Shares of the clients of S4 that do not read."`
	Subscribers   []int           `default:"1,10" within:"1 to 10000" help:"Clients of S11."`
	Rate          float64         `default:"1000" within:"1 to 1000000" help:"Messages per second of S11."`
	TLS           bool            `name:"tls" help:"Measure S1 to S6 over TLS."`
	Publishers    int             `default:"16" within:"1 to 10000" help:"Publishers of S12."`
	Batch         int             `default:"40" within:"1 to 10000" help:"Messages in a request of S12's batches."`
	Uploads       int             `default:"1000" within:"1 to 1000000" help:"Uploads of S12's batches over many."`
	Kbits         []int           `default:"64,160,1000" within:"1 to 1000000" help:"Links of S10, kbit/s."`
	Delay         []time.Duration `default:"50ms,300ms" within:"0 to 1m" help:"Delays of S10's links each way."`
	Loss          []float64       `default:"0.01" within:"0 to 0.999" help:"Shares of the packets that S10's links lose."`
	States        float64         `default:"150" within:"1 to 1000000" help:"Messages per second of S10."`
	StateBytes    int             `default:"600" within:"256 to 32768" help:"Size of S10's messages."`
	WarmUp        time.Duration   `default:"10s" within:"0 to 24h" help:"How long S10 publishes first, while buffers on the way fill up."`
	Centrifugo    string          `placeholder:"FILE" env:"COMPARE_CENTRIFUGO" help:"Program of Centrifugo (the one installed by naming centrifugo in --system)."`
	Settle        time.Duration   `default:"2s" within:"0 to 24h" help:"How long the idle clients of S5 are left alone first."`
}

// prepare checks the requirements of S10, and sets the path of Centrifugo's program: the given one, the installed one, or one
// that is installed now because it is named. "": it does not take part.
func (s *Scenarios) prepare(ctx context.Context, progress io.Writer) (map[string]string, error) {
	if slices.Contains(s.Scenario, results.Fresh) {
		if err := link.Check(); err != nil {
			return nil, err
		}
	}
	version, named := systems.CentrifugoVersion, func(system string) bool { return strings.HasPrefix(system, "centrifugo") }
	if s.Centrifugo != "" {
		version = s.Centrifugo
		found, err := exec.LookPath(s.Centrifugo)
		if err == nil {
			s.Centrifugo, err = filepath.Abs(found)
		}
		if err != nil {
			return nil, fmt.Errorf("runner: --centrifugo: %w", err)
		}
	} else if _, installed := yardsticks.Installed("centrifugo", version); installed || slices.ContainsFunc(s.System, named) {
		var err error
		if s.Centrifugo, err = yardsticks.Install(ctx, progress, systems.CentrifugoModule, "centrifugo", version); err != nil {
			return nil, fmt.Errorf("runner: centrifugo cannot be installed, --centrifugo names another program: %w", err)
		}
	}
	return map[string]string{systems.CentrifugoModule: version}, nil
}

// entries lists the named systems. One that is a program has its path.
func (s *Scenarios) entries() (all []systems.Entry) {
	for _, e := range systems.All() {
		program := e.Command != ""
		if program {
			e.Command = s.Centrifugo
		}
		if (len(s.System) == 0 || slices.Contains(s.System, e.Name)) && program == (e.Command != "") {
			all = append(all, e)
		}
	}
	return all
}

// scenarios lists the named scenarios, all but S10 without names, and over TLS S1 to S6.
func (s *Scenarios) scenarios(c Common) []scenario {
	base := results.Params{Connections: s.Connections, Channels: 1, Bytes: c.Bytes, TLS: s.TLS}
	burst, single, unicast := base, base, base
	burst.Messages, single.Messages = s.Burst, 1
	unicast.Channels, unicast.Messages = s.Connections, s.Connections*s.UnicastRounds
	var latency, memory []results.Params
	p := base
	for _, p.Load = range s.Share {
		latency = append(latency, over(&p, &p.Stalled, s.Stalled)...)
	}
	for _, n := range s.Idle {
		memory = append(memory, results.Params{Connections: n, Channels: n, TLS: s.TLS})
	}
	p = results.Params{Channels: 1, Bytes: c.Bytes, Rate: s.Rate}
	connected := part(systems.NoStorm)
	all := []scenario{
		{Burst, (*measurement).throughput, connected, []results.Params{burst}},
		{Single, (*measurement).throughput, connected, []results.Params{single}},
		{Unicast, (*measurement).throughput, connected, []results.Params{unicast}},
		{Latency, (*measurement).latency, connected, latency},
		{Memory, func(m *measurement) { m.memory(s.Settle) }, connected, memory},
		{Storm, (*measurement).storm, part(systems.StormOnly), []results.Params{
			{Connections: s.Connections, Channels: s.Connections, TLS: s.TLS},
		}},
		{results.Fresh, func(m *measurement) { m.fresh(s.WarmUp) }, behindLink, s.links()},
		{results.Direct, (*measurement).direct, only(systems.OwnName, "gws-direct", "gws", "gorilla", "coder"), over(&p, &p.Connections, s.Subscribers)},
		{results.Intake, (*measurement).intake, takesIn, s.ways(c.Bytes)},
	}
	return slices.DeleteFunc(named(all, s.Scenario), func(of scenario) bool {
		return of.name == results.Fresh && len(s.Scenario) == 0 || s.TLS && len(of.name) > len(Storm)
	})
}

// part returns a predicate for the systems that take part everywhere or in this part.
func part(one systems.Part) func(systems.Entry, results.Params) bool {
	return func(e systems.Entry, _ results.Params) bool { return e.Part == systems.Everywhere || e.Part == one }
}

// behindLink reports whether a system takes part in S10.
func behindLink(e systems.Entry, _ results.Params) bool {
	return e.Part == systems.Everywhere && e.Kind != systems.Yardstick
}

// links lists the links of S10.
func (s *Scenarios) links() (all []results.Params) {
	p := results.Params{Connections: 1, Channels: 1, Bytes: s.StateBytes, Rate: s.States}
	for _, p.Kbits = range s.Kbits {
		for _, delay := range s.Delay {
			p.DelayMS = int(delay.Milliseconds())
			all = append(all, over(&p, &p.Loss, s.Loss)...)
		}
	}
	return all
}

// ways lists the ways of publishing of S12, without subscribers and with one for each upload. Foreign publishers need one: a
// node receives messages from a broker for uploads that have subscribers. Without redis-server the way through Redis is
// left out.
func (s *Scenarios) ways(bytes int) (all []results.Params) {
	_, noRedis := exec.LookPath("redis-server")
	for _, p := range []results.Params{
		{Work: results.SinglePost, Messages: 1, Channels: s.Publishers},
		{Work: results.BatchPost, Messages: s.Batch, Channels: s.Publishers},
		{Work: results.ManyPost, Messages: s.Batch, Channels: s.Uploads},
		{Work: results.RedisPublish, Messages: 1, Channels: s.Publishers},
		{Work: results.NATSPublish, Messages: 1, Channels: s.Publishers},
	} {
		if p.Work == results.RedisPublish && noRedis != nil {
			continue
		}
		p.Publishers, p.Bytes = s.Publishers, bytes
		if foreign(p) == "" {
			all = append(all, p)
		}
		p.Connections = p.Channels
		all = append(all, p)
	}
	return all
}

// foreign returns the broker by whose way messages are published, "" for the HTTP API.
func foreign(p results.Params) string {
	return map[string]string{results.RedisPublish: nodes.Redis, results.NATSPublish: nodes.NATS}[p.Work]
}

// takesIn reports whether a system takes part in a variant of S12. The yardstick has nothing to subscribe to.
func takesIn(e systems.Entry, p results.Params) bool {
	switch {
	case e.Publishing == nil:
		return false
	case foreign(p) != "":
		return e.Kind == systems.Own
	}
	return e.Kind != systems.Yardstick || p.Connections == 0
}
