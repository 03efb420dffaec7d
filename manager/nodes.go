package manager

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
)

// Kinds of commands and questions between nodes.
const (
	tellMessage    = "message-to-user"
	closeUser      = "close-user"
	closeToken     = "close-token"
	askSubscribers = "subscribers"
	askStats       = "stats"
)

// errUnknownQuestion answers a node of another version.
var errUnknownQuestion = errors.New("manager: unknown question")

// order is a command that one node sends to the others.
type order struct {
	UserID  string `json:"user,omitempty"`
	TokenID string `json:"token,omitempty"`
	// Reason is why connections are closed.
	Reason CloseReason `json:"reason,omitzero"`
	// message is the message for the user. It follows the JSON and a line feed, byte for byte.
	message []byte
}

func (c *cluster) tell(ctx context.Context, kind string, o order) error {
	body, err := json.Marshal(o)
	if err != nil {
		return err
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	return unavailable(c.peers.Tell(ctx, kind, append(append(body, '\n'), o.message...)))
}

// parseOrder parses a command that tell has sent.
func parseOrder(body []byte) (o order, err error) {
	line, message, _ := bytes.Cut(body, []byte{'\n'})
	err = json.Unmarshal(line, &o)
	o.message = message
	return o, err
}

func (c *cluster) sendToUser(userID string, e Encoded) error {
	return c.tell(context.Background(), tellMessage, order{UserID: userID, message: e.payload})
}

// closeEverywhere has all nodes close connections and returns how many this one has closed. Each node confirms it,
// because a revoked token must not stay connected to a node that was away for a moment.
func (c *cluster) closeEverywhere(ctx context.Context, kind string, o order) (closed int, err error) {
	body, err := json.Marshal(o)
	if err != nil {
		return 0, err
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	answers, missing, err := c.peers.Ask(ctx, kind, body)
	if own, ok := answers[c.peers.Name()]; ok {
		closed, _ = strconv.Atoi(string(own)) // closeHere writes a number
	}
	switch {
	case err != nil:
		return closed, unavailable(err)
	case len(missing) > 0:
		return closed, &MissingNodesError{missing}
	}
	return closed, nil
}

// closeHere carries out closeEverywhere on this node, and returns how many connections it has closed.
func (c *cluster) closeHere(kind string, body []byte) ([]byte, error) {
	o, err := parseOrder(body)
	if err == nil {
		err = o.Reason.Check()
	}
	if err != nil {
		c.refused("orders of other nodes", err)
		return nil, err
	}
	closed := 0
	if kind == closeUser {
		closed = c.manager.closeUserHere(o.UserID, o.Reason)
	} else {
		closed = c.manager.closeTokenHere(o.TokenID, o.Reason)
	}
	return strconv.AppendInt(nil, int64(closed), 10), nil
}

// MissingNodesError is the error of a command that some nodes have not confirmed. It wraps ErrUnavailable: giving the
// command again later makes sense.
type MissingNodesError struct {
	// Nodes are their names, sorted.
	Nodes []string
}

func (e *MissingNodesError) Error() string {
	return "manager: nodes did not confirm the command: " + strings.Join(e.Nodes, ", ")
}

func (e *MissingNodesError) Unwrap() error { return ErrUnavailable }

// told executes a command of another node.
func (c *cluster) told(kind string, body []byte) {
	o, err := parseOrder(body)
	if err != nil {
		c.refused("orders of other nodes", err)
		return
	}
	if kind == tellMessage {
		e, err := glance("", o.message, c.manager.opt.MaxMessageBytes)
		if err != nil {
			c.refused("messages to users", err)
			return
		}
		c.manager.sendHere(o.UserID, e)
	}
}

// answer answers a question of a node.
func (c *cluster) answer(kind string, body []byte) ([]byte, error) {
	switch kind {
	case closeUser, closeToken:
		return c.closeHere(kind, body)
	case askSubscribers:
		return json.Marshal(c.manager.UploadSubscriberIDs(string(body)))
	case askStats:
		return json.Marshal(c.manager.Stats())
	}
	return nil, errUnknownQuestion
}

// Subscribers are the users that follow an upload on any node.
type Subscribers struct {
	// Users are their ids, sorted, each once.
	Users []string
	// Missing are the names of the nodes that did not answer in time, sorted. The users that are connected
	// to them alone are not among Users.
	Missing []string
}

// Subscribers queries all nodes for the users that follow an upload. It blocks until they have answered, at most for
// some seconds. The error is ctx's error, or wraps ErrUnavailable if no node could be queried.
func (m *Manager) Subscribers(ctx context.Context, uploadID string) (Subscribers, error) {
	if err := errors.Join(m.made(), CheckID("upload_id", uploadID)); err != nil {
		return Subscribers{}, err
	}
	if m.cluster == nil {
		return Subscribers{Users: m.UploadSubscriberIDs(uploadID)}, nil
	}
	var s Subscribers
	answers, missing, err := m.cluster.peers.Ask(ctx, askSubscribers, []byte(uploadID))
	if err != nil {
		return s, unavailable(err)
	}
	s.Missing = missing
	for node, body := range answers {
		var users []string
		if json.Unmarshal(body, &users) != nil {
			s.Missing = append(s.Missing, node)
			continue
		}
		s.Users = append(s.Users, users...)
	}
	slices.Sort(s.Users)
	s.Users = slices.Compact(s.Users)
	slices.Sort(s.Missing)
	return s, nil
}

// NodeStats queries all nodes for their counts and returns them by node name; missing lists the nodes that did not
// answer in time. It blocks and fails as Subscribers does. A single node has the name Options.NodeName.
func (m *Manager) NodeStats(ctx context.Context) (stats map[string]Stats, missing []string, err error) {
	if m.cluster == nil {
		return map[string]Stats{m.opt.NodeName: m.Stats()}, nil, nil
	}
	answers, missing, err := m.cluster.peers.Ask(ctx, askStats, nil)
	if err != nil {
		return nil, nil, unavailable(err)
	}
	stats = make(map[string]Stats, len(answers))
	for node, body := range answers {
		var s Stats
		if json.Unmarshal(body, &s) != nil {
			missing = append(missing, node)
			continue
		}
		stats[node] = s
	}
	slices.Sort(missing)
	return stats, missing, nil
}

// Ready returns nil if messages of other nodes come through, else why not. A node that is alone is ready.
func (m *Manager) Ready() error {
	if err := m.made(); err != nil {
		return err
	}
	if m.cluster == nil {
		return nil
	}
	if why := m.cluster.health.Load(); why != nil {
		return errors.New("manager: the broker: " + *why)
	}
	if !m.cluster.peers.Joined() {
		return errors.New("manager: this node has not joined the others yet")
	}
	return nil
}

// BrokerFailed returns a channel that receives the permanent error that ended the broker, such as wrong credentials.
// The node is cut off from the others from then on. Without such an error the channel receives nothing.
func (m *Manager) BrokerFailed() <-chan error {
	if m.cluster == nil {
		return nil
	}
	return m.cluster.failed
}
