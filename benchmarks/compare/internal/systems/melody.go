package systems

import (
	"net/http"

	"github.com/gorilla/websocket"
	"github.com/olahol/melody"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/message"
)

// melodySystem is olahol/melody. The settings:
//
//   - Write to each session of the channel, as BroadcastMultiple does, but going on where a session
//     is closing. BroadcastFilter would ask about every session for every message instead;
//   - MessageBufferSize 256, the default: a burst fits into it, and melody drops the rest;
//   - a pool of write buffers in the upgrader (gorilla's documented way to less memory with many idle
//     connections), and read buffers of 512 bytes, as everywhere here (melody's default is 1024 each);
//   - no compression.
type melodySystem struct {
	melody *melody.Melody
	*topics[*melody.Session]
	*goroutines
}

func melodyEntry() Entry {
	return Entry{
		Name:    "melody",
		Kind:    Peer,
		Module:  "github.com/olahol/melody",
		About:   "olahol/melody, Write to each session of the channel, pooled write buffers",
		New:     newMelody,
		Dialect: plain,
	}
}

func newMelody() (System, error) {
	s := &melodySystem{melody: melody.New(), topics: newTopics[*melody.Session](), goroutines: newGoroutines()}
	s.melody.Upgrader = gorillaUpgrader()
	s.melody.HandleMessage(s.onMessage)
	s.melody.HandleDisconnect(func(session *melody.Session) {
		if channel, ok := session.Get("channel"); ok {
			s.topics.leave(channel.(string), session) //nolint:forcetypeassert // stored below
		}
	})
	return s, nil
}

func (s *melodySystem) onMessage(session *melody.Session, data []byte) {
	reply, channel, err := answer(data)
	if err != nil {
		_ = session.CloseWithMsg(websocket.FormatCloseMessage(websocket.ClosePolicyViolation, ""))
		return
	}
	if channel != "" {
		session.Set("channel", channel)
		s.topics.join(channel, session)
	}
	_ = session.Write(reply) // fails for a session that is closing
}

func (s *melodySystem) Handler() http.Handler {
	return s.goroutines.handler(func(w http.ResponseWriter, r *http.Request) {
		_ = s.melody.HandleRequest(w, r) // the error has been answered
	})
}

func (s *melodySystem) Publish(messages []message.Message) error {
	return Each(messages, func(m message.Message) error {
		payload := m.JSON()
		s.topics.with(m.Channel, func(followers []*melody.Session) {
			for _, session := range followers {
				_ = session.Write(payload) // fails for a session that is closing
			}
		})
		return nil
	})
}

// Close lets the handlers end first: melody's hub, once closed, no longer takes their farewell.
func (s *melodySystem) Close() error {
	_ = s.goroutines.Close()
	return s.melody.Close()
}
