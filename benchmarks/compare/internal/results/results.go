// Package results stores measurements: one JSON object a line, each with its complete provenance.
package results

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/shoal-go/shoal/internal/load"
)

// Schema is the version of the form of a Record.
const Schema = 1

// Metric names a figure. Its unit is the end of its name.
type Metric string

// Figures are the results of a measurement.
type Figures map[Metric]float64

// AddTimes adds the 50th, 99th and 99.9th percentile in milliseconds, as many as there are metrics.
func (f Figures) AddTimes(p load.Percentiles, metrics ...Metric) {
	for i, metric := range metrics {
		f[metric] = float64([]int64{p.P50, p.P99, p.P999}[i]) / 1e6
	}
}

// The figures.
const (
	Throughput    Metric = "messages_per_second"       // delivered, over all receivers
	ServerCPU     Metric = "server_cpu_ns_per_message" // per delivered message
	PerWrite      Metric = "messages_per_write"        // delivered, by system calls that wrote
	ToLast        Metric = "ms_to_last_receiver"       // median over the messages of a run
	P50           Metric = "p50_ms"                    // from the planned send time
	P99           Metric = "p99_ms"
	P999          Metric = "p999_ms"
	CallP50       Metric = "call_p50_ms" // from the call that publishes
	CallP99       Metric = "call_p99_ms"
	CallP999      Metric = "call_p999_ms"
	Late          Metric = "published_late_ms" // the latest of all messages against its plan
	PerConnection Metric = "bytes_per_connection"
	// Resident is all memory of the process divided by the connections; PerConnection leaves out the memory it had
	// before they came.
	Resident       Metric = "resident_bytes_per_connection"
	ConnectRate    Metric = "connections_per_second"
	ReadyP50       Metric = "ready_p50_ms" // from dialling until subscribed
	ReadyP99       Metric = "ready_p99_ms"
	ConnectCPU     Metric = "server_cpu_us_per_connection"
	GeneratorShare Metric = "generator_cpu_share" // of all that server and generator used
	CoresUsed      Metric = "cores_used"          // by both while measuring
	Rounds         Metric = "rounds"
	Delivered      Metric = "delivered_messages"
	Expected       Metric = "expected_messages"
	Closed         Metric = "connections_closed"
	Messages       Metric = "received_messages"
	Received       Metric = "received_share"  // of the published messages
	ReceivedBytes  Metric = "received_bytes"  // at all clients
	CloseCode      Metric = "close_code"      // with which the server closed the connection; 0: without one
	Lasted         Metric = "ms_to_last_read" // from the first message's planned time
	// Kernel is the kernel's memory for a connection's end.
	Kernel Metric = "kernel_bytes_per_connection"

	// Between nodes, of each process by itself. Without a process of its own the broker's is in the publisher's.
	PublisherCPU Metric = "publisher_cpu_ns_per_message"
	ReceiverCPU  Metric = "receiver_cpu_ns_per_message"
	BrokerCPU    Metric = "broker_cpu_ns_per_message"
	Recovered    Metric = "recoveries" // how often an upload was read again from the broker's history

	// PerReceiver and the metrics below are measured without sockets.
	PerReceiver Metric = "ns_per_receiver" // by the clock
	// Operations are receivers of broadcasts, published messages, or subscriptions that came and went.
	Operations           Metric = "operations_per_second"
	RegistryConnection   Metric = "registry_bytes_per_connection" // on the heap
	RegistrySubscription Metric = "registry_bytes_per_subscription"
	HeldMessage          Metric = "bytes_per_held_message"
	ConnectTime          Metric = "ns_per_connect"
	SubscribeTime        Metric = "ns_per_subscribe"
	Heap                 Metric = "heap_bytes"
	ResidentTotal        Metric = "resident_bytes"
	Collected            Metric = "ms_of_garbage_collection" // while publishing
	Pause                Metric = "ms_of_pause"              // the longest of that collection
)

// The scenarios with an emulated link, in one process and of publishers, and those between nodes.
const (
	Fresh       = "S10"
	Direct      = "S11"
	Intake      = "S12"
	Nodes       = "S9"
	NodeLatency = "S9 latency"
)

// Params are the parameters of a scenario's run.
type Params struct {
	Connections int `json:"connections"`
	Channels    int `json:"channels,omitempty"`
	// Messages is how many are published at once.
	Messages int `json:"messages,omitempty"`
	Bytes    int `json:"bytes,omitempty"`
	// Stalled is the share of the clients that do not read.
	Stalled float64 `json:"stalled,omitempty"`
	// Load is the share of the write loop's capacity that Rate, in messages published per second, comes to.
	Load float64 `json:"load,omitempty"`
	Rate float64 `json:"rate,omitempty"`
	// Procs is GOMAXPROCS of the server, 0 where it is the provenance's.
	Procs int `json:"procs,omitempty"`
	// Servers is how many processes share the connections, 0 for one.
	Servers int `json:"servers,omitempty"`
	// Publishers is how many publish at once on a node, each one message after the other.
	Publishers int `json:"publishers,omitempty"`
	// TLS: the connections are over TLS.
	TLS bool `json:"tls,omitempty"`
	// Kbits per second and milliseconds of delay each way are those of the link between server and client, and Loss is the
	// share of the packets that it loses.
	Kbits   int     `json:"kbits,omitempty"`
	DelayMS int     `json:"delay_ms,omitempty"`
	Loss    float64 `json:"loss,omitempty"`
	// Work is the operation where a sweep compares several, see Broadcast, or the broker between nodes.
	Work string `json:"work,omitempty"`
}

// Timed are parameters of work that is repeated while For lasts.
type Timed struct {
	Params
	For time.Duration
}

// The works of a sweep, without sockets but for the last.
const (
	Broadcast   = "broadcast"
	Shuffled    = "broadcast, shuffled" // the receivers lie in memory in no order
	Publish     = "publish"             // to uploads with one receiver each
	Churn       = "subscribe"           // and unsubscribe
	OneUpload   = "one upload for all"
	OwnUpload   = "one upload each"
	OverSockets = "bursts over sockets"
)

// The works of S12: the ways in which messages are published.
const (
	SinglePost   = "single POST"
	BatchPost    = "batches to one upload"
	ManyPost     = "batches over many uploads"
	RedisPublish = "PUBLISH on Redis"
	NATSPublish  = "JetStream publish on NATS"
)

// Compare orders parameters by the fields that distinguish the variants of a scenario.
func (p Params) Compare(q Params) int {
	return cmp.Or(
		cmp.Compare(p.Work, q.Work), cmp.Compare(p.Procs, q.Procs), cmp.Compare(p.Connections, q.Connections),
		cmp.Compare(p.Load, q.Load), cmp.Compare(p.Stalled, q.Stalled),
		cmp.Compare(p.Messages, q.Messages), cmp.Compare(p.Servers, q.Servers), cmp.Compare(p.Publishers, q.Publishers),
		cmp.Compare(p.Rate, q.Rate), cmp.Compare(p.Kbits, q.Kbits), cmp.Compare(p.DelayMS, q.DelayMS),
	)
}

// Record is one measurement of one system.
type Record struct {
	Schema int `json:"schema"`
	// Run identifies the records that were measured together, interleaved.
	Run        string     `json:"run"`
	Time       time.Time  `json:"time"`
	Scenario   string     `json:"scenario"`
	System     string     `json:"system"`
	Kind       string     `json:"kind"`
	Repeat     int        `json:"repeat"` // from 1
	Params     Params     `json:"params"`
	Metrics    Figures    `json:"metrics,omitempty"`
	Error      string     `json:"error,omitempty"`
	Provenance Provenance `json:"provenance"`
}

// Create begins a new file of results in a folder, which is made where it is missing.
func Create(folder, run string) (*os.File, error) {
	if err := os.MkdirAll(folder, 0o755); err != nil { //nolint:gosec // results are for everyone
		return nil, err
	}
	return os.OpenFile(filepath.Join(folder, run+".jsonl"), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644) //nolint:gosec // likewise
}

// Add writes one record to a file.
func Add(file *os.File, r Record) error { return json.NewEncoder(file).Encode(r) }

// Load reads all files of results in a folder, the oldest record first.
func Load(folder string) ([]Record, error) {
	names, err := filepath.Glob(filepath.Join(folder, "*.jsonl"))
	if err != nil {
		return nil, fmt.Errorf("results: %w", err)
	}
	var all []Record
	for _, name := range names {
		content, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("results: %w", err)
		}
		n := 0
		for line := range bytes.Lines(content) {
			n++
			var r Record
			if err := json.Unmarshal(line, &r); err != nil {
				return nil, fmt.Errorf("results: %s, line %d: %w", name, n, err)
			}
			if r.Schema != Schema {
				return nil, fmt.Errorf("results: %s, line %d: the schema is %d, want %d", name, n, r.Schema, Schema)
			}
			all = append(all, r)
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("results: there are none in %s: measure some first, with compare run", folder)
	}
	slices.SortStableFunc(all, func(a, b Record) int { return a.Time.Compare(b.Time) })
	return all, nil
}
