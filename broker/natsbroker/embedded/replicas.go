package embedded

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// replicas are this server's replicas of streams. The health of a server does not show that they are complete: it knows
// only of the streams, and of their messages, that it has been told of. A server that has restarted with nothing and is
// healthy may have been told of little. The methods are safe for concurrent use.
type replicas struct {
	mu sync.Mutex // held while the leaders are asked
	// complete means that everything that the leaders had was found here since the server last lacked something.
	complete bool
	// targets are the last sequences of the leaders by the streams' names, nil before the leaders were asked.
	targets map[string]uint64
	asked   time.Time
}

const (
	// askTimeout bounds how long to wait for the leaders' answers.
	askTimeout = time.Second
	// askAgain is how long answers are valid: a stream may have been deleted since.
	askAgain = 10 * time.Second
)

// outdate has the leaders asked again.
func (r *replicas) outdate() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.complete, r.targets = false, nil
}

// checkReplicas returns an error while this server lacks messages that the leaders of its streams have.
func (s *Server) checkReplicas() error {
	r := &s.own
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(s.members) == 0 || r.complete {
		return nil
	}
	if r.targets == nil || time.Since(r.asked) > askAgain {
		targets, err := s.askLeaders()
		if err != nil {
			return err
		}
		r.targets, r.asked = targets, time.Now()
	}
	have, err := s.lastSequences()
	if err != nil {
		return err
	}
	for name, target := range r.targets {
		if last, ok := have[name]; !ok || last < target {
			return fmt.Errorf("stream %s is being copied from its leader, up to message %d of %d so far", name, last, target)
		}
	}
	r.complete, r.targets = true, nil
	return nil
}

// lastSequences returns the last sequences of this server's replicas by the streams' names.
func (s *Server) lastSequences() (map[string]uint64, error) {
	all, err := s.server.Jsz(&server.JSzOptions{Account: server.DEFAULT_GLOBAL_ACCOUNT, Streams: true})
	if err != nil {
		return nil, err
	}
	have := make(map[string]uint64)
	for _, account := range all.AccountDetails {
		for _, stream := range account.Streams {
			have[stream.Name] = stream.State.LastSeq
		}
	}
	return have, nil
}

// askLeaders asks the leader of the cluster for the streams, and the leaders of these for the last sequences. It
// returns them by the names of the streams that this server should replicate.
func (s *Server) askLeaders() (map[string]uint64, error) {
	conn, err := nats.Connect("", nats.InProcessServer(s), nats.NoReconnect())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	end := time.Now().Add(askTimeout)
	var names server.JSApiStreamNamesResponse
	if err := ask(conn, server.JSApiStreams, end, &names); err != nil {
		return nil, fmt.Errorf("the leader of the cluster does not list the streams: %w", err)
	}
	if names.Error != nil {
		return nil, names.Error
	}
	targets := make(map[string]uint64)
	for _, name := range names.Streams {
		var info server.JSApiStreamInfoResponse
		err := ask(conn, fmt.Sprintf(server.JSApiStreamInfoT, name), end, &info)
		switch {
		case err != nil:
			return nil, fmt.Errorf("the leader of stream %s does not tell its state: %w", name, err)
		case info.Error != nil:
			return nil, fmt.Errorf("stream %s: %w", name, info.Error)
		case info.StreamInfo == nil:
			return nil, fmt.Errorf("stream %s: %w", name, errNoState)
		case info.Cluster != nil && info.Cluster.Leader == "": // a replica has answered
			return nil, fmt.Errorf("stream %s: %w", name, errNoLeader)
		case s.follows(info.Cluster):
			targets[name] = info.State.LastSeq
		}
	}
	return targets, nil
}

var (
	errNoLeader = errors.New("it has no leader")
	errNoState  = errors.New("the answer of its leader is empty")
)

// follows reports whether this server should have a replica of a stream, and is not its leader.
func (s *Server) follows(c *server.ClusterInfo) bool {
	own := s.server.Node()
	return c != nil && c.Leader != s.server.Name() &&
		slices.ContainsFunc(c.Replicas, func(p *server.PeerInfo) bool { return p.Peer == own })
}

// ask sends an empty request and decodes the answer.
func ask(conn *nats.Conn, subject string, end time.Time, answer any) error {
	m, err := conn.Request(subject, nil, time.Until(end))
	if err != nil {
		return err
	}
	return json.Unmarshal(m.Data, answer)
}
