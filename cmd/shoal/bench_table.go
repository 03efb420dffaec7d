package main

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/shoal-go/shoal/internal/plot"
)

// benchRow is a line of the result as a person reads it.
type benchRow struct{ name, text string }

// rows are the result, line by line.
func (r *benchResult) rows() []benchRow {
	m, c := &r.Messages, &r.Connections
	rows := []benchRow{
		{"load", r.Load.String()},
		{"connections", fmt.Sprintf("%s of %s ready, %s ended", plot.Grouped(int64(c.Ready)),
			plot.Grouped(int64(r.Load.Connections)), plot.Grouped(int64(c.Ended)))},
	}
	if m.times == nil {
		return rows
	}
	return append(rows, []benchRow{
		{"connect", fmt.Sprintf("p50 %s, p99 %s", plot.Duration(c.Connect.P50), plot.Duration(c.Connect.P99))},
		{"published", fmt.Sprintf("%s of %s", plot.Grouped(m.Published), plot.Grouped(int64(m.Planned)))},
		{"delivered", fmt.Sprintf("%s of %s, %s lost",
			plot.Grouped(m.Delivered), plot.Grouped(m.Expected), plot.Grouped(m.Lost))},
		{"throughput", fmt.Sprintf("%s messages/s over %.2f s", plot.Grouped(int64(m.PerSecond)), m.Seconds)},
		{"latency", fmt.Sprintf("p50 %s, p90 %s, p99 %s, p99.9 %s, max %s", plot.Duration(m.Latency.P50),
			plot.Duration(m.Latency.P90), plot.Duration(m.Latency.P99),
			plot.Duration(m.Latency.P999), plot.Duration(m.Latency.Max))},
		{"generator", fmt.Sprintf("%.0f %% of a core, pollers: %d", 100*r.Generator.Cores, r.Load.Pollers)},
		{"server", r.serverText()},
	}...)
}

// table is the result as text.
func (r *benchResult) table() string {
	var b strings.Builder
	for _, row := range r.rows() {
		fmt.Fprintf(&b, "%-12s %s\n", row.name, row.text)
	}
	for _, note := range r.notes() {
		fmt.Fprintf(&b, "note: %s\n", note)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// notes are the remarks that are needed to interpret the figures.
func (r *benchResult) notes() []string {
	var notes []string
	if r.Interrupted {
		notes = append(notes, "the run was interrupted: the numbers are those up to then")
	}
	if r.Generator.Bound {
		notes = append(notes, fmt.Sprintf("the generator used more than %.0f %% of a core for each poller: the numbers "+
			"may be its own limit and not the server's; give it more --pollers, or another machine", 100*busyShare))
	}
	if m := &r.Messages; m.Published < int64(m.Planned) && !r.Interrupted && !m.refused {
		notes = append(notes, "not all that was planned could be published in time: the rate is more than the server takes "+
			"from these publishers")
	}
	return notes
}

// String describes the requested load.
func (l benchLoad) String() string {
	return fmt.Sprintf("connections: %s, uploads: %s, stalled: %s; %s messages/s in bursts of %d, %s B each",
		plot.Grouped(int64(l.Connections)), plot.Grouped(int64(l.Uploads)), plot.Grouped(int64(l.Stalled)),
		strconv.FormatFloat(l.Rate, 'f', -1, 64), l.Burst, plot.Grouped(int64(l.PayloadBytes)))
}

// serverText describes the server's counts during the run, including the messages of other publishers.
func (r *benchResult) serverText() string {
	var parts []string
	for _, name := range []string{"sent", "writes", "conflated", "dropped", "slow_consumers"} {
		after, ok := r.Server.After[name]
		if ok {
			parts = append(parts, strings.ReplaceAll(name, "_", " ")+" "+plot.Grouped(after-r.Server.Before[name]))
		}
	}
	if len(parts) == 0 {
		return "no counts"
	}
	return strings.Join(parts, ", ")
}

// redacted is a URL without its password.
func redacted(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return u.Redacted()
}
