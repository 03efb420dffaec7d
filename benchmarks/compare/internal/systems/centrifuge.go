package systems

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/centrifugal/centrifuge"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/message"
	"github.com/shoal-go/shoal/internal/load"
)

// centrifugeSystem is centrifugal/centrifuge with its memory broker and the JSON protocol of its own, whose
// envelope adds some 60 bytes to a message. Nothing of history, positioning or presence is on. The settings:
//
//   - ReplyWithoutQueue, so that connecting and subscribing wait for no writer, and no WriteDelay;
//   - UseWriteBufferPool and ProcessCommandsOffReadLoop, both documented as saving memory with many
//     connections that are mostly idle, and read buffers of 512 bytes, as everywhere here;
//   - no compression, no logging, a Prometheus registry of its own, which it demands.
//
// Without a delay too, it joins up to 16 messages (MaxMessagesInFrame, the default) that already wait for a
// client into one WebSocket message, one a line.
//
// The variant centrifuge-batched turns its write batching on: WriteDelay collects messages for a client
// within that time, here without a limit (MaxMessagesInFrame -1), and WriteWithTimer does so by a timer
// instead of a goroutine for each connection. The delay is the 100 ms of the documentation's example: long
// enough that a burst to thousands of clients has been queued in full before the first write, which makes it
// the best setting for S1; its cost shows in S2 and S4.
type centrifugeSystem struct {
	node    *centrifuge.Node
	handler http.Handler
}

// The settings of a connection.
var (
	unbatched = centrifuge.ConnectReply{ReplyWithoutQueue: true}
	batched   = centrifuge.ConnectReply{
		ReplyWithoutQueue: true, WriteDelay: 100 * time.Millisecond, MaxMessagesInFrame: -1, WriteWithTimer: true,
	}
)

func newCentrifuge(settings centrifuge.ConnectReply) (System, error) {
	node, err := centrifuge.New(centrifuge.Config{
		LogLevel: centrifuge.LogLevelNone,
		Metrics:  centrifuge.MetricsConfig{RegistererGatherer: prometheus.NewRegistry()},
	})
	if err != nil {
		return nil, err
	}
	node.OnConnecting(func(_ context.Context, e centrifuge.ConnectEvent) (centrifuge.ConnectReply, error) {
		user, err := userOf(e.Token)
		if err != nil {
			return centrifuge.ConnectReply{}, centrifuge.DisconnectInvalidToken
		}
		reply := settings
		reply.Credentials = &centrifuge.Credentials{UserID: user}
		return reply, nil
	})
	node.OnConnect(func(c *centrifuge.Client) {
		c.OnSubscribe(func(_ centrifuge.SubscribeEvent, cb centrifuge.SubscribeCallback) {
			cb(centrifuge.SubscribeReply{}, nil)
		})
	})
	if err := node.Run(); err != nil {
		return nil, err
	}
	handler := centrifuge.NewWebsocketHandler(node, centrifuge.WebsocketConfig{
		ReadBufferSize: smallReads, UseWriteBufferPool: true, ProcessCommandsOffReadLoop: true,
	})
	return &centrifugeSystem{node, handler}, nil
}

func centrifugeDialect(a Audience) load.Dialect {
	return load.Dialect{
		Path: path,
		Hello: func(i int) [][]byte {
			return [][]byte{
				fmt.Appendf(nil, `{"id":1,"connect":{"token":"user-%d"}}`, i),
				fmt.Appendf(nil, `{"id":2,"subscribe":{"channel":%q}}`, a.channelOf(i)),
			}
		},
		Ready: has(`"subscribe":`),
		Data:  countPublications,
		Pong:  pong(`{}`, `{}`),
	}
}

// publication is the beginning of a line that carries a message.
const publication = `{"push":`

// countPublications counts the published messages in a WebSocket message of centrifuge's, one a line. Its latency is that
// of the first one, which has waited longest.
func countPublications(payload []byte) int {
	n := bytes.Count(payload, []byte("\n"+publication))
	if bytes.HasPrefix(payload, []byte(publication)) {
		n++
	}
	return n
}

func (s *centrifugeSystem) Handler() http.Handler { return s.handler }

func (s *centrifugeSystem) Publish(messages []message.Message) error {
	return Each(messages, func(m message.Message) error {
		_, err := s.node.Publish(m.Channel, m.JSON())
		return err
	})
}

// Subscriptions asks the clients: the hub counts a subscription a moment before anything is delivered to it.
func (s *centrifugeSystem) Subscriptions() int {
	n := 0
	for _, client := range s.node.Hub().Connections() {
		n += len(client.Channels())
	}
	return n
}

func (s *centrifugeSystem) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	return s.node.Shutdown(ctx)
}
