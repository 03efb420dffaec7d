package systems

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/message"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/worker"
	"github.com/shoal-go/shoal/internal/load"
)

// hub is the part of a system that its library leaves to the application: which connections follow which channel, the
// conversation with a client, and the end of all goroutines. Its methods may be called from any goroutine.
type hub[C comparable] struct {
	goroutines
	followers[C]
	// serve upgrades a connection.
	serve http.HandlerFunc
	// deliver passes a message on to the followers of its channel, which it must not change or keep.
	deliver func(followers []C, payload []byte) error
}

// followers are the connections that follow channels, one each. Its methods may be called from any goroutine.
type followers[C comparable] struct {
	mu       sync.RWMutex // protects the fields below; held for reading while a message is passed on
	of       map[string][]C
	channels map[C]string // that the connections follow
}

// join makes a connection follow a channel.
func (h *followers[C]) join(channel string, c C) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.of == nil {
		h.of, h.channels = map[string][]C{}, map[C]string{}
	}
	h.of[channel] = append(h.of[channel], c)
	h.channels[c] = channel
}

// leave removes a connection from the channel that it follows, if it follows one.
func (h *followers[C]) leave(c C) {
	h.mu.Lock()
	defer h.mu.Unlock()
	channel, ok := h.channels[c]
	if !ok {
		return
	}
	delete(h.channels, c)
	followers := h.of[channel]
	last := len(followers) - 1
	followers[slices.Index(followers, c)] = followers[last]
	clear(followers[last:])
	h.of[channel] = followers[:last]
}

func (h *hub[C]) Handler() http.Handler { return h.counted(h.serve) }

func (h *hub[C]) Publish(messages []message.Message) error {
	return Each(messages, func(m message.Message) error {
		payload := m.JSON()
		h.mu.RLock()
		defer h.mu.RUnlock()
		return h.deliver(h.of[m.Channel], payload)
	})
}

func (h *followers[C]) Subscriptions() int {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return len(h.channels)
}

// answer returns the answer to a client's message, and reports whether the client has subscribed with it.
func (h *hub[C]) answer(c C, data []byte) (reply []byte, subscribed bool, err error) {
	reply, channel, err := answer(data)
	if channel != "" {
		h.join(channel, c)
	}
	return reply, channel != "", err
}

// Each publishes messages one after the other.
func Each(messages []message.Message, publish func(message.Message) error) error {
	for _, m := range messages {
		if err := publish(m); err != nil {
			return err
		}
	}
	return nil
}

// goroutines counts the goroutines of a system. Unlike a sync.WaitGroup it may grow from 0 while Close waits, since
// connections come at any time.
type goroutines struct{ running atomic.Int64 }

// start starts a goroutine.
func (g *goroutines) start(f func()) {
	g.running.Add(1)
	go func() {
		defer g.running.Add(-1)
		f()
	}()
}

// counted returns a handler whose goroutines count while they serve.
func (g *goroutines) counted(serve http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.running.Add(1)
		defer g.running.Add(-1)
		serve(w, r)
	})
}

// Close blocks until all have ended.
func (g *goroutines) Close() error {
	return worker.Poll(context.Background(), func() bool { return g.running.Load() == 0 })
}

// path is where the adapters upgrade.
const path = "/ws"

// answer returns the answer to a message of a client, and the channel that it subscribes to, if it does. Every adapter
// whose library has no protocol of its own speaks these few messages: authentication, then one subscription, each
// acknowledged.
func answer(data []byte) (reply []byte, channel string, err error) {
	var r struct {
		Type     string `json:"type"`
		Token    string `json:"token"`
		Action   string `json:"action"`
		UploadID string `json:"upload_id"`
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, "", fmt.Errorf("systems: a client's message is not JSON: %w", err)
	}
	switch {
	case r.Type == "auth" && r.Token != "":
		return fmt.Appendf(nil, `{"action":"auth_success","user_id":%q}`, r.Token), "", nil
	case r.Action == "subscribe_upload" && r.UploadID != "":
		return fmt.Appendf(nil, `{"action":"subscribed","upload_id":%q}`, r.UploadID), r.UploadID, nil
	}
	return nil, "", errors.New("systems: a client's message is neither auth nor subscribe_upload")
}

// hello returns the messages of client i of such an audience.
func (a Audience) hello(i int) [][]byte {
	return [][]byte{
		fmt.Appendf(nil, `{"type":"auth","token":"user-%d"}`, i),
		fmt.Appendf(nil, `{"action":"subscribe_upload","upload_id":%q}`, a.channelOf(i)),
	}
}

// countProgress counts a published message. Those of all systems without an envelope begin alike.
var countProgress = load.Beginning(`{"action":"upload_p`)

// plain is the dialect of the adapters that speak these messages.
func plain(a Audience) load.Dialect {
	return load.Dialect{Path: path, Hello: a.hello, Ready: has(`"action":"subscribed"`), Data: countProgress}
}

// has returns a function that reports whether a payload contains a text.
func has(text string) func([]byte) bool {
	return func(payload []byte) bool { return bytes.Contains(payload, []byte(text)) }
}

// pong returns a function that answers a ping, which may end in a line break.
func pong(ping, answer string) func([]byte) []byte {
	return func(payload []byte) []byte {
		if string(bytes.TrimSpace(payload)) != ping {
			return nil
		}
		return []byte(answer)
	}
}

// userOf reads the user from a token.
func userOf(token string) (string, error) {
	if !strings.HasPrefix(token, "user-") {
		return "", errors.New("systems: the token is not of the form user-N")
	}
	return token, nil
}
