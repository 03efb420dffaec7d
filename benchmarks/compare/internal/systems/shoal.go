package systems

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/message"
	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/internal/load"
	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"
)

// Shoal is this repository's server and manager, with the options' defaults: the behaviour without
// tuning anything. Messages are published in the process, as an application that embeds it does, as values
// that the manager validates and encodes each time. Its clients speak the base protocol, so that they receive
// the same bytes as everyone else's; in S6 they speak shoal.v1, whose resume is acknowledged.
type Shoal struct {
	*server.Server
	Manager *manager.Manager
}

// shoalPublishing publishes to one upload by its own path, and to several by /v1/messages.
func shoalPublishing(messages []message.Message) (path string, body []byte) {
	channel := messages[0].Channel
	if slices.ContainsFunc(messages, func(m message.Message) bool { return m.Channel != channel }) {
		for _, m := range messages {
			body = m.AppendJSON(fmt.Appendf(body, `{"upload_id":%q,"message":`, m.Channel))
			body = append(body, "}\n"...)
		}
		return "/v1/messages", body
	}
	for _, m := range messages {
		body = append(m.AppendJSON(body), '\n')
	}
	return "/v1/uploads/" + channel + "/messages", body
}

// NewShoal returns the system on top of a broker. nil: the node is alone.
func NewShoal(b broker.Broker) (*Shoal, error) {
	m, err := manager.New(manager.Options{Broker: b})
	if err != nil {
		return nil, err
	}
	s, err := server.New(server.Options{
		Manager: m,
		Authenticate: func(_ context.Context, token string) (server.Identity, error) {
			user, err := userOf(token)
			return server.Identity{UserID: user}, err
		},
		Authorize: server.AuthorizeOpen,
		APIKeys:   []string{APIKey},
	})
	if err != nil {
		return nil, err
	}
	return &Shoal{s, m}, nil
}

// APIKey is the key of the HTTP API.
const APIKey = "measurement"

func shoalDialect(a Audience) load.Dialect {
	d := load.Dialect{
		Path:  "/ws/uploads",
		Hello: a.hello,
		// Base acknowledges no subscription: whether all are subscribed, the server is asked.
		Ready: has(`"action":"auth_success"`),
		Data:  countProgress,
		Pong:  pong(`{"action":"ping"}`, `{"action":"pong"}`),
	}
	if a.Storm {
		d.Subprotocol = "shoal.v1"
		d.Ready = has(`"action":"resumed"`)
		d.Hello = func(i int) [][]byte {
			return [][]byte{
				a.hello(i)[0],
				fmt.Appendf(nil, `{"action":"resume","uploads":{%q:{"epoch":"before","offset":1}}}`, a.channelOf(i)),
			}
		}
	}
	return d
}

// TLSListener implements Secured with the listener that "shoal serve" uses.
func (s *Shoal) TLSListener(ln net.Listener, config *tls.Config) net.Listener {
	return server.TLSListener(ln, config)
}

// Publish publishes values.
func (s *Shoal) Publish(messages []message.Message) error {
	return Each(messages, func(m message.Message) error {
		_, err := s.Manager.Publish(context.Background(), m.Channel, Progress(m))
		return err
	})
}

// Progress is the message as an application hands it to the manager.
func Progress(m message.Message) manager.UploadProgress {
	return manager.UploadProgress{
		Status: manager.StatusAnalyzing, Stage: manager.StageVisionAnalysis, Percent: 42, Message: m.Text(),
		Timestamp: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
	}
}

// Subscriptions counts those of all connections.
func (s *Shoal) Subscriptions() int { return s.Manager.Stats().Subscriptions }

// Close ends the server before its manager.
func (s *Shoal) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	if err := s.Server.Close(ctx); err != nil {
		return err
	}
	return s.Manager.Close(ctx)
}

// closeTime bounds the end of a system whose clients are gone.
const closeTime = 10 * time.Second
