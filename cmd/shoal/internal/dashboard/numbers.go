package dashboard

import (
	"cmp"
	"context"
	"runtime/metrics"
	"slices"
	"sync"
	"time"

	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"
)

// numbers is the state of the upload "numbers". It names no user, upload or address.
type numbers struct {
	Action  string `json:"action"`
	At      int64  `json:"at"` // ms since 1970
	Node    string `json:"node"`
	Version string `json:"version"`
	// NotReady is why the server should get no new connections, "" if it should.
	NotReady string `json:"not_ready"`
	// Rates are since the last state; nil in the first one.
	Rates *rates `json:"rates"`
	// Residence is nil if nothing was written.
	Residence *percentiles `json:"residence"`
	Stats     server.Stats `json:"stats"`
	Closings  []closing    `json:"closings"`
	Shards    shardSizes   `json:"shards"`
	Nodes     []node       `json:"nodes"`
	// MoreNodes is the number of nodes that Nodes has no room for. MissingNodes did not answer.
	MoreNodes    int      `json:"more_nodes"`
	MissingNodes []string `json:"missing_nodes"`
	// ConnectionLimit and HistoryLimit are 0 without a bound.
	ConnectionLimit int `json:"connection_limit"`
	HistoryLimit    int `json:"history_limit"`
	// HeapBytes and Goroutines belong to the process.
	HeapBytes  uint64 `json:"heap_bytes"`
	Goroutines uint64 `json:"goroutines"`
}

// rates are per second.
type rates struct {
	Published  float64 `json:"published"` // by this node's publishers
	Received   float64 `json:"received"`  // from the broker
	Deliveries float64 `json:"deliveries"`
	Conflated  float64 `json:"conflated"`
	Dropped    float64 `json:"dropped"`
	Frames     float64 `json:"frames"`
	Bytes      float64 `json:"bytes"`
	Writes     float64 `json:"writes"`
}

// closing is the number of connections that ended for one reason since the start.
type closing struct {
	Code   uint16 `json:"code"`
	Reason string `json:"reason"`
	Count  uint64 `json:"count"`
}

// shardSizes has one entry for each shard in every list, see maxShards.
type shardSizes struct {
	Connections   []int `json:"connections"`
	Users         []int `json:"users"`
	Uploads       []int `json:"uploads"`
	Subscriptions []int `json:"subscriptions"`
}

// node is one of the nodes that are joined by the broker.
type node struct {
	Name        string `json:"name"`
	Connections int    `json:"connections"`
	Users       int    `json:"users"`
	Uploads     int    `json:"uploads"`
	Published   uint64 `json:"published"`
	Healthy     bool   `json:"healthy"`
}

const (
	// maxNodes bounds the nodes in a state.
	maxNodes = 64
	// nodesInterval is the time between two questions to all nodes, nodesTimeout that for their answers.
	nodesInterval = 5 * time.Second
	nodesTimeout  = 4 * time.Second
)

// source makes the states. numbers and connections must be called by one goroutine.
type source struct {
	opt   Options
	walk  *server.SlowWalk
	last  counts // of the last state
	stop  context.CancelFunc
	asked sync.WaitGroup

	mu    sync.Mutex // protects nodes; nothing is called under it
	nodes nodeList
}

type nodeList struct {
	nodes   []node
	more    int
	missing []string
}

// counts are the counters behind the rates, at a time.
type counts struct {
	at    time.Time
	stats server.Stats
}

// newSource returns a source, which must be closed. It asks the other nodes for their counts until then.
func newSource(ctx context.Context, opt Options) *source {
	ctx, cancel := context.WithCancel(ctx)
	s := &source{opt: opt, walk: opt.Server.NewSlowWalk(maxSlowest), stop: cancel}
	s.asked.Go(func() { s.askNodes(ctx) })
	return s
}

func (s *source) close() {
	s.stop()
	s.asked.Wait()
}

// numbers returns the state of now.
func (s *source) numbers() numbers {
	now := counts{time.Now(), s.opt.Server.Stats()}
	n := numbers{
		Action: actionNumbers, At: now.at.UnixMilli(), Node: s.opt.Node, Version: s.opt.Version,
		Rates: now.since(s.last), Residence: s.opt.Residence.next(), Stats: now.stats,
		Closings: []closing{}, Shards: sizesOf(s.opt.Manager.ShardStats()),
		ConnectionLimit: s.opt.Server.ConnectionLimit(), HistoryLimit: max(s.opt.Manager.Limits().HistoryTotalBytes, 0),
	}
	s.last = now
	if err := s.opt.Ready(); err != nil {
		n.NotReady = err.Error()
	}
	for _, c := range s.opt.Server.Closings() {
		if c.Count > 0 {
			n.Closings = append(n.Closings, closing{c.Code, c.Reason, c.Count})
		}
	}
	s.mu.Lock()
	n.Nodes, n.MoreNodes, n.MissingNodes = s.nodes.nodes, s.nodes.more, s.nodes.missing
	s.mu.Unlock()
	n.HeapBytes, n.Goroutines = process()
	return n
}

// since returns the rates between two states, nil without an earlier one.
func (c counts) since(last counts) *rates {
	seconds := c.at.Sub(last.at).Seconds()
	if last.at.IsZero() || seconds <= 0 {
		return nil
	}
	rate := func(now, before uint64) float64 { return float64(now-before) / seconds }
	published := func(s *server.Stats) uint64 {
		return s.Messages.Publish.Total() + s.Messages.Local.Total() + s.Messages.User.Total()
	}
	a, b := &c.stats, &last.stats
	return &rates{
		Published:  rate(published(a), published(b)),
		Received:   rate(a.Messages.Broker.Total(), b.Messages.Broker.Total()),
		Deliveries: rate(a.Queued+a.Conflated, b.Queued+b.Conflated),
		Conflated:  rate(a.Conflated, b.Conflated),
		Dropped:    rate(a.Dropped, b.Dropped),
		Frames:     rate(a.SentFrames, b.SentFrames),
		Bytes:      rate(a.SentBytes, b.SentBytes),
		Writes:     rate(a.Writes, b.Writes),
	}
}

// maxShards bounds the entries of shardSizes. Beyond it each entry is the sum of neighbouring shards.
const maxShards = 256

func sizesOf(shards []manager.ShardStats) shardSizes {
	n := min(len(shards), maxShards)
	s := shardSizes{make([]int, n), make([]int, n), make([]int, n), make([]int, n)}
	for i, shard := range shards { // their number is a power of two, so each entry is the sum of equally many
		at := i * n / len(shards)
		s.Connections[at] += shard.Connections
		s.Users[at] += shard.Users
		s.Uploads[at] += shard.Uploads
		s.Subscriptions[at] += shard.Subscriptions
	}
	return s
}

// process returns the bytes of live and dead objects in the heap, and the number of goroutines.
func process() (heap, goroutines uint64) {
	samples := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/sched/goroutines:goroutines"}}
	metrics.Read(samples)
	return samples[0].Value.Uint64(), samples[1].Value.Uint64()
}

// askNodes asks all nodes for their counts until ctx ends. Nodes that answer late delay nothing else.
func (s *source) askNodes(ctx context.Context) {
	tick := time.NewTicker(nodesInterval)
	defer tick.Stop()
	for {
		asking, cancel := context.WithTimeout(ctx, nodesTimeout)
		stats, missing, err := s.opt.Manager.NodeStats(asking)
		cancel()
		if err == nil {
			list := listNodes(stats, missing)
			s.mu.Lock()
			s.nodes = list
			s.mu.Unlock()
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// listNodes returns the nodes by name, as many as there is room for.
func listNodes(stats map[string]manager.Stats, missing []string) nodeList {
	all := make([]node, 0, len(stats))
	for name, s := range stats {
		all = append(all, node{
			name, s.Connections, s.Users, s.Uploads, s.Published, s.Broker == nil || s.Broker.Healthy,
		})
	}
	slices.SortFunc(all, func(a, b node) int { return cmp.Compare(a.Name, b.Name) })
	shown := min(len(all), maxNodes)
	return nodeList{all[:shown], len(all) - shown, missing[:min(len(missing), maxNodes)]}
}
