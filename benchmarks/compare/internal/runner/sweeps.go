package runner

import (
	"context"
	"io"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/systems"
)

// The sweeps: how the cost grows with the work.
const (
	Receivers = "receivers" // of one message, without sockets
	Logical   = "memory"    // connections and subscriptions, without sockets
	Cores     = "cores"     // GOMAXPROCS
	Sockets   = "sockets"   // receivers of one message, as S2
	Bursts    = "burst"     // messages published at once, as S1
	Stalls    = "stalled"   // share of the clients that do not read, as S4
	Servers   = "servers"   // processes on this machine that share the clients
)

// AllSweeps lists them in their order.
func AllSweeps() []string {
	return []string{Receivers, Logical, Cores, Sockets, Bursts, Stalls, Servers}
}

// Yardsticks: the rates of S4 are shares of the write loop's throughput.
const (
	writeLoop   = "write-loop"
	joinedWrite = "joined-write"
)

// Sweeps are the flags of sweeps: names, and the values of each swept parameter. Of a burst longer than 1,024, the length of a
// connection's queue, states that are out of date are replaced instead of delivered.
type Sweeps struct {
	Clients
	Names []string `arg:"" optional:"" name:"sweep" enum:"${sweeps}" help:"${enum} (all)."`

	Receivers  []int     `default:"10,30,100,300,1000,1024,2000,5000,10000,30000,100000,300000,1000000" within:"1 to 1000000" help:"Receivers of a message, without sockets."`
	Logical    []int     `default:"1000,10000,100000,300000,1000000" within:"1 to 1000000" help:"Connections without sockets, of memory."`
	Procs      []int     `default:"1,2,4" within:"1 to 1024" help:"GOMAXPROCS, of cores."`
	Population int       `default:"100000" within:"1 to 1000000" help:"Connections and uploads of cores, without sockets."`
	Sockets    []int     `default:"10,100,1000,5000,15000" within:"1 to 1000000" help:"Receivers of a message, over sockets."`
	Bursts     []int     `default:"1,3,10,30,100,300" within:"1 to 1024" help:"Messages published at once, of burst."`
	Stalled    []float64 `default:"0,0.01,0.05,0.1,0.25,0.5" within:"0 to 0.999" help:"Shares of the clients that do not read, of stalled."`
	Servers    []int     `default:"1,2,3" within:"1 to 16" help:"Servers that share the clients, of servers."`
}

func (*Sweeps) prepare(context.Context, io.Writer) (map[string]string, error) { return nil, nil }

func (*Sweeps) entries() []systems.Entry { return systems.All() }

// scenarios lists the named sweeps.
func (s *Sweeps) scenarios(c Common) []scenario {
	var receivers, logical, cores, servers []results.Params
	for _, n := range s.Receivers {
		p := results.Params{Connections: n, Channels: 1, Bytes: c.Bytes, Work: results.Broadcast, Procs: 1}
		two, shuffled := p, p
		two.Procs, shuffled.Procs, shuffled.Work = 2, 2, results.Shuffled
		receivers = append(receivers, p, two, shuffled)
	}
	for _, n := range s.Logical {
		logical = append(logical, results.Params{Connections: n, Channels: 1, Bytes: c.Bytes, Work: results.OneUpload},
			results.Params{Connections: n, Channels: n, Bytes: c.Bytes, Work: results.OwnUpload})
	}
	base := results.Params{Connections: s.Connections, Channels: 1, Bytes: c.Bytes}
	for _, procs := range s.Procs {
		p := results.Params{Connections: s.Population, Channels: s.Population, Bytes: c.Bytes, Procs: procs}
		cores = append(cores, over(&p, &p.Work, []string{results.Publish, results.Churn})...)
		p.Channels, p.Work = 1, results.Broadcast
		over := base
		over.Messages, over.Procs, over.Work = s.Burst, procs, results.OverSockets
		cores = append(cores, p, over)
	}
	single, burst, latency, shared := base, base, base, base
	single.Messages, latency.Load = 1, 0.5
	for _, shared.Servers = range s.Servers { // as many connections altogether, but for the remainder of the division
		shared.Connections = s.Connections / shared.Servers * shared.Servers
		servers = append(servers, over(&shared, &shared.Messages, []int{1, s.Burst})...)
	}
	own := only(systems.OwnName)
	return named([]scenario{
		{Receivers, (*measurement).withoutSockets, own, receivers},
		{Logical, (*measurement).withoutSockets, own, logical},
		{Cores, (*measurement).onCores, own, cores},
		{Sockets, (*measurement).throughput, only(systems.OwnName, writeLoop), over(&single, &single.Connections, s.Sockets)},
		{Bursts, (*measurement).throughput, only(systems.OwnName, joinedWrite), over(&burst, &burst.Messages, s.Bursts)},
		{Stalls, (*measurement).latency, own, over(&latency, &latency.Stalled, s.Stalled)},
		{Servers, (*measurement).throughput, own, servers},
	}, s.Names)
}
