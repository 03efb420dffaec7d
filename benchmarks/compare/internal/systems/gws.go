package systems

import (
	"errors"
	"io"
	"log/slog"
	"net/http"

	"github.com/lxzan/gws"
)

// gwsSystem is lxzan/gws with its Broadcaster, which encodes a message once and hands the frame to the write queue of each
// connection, as its documentation shows for broadcasting. A message with one receiver goes through WriteAsync, which is
// the same without the shared frame. The settings:
//
//   - ReadLoop on a goroutine of its own, as the documentation has it, so that the request can be collected;
//   - ReadBufferSize 512: the clients send little, and memory per connection counts (its default is 4096);
//   - no compression, no UTF-8 check, no parallel handling of a connection's messages: the defaults, and the fastest.
//
// The variant gws-direct has no hand-over: WriteMessage to each connection in turn, on the goroutine that publishes. It is
// the shortest way through a library; a client that does not read stops all others, so it takes part in S11 only.
type gwsSystem struct {
	gws.BuiltinEventHandler
	hub[*gws.Conn]
}

// smallReads is the size of a read buffer where one may be chosen: the clients send little.
const smallReads = 512

func gwsOption() *gws.ServerOption {
	return &gws.ServerOption{ReadBufferSize: smallReads, Logger: quiet{}}
}

// quiet drops the log of gws: clients leave on purpose here.
type quiet struct{}

func (quiet) Error(v ...any) { slog.Debug("gws", "error", v) }

// newGWS returns the system with a way to deliver.
func newGWS(deliver func([]*gws.Conn, []byte) error) (System, error) {
	s := &gwsSystem{}
	s.deliver, s.serve = deliver, upgradeGWS(s, &s.goroutines)
	return s, nil
}

// upgradeGWS returns a handler that upgrades and reads from each connection on a goroutine.
func upgradeGWS(events gws.Event, g *goroutines) http.HandlerFunc {
	upgrader := gws.NewUpgrader(events, gwsOption())
	return func(w http.ResponseWriter, r *http.Request) {
		if conn, err := upgrader.Upgrade(w, r); err == nil {
			g.start(conn.ReadLoop)
		}
	}
}

// OnMessage has the conversation with a client.
func (s *gwsSystem) OnMessage(conn *gws.Conn, m *gws.Message) {
	defer m.Close()
	reply, _, err := s.answer(conn, m.Bytes())
	if err != nil {
		conn.WriteClose(1008, nil)
		return
	}
	conn.WriteMessage(gws.OpcodeText, reply) //nolint:errcheck // an error closes the connection
}

// OnClose removes a client.
func (s *gwsSystem) OnClose(conn *gws.Conn, _ error) { s.leave(conn) }

func broadcastGWS(to []*gws.Conn, payload []byte) error {
	if len(to) == 1 {
		to[0].WriteAsync(gws.OpcodeText, payload, nil)
		return nil
	}
	b := gws.NewBroadcaster(gws.OpcodeText, payload)
	defer b.Close()
	for _, conn := range to {
		_ = b.Broadcast(conn) // fails for a connection that is closing
	}
	return nil
}

func writeGWS(to []*gws.Conn, payload []byte) error {
	for _, conn := range to {
		_ = conn.WriteMessage(gws.OpcodeText, payload) // as above
	}
	return nil
}

// newSilent returns a yardstick that publishes nothing.
func newSilent(serve func(*goroutines) http.HandlerFunc) (System, error) {
	s := &hub[struct{}]{deliver: func([]struct{}, []byte) error { return errors.New("systems: this yardstick publishes nothing") }}
	s.serve = serve(&s.goroutines)
	return s, nil
}

// upgradeOnly is gws that upgrades a connection, reads from it and does nothing else: the limit for S6. Its clients are
// ready once the upgrade is answered. The settings are those of gws.
func upgradeOnly(g *goroutines) http.HandlerFunc {
	return upgradeGWS(&gws.BuiltinEventHandler{}, g)
}

// emptyHandler is a handler of net/http that reads the body of a request and answers with nothing. No API over net/http can
// accept requests for less: the limit for S12.
func emptyHandler(*goroutines) http.HandlerFunc {
	return func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }
}
