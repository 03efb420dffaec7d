package systems

import (
	"log/slog"
	"net/http"

	"github.com/lxzan/gws"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/message"
)

// gwsSystem is lxzan/gws with its Broadcaster, which encodes a message once and hands the frame to the write
// queue of each connection, as its documentation shows for broadcasting. A message with one receiver goes
// through WriteAsync, which is the same without the shared frame. The settings:
//
//   - ReadLoop on a goroutine of its own, as the documentation has it, so that the request can be collected;
//   - ReadBufferSize 512: the clients send little, and memory per connection counts (its default is 4096);
//   - no compression, no UTF-8 check, no parallel handling of a connection's messages: the defaults, and the
//     fastest.
type gwsSystem struct {
	gws.BuiltinEventHandler
	upgrader *gws.Upgrader
	*topics[*gws.Conn]
	*goroutines
	// direct: the publishing goroutine writes to each connection itself.
	direct bool
}

const gwsModule = "github.com/lxzan/gws"

func gwsEntry() Entry {
	return Entry{
		Name:    "gws",
		Kind:    Peer,
		Module:  gwsModule,
		About:   "lxzan/gws, Broadcaster (WriteAsync for one receiver)",
		New:     newGWS,
		Dialect: plain,
	}
}

// gwsDirectEntry is gws without any hand-over: WriteMessage to each connection in turn, on the goroutine that publishes.
// It is the shortest way through a library; a client that does not read stops all others, so it is in S11 alone.
func gwsDirectEntry() Entry {
	e := gwsEntry()
	e.Name, e.Part = "gws-direct", DirectOnly
	e.About = "lxzan/gws, WriteMessage to each connection by the goroutine that publishes"
	e.New = func() (System, error) { return openGWS(true), nil }
	return e
}

func newGWS() (System, error) { return openGWS(false), nil }

func openGWS(direct bool) *gwsSystem {
	s := &gwsSystem{topics: newTopics[*gws.Conn](), goroutines: newGoroutines(), direct: direct}
	s.upgrader = gws.NewUpgrader(s, gwsOption())
	return s
}

// smallReads is the size of a read buffer where one may be chosen: the clients send little.
const smallReads = 512

func gwsOption() *gws.ServerOption {
	return &gws.ServerOption{ReadBufferSize: smallReads, Logger: quiet{}}
}

// quiet drops the log of gws: clients leave on purpose here.
type quiet struct{}

func (quiet) Error(v ...any) { slog.Debug("gws", "said", v) }

// Handler upgrades.
func (s *gwsSystem) Handler() http.Handler {
	return s.goroutines.handler(func(w http.ResponseWriter, r *http.Request) {
		socket, err := s.upgrader.Upgrade(w, r)
		if err == nil {
			s.goroutines.start(socket.ReadLoop)
		}
	})
}

// OnMessage has the conversation with a client.
func (s *gwsSystem) OnMessage(socket *gws.Conn, m *gws.Message) {
	defer m.Close()
	reply, channel, err := answer(m.Bytes())
	if err != nil {
		socket.WriteClose(1008, nil)
		return
	}
	if channel != "" {
		socket.Session().Store("channel", channel)
		s.topics.join(channel, socket)
	}
	socket.WriteMessage(gws.OpcodeText, reply) //nolint:errcheck // an error closes the connection
}

// OnClose forgets a client.
func (s *gwsSystem) OnClose(socket *gws.Conn, _ error) {
	if channel, ok := socket.Session().Load("channel"); ok {
		s.topics.leave(channel.(string), socket) //nolint:forcetypeassert // stored above
	}
}

// Publish broadcasts.
func (s *gwsSystem) Publish(messages []message.Message) error {
	return Each(messages, func(m message.Message) error {
		payload := m.JSON()
		s.topics.with(m.Channel, func(followers []*gws.Conn) {
			switch {
			case s.direct:
				for _, socket := range followers {
					_ = socket.WriteMessage(gws.OpcodeText, payload) // fails for a connection that is closing
				}
			case len(followers) == 1:
				followers[0].WriteAsync(gws.OpcodeText, payload, nil)
			default:
				broadcast(payload, followers)
			}
		})
		return nil
	})
}

func broadcast(payload []byte, to []*gws.Conn) {
	b := gws.NewBroadcaster(gws.OpcodeText, payload)
	defer b.Close()
	for _, socket := range to {
		_ = b.Broadcast(socket) // fails for a connection that is closing
	}
}
