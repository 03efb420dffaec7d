package server

import (
	"encoding/base64"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/lxzan/gws"
)

// subprotocolV1 is the subprotocol of recovery, acknowledgements and errors.
const subprotocolV1 = "shoal.v1"

// readBuffer is the size of a connection's read buffer. It need hold no more than what clients send all the
// time; a larger message is read straight into a buffer of its own.
const readBuffer = 128

// newUpgraders returns the upgraders of connections without a subprotocol, and with shoal.v1.
func newUpgraders(opt Options) (base, v1 *gws.Upgrader) {
	option := func(subprotocols ...string) *gws.ServerOption {
		return &gws.ServerOption{
			ReadMaxPayloadSize: opt.MaxMessageBytes,
			CheckUtf8Enabled:   true,
			HandshakeTimeout:   opt.AuthTimeout,
			SubProtocols:       subprotocols,
			NewSession:         func() gws.SessionStorage { return noSession{} },
			Logger:             gwsLogger{opt.Logger},
		}
	}
	return gws.NewUpgrader(events{}, option()), gws.NewUpgrader(events{}, option(subprotocolV1))
}

// upgrade answers GET /ws/uploads.
func (s *Server) upgrade(w http.ResponseWriter, r *http.Request) {
	if !s.opt.originAllowed(r) {
		s.counters.refused.Add(1)
		http.Error(w, "origin not allowed", http.StatusForbidden)
		return
	}
	if problem := checkHandshake(r); problem != "" {
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set("Upgrade", "websocket")
		w.Header().Set("Sec-WebSocket-Version", "13")
		http.Error(w, problem, http.StatusUpgradeRequired)
		return
	}
	var id Identity
	if s.opt.Identify != nil {
		var err error
		if id, err = s.opt.Identify(r); err != nil {
			s.counters.refused.Add(1)
			http.Error(w, "not identified", http.StatusUnauthorized)
			return
		}
	}
	if !s.admit() {
		s.counters.refused.Add(1)
		w.Header().Set("Retry-After", retryAfter)
		http.Error(w, "no new connections now, try again later", http.StatusServiceUnavailable)
		return
	}
	c, err := s.accept(w, r)
	if err != nil {
		s.opt.Logger.Debug("upgrade failed", "remote", r.RemoteAddr, "error", err)
		s.dismiss()
		return
	}
	s.heart.add(c)
	token := bearer(r)
	s.crew.do(c, func(c *Client, _ Incoming) { c.begin(id, token) }, Incoming{})
	go c.run() // waited for by s.clients, which admit counted it in
}

// retryAfter is when who was refused should come back, in seconds.
const retryAfter = "5"

// accept turns the request's connection into a client's.
func (s *Server) accept(w http.ResponseWriter, r *http.Request) (*Client, error) {
	upgrader, v1 := s.base, offersV1(r.Header)
	if v1 {
		upgrader = s.v1
	}
	normalize(r.Header, v1)
	wire, reader, err := takeOver(w)
	if err != nil {
		http.Error(w, "this connection cannot become a WebSocket", http.StatusInternalServerError)
		return nil, err
	}
	socket, err := upgrader.UpgradeFromConn(wire, reader, r)
	if err != nil {
		return nil, err
	}
	c := newClient(s, wire, socket, v1, time.Now())
	wire.client = c
	return c, nil
}

// checkHandshake returns what is wrong with a WebSocket handshake, or "".
func checkHandshake(r *http.Request) string {
	switch key, err := base64.StdEncoding.DecodeString(r.Header.Get("Sec-WebSocket-Key")); {
	case !listed(r.Header, "Connection", ignoreCase("upgrade")) || !listed(r.Header, "Upgrade", ignoreCase("websocket")):
		return "this is a WebSocket endpoint: upgrade"
	case r.Header.Get("Sec-WebSocket-Version") != "13":
		return "Sec-WebSocket-Version must be 13"
	case err != nil || len(key) != 16:
		return "Sec-WebSocket-Key must be 16 bytes in base64"
	}
	return ""
}

// normalize puts the headers that gws looks at into the form in which it understands them.
func normalize(h http.Header, v1 bool) {
	h.Set("Connection", "Upgrade")
	h.Set("Upgrade", "websocket")
	h.Del("Sec-WebSocket-Extensions")
	h.Del("Sec-WebSocket-Protocol")
	if v1 {
		h.Set("Sec-WebSocket-Protocol", subprotocolV1)
	}
}

func offersV1(h http.Header) bool {
	return listed(h, "Sec-WebSocket-Protocol", func(v string) bool { return v == subprotocolV1 })
}

// listed reports whether a header that is a list, perhaps over several lines, has a value that matches.
func listed(h http.Header, name string, match func(string) bool) bool {
	return slices.ContainsFunc(h.Values(name), func(line string) bool {
		return slices.ContainsFunc(strings.Split(line, ","), func(v string) bool {
			return match(strings.TrimSpace(v))
		})
	})
}

func ignoreCase(want string) func(string) bool {
	return func(v string) bool { return strings.EqualFold(v, want) }
}
