package report

import (
	"fmt"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/systems"
)

// limit describes in one line how the machine, or the link, limits all systems of a variant: by a yardstick that does
// nothing but the unavoidable part of the work. It is "" where nothing is known.
func (d Data) limit(v variant) string {
	switch v.scenario {
	case "S1":
		return d.yardstick(v, "joined-write", results.Throughput, grouped, "delivered messages/s")
	case "S2", "S3":
		return d.yardstick(v, "write-loop", results.Throughput, grouped, "delivered messages/s")
	case "S4":
		return d.yardstick(v, "write-loop", results.P99, short, "ms at the 99th percentile")
	case "S5":
		kernel := spreadOf(d.series(v, own, results.Kernel))
		if kernel.n == 0 {
			return ""
		}
		return "the kernel holds another " + kernel.text(grouped) + " bytes for each end of a connection"
	case "S6":
		return d.yardstick(v, "gws-upgrade", results.ConnectRate, grouped, "connections/s")
	case results.Fresh:
		// A frame has a header of 4 bytes, and the packets of TCP carry 1,460 of 1,500 bytes.
		const header, share = 4, 1460. / 1500
		fit := float64(v.params.Kbits) * 1000 / 8 * share / float64(v.params.Bytes+header)
		return fmt.Sprintf("at most %s of the %g states a second fit through the link", short(min(fit, v.params.Rate)), v.params.Rate)
	case results.Direct:
		return d.yardstick(v, "gws-direct", results.CallP50, precise, "ms from the call")
	case results.Intake:
		empty := v
		empty.params.Connections = 0
		if p := &empty.params; p.Work == results.RedisPublish || p.Work == results.NATSPublish {
			p.Work = results.SinglePost
		}
		return d.yardstick(empty, "net-http", results.Throughput, grouped, "messages/s in requests that a handler of net/http only reads")
	case results.Nodes:
		return d.broker(v)
	}
	return ""
}

// yardstick describes a figure of a system and its use of the processors.
func (d Data) yardstick(v variant, system string, metric results.Metric, write func(float64) string, unit string) string {
	s := spreadOf(d.series(v, system, metric))
	if s.n == 0 {
		return system + ", which shows it, was not measured"
	}
	text := fmt.Sprintf("%s comes to %s %s", system, s.text(write), unit)
	if busy := spreadOf(d.series(v, system, results.CoresUsed)); busy.n > 0 {
		clients := spreadOf(d.series(v, system, results.GeneratorShare))
		text += fmt.Sprintf(" with %s of %d cores busy, %s of that for the clients", short(busy.median), d.cores(v), percent(clients.median))
	}
	return text
}

// broker describes the fastest of a broker's own clients.
func (d Data) broker(v variant) string {
	best := ""
	for _, system := range d.systemsOf(v) {
		if d.kindOf(system) == systems.Yardstick && (best == "" ||
			spreadOf(d.series(v, system, results.Throughput)).median > spreadOf(d.series(v, best, results.Throughput)).median) {
			best = system
		}
	}
	if best == "" {
		return ""
	}
	return d.yardstick(v, best, results.Throughput, grouped, "messages/s")
}

// cores is the number of the machine's cores.
func (d Data) cores(v variant) int {
	for _, r := range d.records {
		if variantOf(r) == v {
			return r.Provenance.Cores
		}
	}
	return 0
}
