package webhook

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"
)

// Kind is a kind of event.
type Kind string

// The kinds of events. Followed and Unfollowed are about an upload and this node: its first follower has come, or there
// has been none for a moment.
const (
	Connected    Kind = "connected"
	Disconnected Kind = "disconnected"
	Subscribed   Kind = "subscribed"
	Unsubscribed Kind = "unsubscribed"
	Followed     Kind = "upload_followed"
	Unfollowed   Kind = "upload_unfollowed"
)

// Kinds returns all kinds.
func Kinds() []Kind {
	return []Kind{Connected, Disconnected, Subscribed, Unsubscribed, Followed, Unfollowed}
}

// ParseKinds returns the kinds that names list, all of them for an empty list. The error names the first unknown one.
func ParseKinds(names []string) (kinds []Kind, err error) {
	for _, name := range names {
		if !slices.Contains(Kinds(), Kind(name)) {
			return nil, fmt.Errorf("is %q, want one of %s", name, strings.Trim(fmt.Sprint(Kinds()), "[]"))
		}
		kinds = append(kinds, Kind(name))
	}
	if len(kinds) == 0 {
		kinds = Kinds()
	}
	return kinds, nil
}

// Event is an entry of a request to the service.
type Event struct {
	// ID is unique: a repeated batch has the same ids.
	ID   string    `json:"id"`
	Kind Kind      `json:"event"`
	At   time.Time `json:"at"`

	UserID   string `json:"user_id,omitempty"`
	UploadID string `json:"upload_id,omitempty"`
	// Connection names a connection, which no other one has, also after a restart.
	Connection string `json:"connection,omitempty"`
	// Transport is websocket or sse, Subprotocol is shoal.v1 or empty, and Remote the client's address; of Connected.
	Transport   string `json:"transport,omitempty"`
	Subprotocol string `json:"subprotocol,omitempty"`
	Remote      string `json:"remote,omitempty"`
	// Code and Reason are why a connection or a subscription has ended. Code 0: the client left by itself.
	Code   uint16 `json:"code,omitempty"`
	Reason string `json:"reason,omitempty"`
}

// batch is the body of a request.
type batch struct {
	Node   string  `json:"node"`
	Events []Event `json:"events"`
}

// checkFollowers is how often uploads are checked for followers. A page that reloads does not leave its upload without.
const checkFollowers = time.Second

// Hooks are hooks of a server that send events.
type Hooks struct {
	sender *Sender
	// followers returns the number of followers that an upload has on this node.
	followers func(uploadID string) int
	last      atomic.Uint64
	stop      chan struct{}
	running   sync.WaitGroup

	mu sync.Mutex // protects the fields below; nothing blocks under it, and only the sender is locked
	// connections are the names of the open connections, followed the uploads that were reported as followed.
	connections map[*server.Client]string
	followed    map[string]struct{}
	closed      bool
}

// NewHooks returns hooks that send to a Sender, to be closed with Close before it.
func NewHooks(sender *Sender, followers func(uploadID string) int) *Hooks {
	h := &Hooks{
		sender: sender, followers: followers, stop: make(chan struct{}),
		connections: make(map[*server.Client]string), followed: make(map[string]struct{}),
	}
	h.running.Go(h.watch)
	return h
}

// Set sets the hooks of the options.
func (h *Hooks) Set(o *server.Options) {
	o.OnConnect, o.OnDisconnect = h.connected, h.disconnected
	o.OnSubscribe, o.OnUnsubscribe = h.subscribed, h.unsubscribed
}

// Close ends the goroutine, and reports the uploads that were followed until then as no longer followed: the node ends,
// and with it its connections. Further calls have no effect.
func (h *Hooks) Close() {
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return
	}
	h.closed = true
	close(h.stop)
	h.mu.Unlock()
	h.running.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	for uploadID := range h.followed {
		h.unfollowLocked(uploadID)
	}
}

func (h *Hooks) connected(c *server.Client) {
	name := h.sender.id(h.last.Add(1))
	h.mu.Lock()
	h.connections[c] = name
	h.mu.Unlock()
	h.sender.Send(Event{
		Kind: Connected, UserID: c.UserID(), Connection: name, Transport: c.Transport(), Subprotocol: c.Subprotocol(),
		Remote: c.RemoteAddr().String(),
	})
}

func (h *Hooks) disconnected(c *server.Client, reason manager.CloseReason) {
	h.mu.Lock()
	name := h.connections[c]
	delete(h.connections, c)
	h.mu.Unlock()
	h.sender.Send(Event{
		Kind: Disconnected, UserID: c.UserID(), Connection: name, Code: reason.Code, Reason: reason.Text,
	})
}

func (h *Hooks) name(c *server.Client) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.connections[c]
}

func (h *Hooks) subscribed(c *server.Client, s server.Subscription) {
	h.sender.Send(Event{
		Kind: Subscribed, UserID: c.UserID(), UploadID: s.UploadID, Connection: h.name(c), Reason: s.Reason.String(),
	})
	h.follow(s.UploadID)
}

// follow reports an upload as followed, unless it is. After Close it has no effect: nothing would report the end.
func (h *Hooks) follow(uploadID string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, known := h.followed[uploadID]; !known && !h.closed {
		h.followed[uploadID] = struct{}{}
		h.sender.Send(Event{Kind: Followed, UploadID: uploadID}) // under the lock, so that the events are in order
	}
}

// unfollowLocked reports an upload as no longer followed; h.mu is held.
func (h *Hooks) unfollowLocked(uploadID string) {
	delete(h.followed, uploadID)
	h.sender.Send(Event{Kind: Unfollowed, UploadID: uploadID})
}

func (h *Hooks) unsubscribed(c *server.Client, s server.Subscription) {
	h.sender.Send(Event{
		Kind: Unsubscribed, UserID: c.UserID(), UploadID: s.UploadID, Connection: h.name(c), Reason: s.Reason.String(),
	})
}

// watch reports the uploads that have lost their last follower.
func (h *Hooks) watch() {
	tick := time.NewTicker(checkFollowers)
	defer tick.Stop()
	for {
		select {
		case <-h.stop:
			return
		case <-tick.C:
			h.check()
		}
	}
}

func (h *Hooks) check() {
	h.mu.Lock()
	uploads := make([]string, 0, len(h.followed))
	for uploadID := range h.followed {
		uploads = append(uploads, uploadID)
	}
	h.mu.Unlock()
	for _, uploadID := range uploads {
		if h.followers(uploadID) > 0 {
			continue
		}
		h.mu.Lock()
		h.unfollowLocked(uploadID)
		h.mu.Unlock()
		if h.followers(uploadID) > 0 { // one came between the two, and found the upload reported as followed
			h.follow(uploadID)
		}
	}
}
