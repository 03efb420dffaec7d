package manager

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"

	"github.com/shoal-go/shoal/internal/membership"
)

// Kinds of questions between nodes. A command is a question too, so that each node confirms it.
const (
	messageToUser  = "message-to-user"
	closeUser      = "close-user"
	closeToken     = "close-token"
	askSubscribers = "subscribers"
	askStats       = "stats"
	askOrders      = "close-orders"
	forgetUpload   = "forget-upload"
)

// errUnknownQuestion answers a node of another version.
var errUnknownQuestion = errors.New("manager: unknown question")

// userMessage is a message that one node sends to the connections that a user has on the others. In the body of the
// question the message follows the JSON and a line feed, byte for byte.
type userMessage struct {
	UserID string `json:"user"`
}

// sendToUser sends a message to the connections of a user on all nodes, this one included, and returns the outcomes on
// the nodes that have confirmed it.
func (c *cluster) sendToUser(ctx context.Context, userID string, e Encoded) (d Delivery, err error) {
	body, err := json.Marshal(userMessage{userID})
	if err != nil {
		return d, err
	}
	if most := membership.MaxBodyBytes - len(body) - 1; len(e.payload) > most {
		return d, tooLarge(len(e.payload), most)
	}
	answers, err := c.askAll(ctx, messageToUser, append(append(body, '\n'), e.payload...))
	for _, answer := range answers {
		var there Delivery
		if json.Unmarshal(answer.Body, &there) == nil {
			d.add(there)
		}
	}
	return d, err
}

// sendHere carries out sendToUser on this node.
func (c *cluster) sendHere(body []byte) ([]byte, error) {
	line, message, _ := bytes.Cut(body, []byte{'\n'})
	var to userMessage
	err := json.Unmarshal(line, &to)
	if err != nil {
		c.refused("messages to users", err)
		return nil, err
	}
	e, err := c.manager.vocabulary.parseRemote("", message, c.manager.opt.MaxMessageBytes)
	if err != nil {
		c.refused("messages to users", err)
		return nil, err
	}
	return json.Marshal(c.manager.sendHere(to.UserID, e))
}

// answer answers a question of a node.
func (c *cluster) answer(kind string, body []byte) ([]byte, error) {
	switch kind {
	case closeUser, closeToken:
		return c.closeHere(body)
	case forgetUpload:
		if err := CheckID("upload_id", string(body)); err != nil {
			c.refused("orders of other nodes", err)
			return nil, err
		}
		c.manager.forgetHere(string(body))
		return nil, nil
	case askOrders:
		return c.answerOrders(body)
	case messageToUser:
		return c.sendHere(body)
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
// some seconds. The error is an *InvalidError, ErrClosed or ctx's error, or wraps ErrUnavailable or ErrRefused if no
// node could be queried.
func (m *Manager) Subscribers(ctx context.Context, uploadID string) (Subscribers, error) {
	if err := errors.Join(m.checkCreated(), CheckID("upload_id", uploadID)); err != nil {
		return Subscribers{}, err
	}
	if m.cluster == nil {
		return Subscribers{Users: m.UploadSubscriberIDs(uploadID)}, nil
	}
	var s Subscribers
	answers, missing, err := m.cluster.peers.Ask(ctx, askSubscribers, []byte(uploadID))
	if err != nil {
		return s, m.cluster.readFailure(err)
	}
	s.Missing = missing
	for node, answer := range answers {
		var users []string
		if json.Unmarshal(answer.Body, &users) != nil {
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
	if err := m.checkCreated(); err != nil {
		return nil, nil, err
	}
	if m.cluster == nil {
		return map[string]Stats{m.opt.NodeName: m.Stats()}, nil, nil
	}
	answers, missing, err := m.cluster.peers.Ask(ctx, askStats, nil)
	if err != nil {
		return nil, nil, m.cluster.readFailure(err)
	}
	stats = make(map[string]Stats, len(answers))
	for node, answer := range answers {
		var s Stats
		if json.Unmarshal(answer.Body, &s) != nil {
			missing = append(missing, node)
			continue
		}
		stats[node] = s
	}
	slices.Sort(missing)
	return stats, missing, nil
}

// askAll gives a command to all nodes as a question, so that each confirms it, and returns their answers. The error
// wraps ErrUnavailable or ErrRefused, or is a *MissingNodesError.
func (c *cluster) askAll(
	ctx context.Context, kind string, body []byte,
) (answers map[string]membership.Answer, err error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	answers, missing, err := c.peers.Ask(ctx, kind, body)
	switch {
	case err != nil:
		return answers, uncertain(err)
	case len(missing) > 0:
		return answers, &MissingNodesError{missing}
	}
	return answers, nil
}
