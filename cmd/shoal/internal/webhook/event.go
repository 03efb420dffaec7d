package webhook

import (
	"fmt"
	"slices"
	"strings"
	"time"
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

// ParseKinds returns the kinds that names list, all of them if there are none. The error names the first unknown one.
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
	// Connection names a connection of this node.
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
