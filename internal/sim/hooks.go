package sim

import (
	"fmt"
	"strings"
	"sync"

	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"
)

// observed holds the reports of a server's hooks about one connection. All methods may be called from any number
// of goroutines.
type observed struct {
	account *account

	mu                      sync.Mutex // protects the fields below
	connected, disconnected bool
	panicked                bool
	claims                  map[int]bool
	// begun holds, for each claim on an upload, the number of messages that the upload had had when OnSubscribe was
	// called.
	begun map[int][]int
	// problem describes the first call that was out of order.
	problem string
}

func newObserved(a *account) *observed {
	return &observed{account: a, claims: map[int]bool{}, begun: map[int][]int{}}
}

// hooks sets the hooks of a node's server.
func hooks(n *node, opt *server.Options) {
	of := func(c *server.Client) *observed {
		return c.Identity().Data.(*observed) // authenticate sets no other
	}
	opt.OnConnect = func(c *server.Client) { of(c).connect() }
	opt.OnDisconnect = func(c *server.Client, _ manager.CloseReason) { of(c).disconnect() }
	opt.OnMessage = func(c *server.Client, _ server.Incoming) bool {
		n.panics.Add(1)
		of(c).panic()
		panic("sim: a hook that panics")
	}
	opt.OnSubscribe = func(c *server.Client, s server.Subscription) { of(c).claim(s.UploadID, true) }
	opt.OnUnsubscribe = func(c *server.Client, s server.Subscription) { of(c).claim(s.UploadID, false) }
}

// note describes a call that must not come now; the lock is held.
func (o *observed) note(format string, args ...any) {
	if o.problem == "" {
		o.problem = fmt.Sprintf(format, args...)
	}
}

func (o *observed) connect() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.connected {
		o.note("OnConnect was called twice")
	}
	o.connected = true
}

func (o *observed) disconnect() {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case !o.connected, o.disconnected:
		o.note("OnDisconnect was called twice, or without OnConnect")
	case len(o.claims) > 0:
		o.note("OnDisconnect was called before OnUnsubscribe for %d claims", len(o.claims))
	}
	o.disconnected = true
}

// claim handles OnSubscribe and OnUnsubscribe.
func (o *observed) claim(id string, begins bool) {
	upload, ok := uploadNumber(id)
	last := o.account.last(upload)
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case !ok:
		o.note("a claim on %q, which nobody has asked for", id)
	case !o.connected, o.disconnected:
		o.note("a claim on upload %d changed before OnConnect or after OnDisconnect", upload)
	case begins == o.claims[upload]:
		o.note("OnSubscribe or OnUnsubscribe was called twice in a row for upload %d", upload)
	case begins:
		o.claims[upload] = true
		o.begun[upload] = append(o.begun[upload], last)
	default:
		delete(o.claims, upload)
	}
}

// floor returns the number of messages that an upload had had when a claim on it, counted from 1, was made. It reports
// false if that claim is not known to have been made.
func (o *observed) floor(upload, claim int) (seq int, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if claim > len(o.begun[upload]) {
		return 0, false
	}
	return o.begun[upload][claim-1], true
}

// status reports whether a hook has panicked, and describes the first call that was out of order.
func (o *observed) status() (panicked bool, problem string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.panicked, o.problem
}

// claimed reports whether the connection has a claim on an upload.
func (o *observed) claimed(upload int) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.claims[upload]
}

// panic notes that a hook is about to panic.
func (o *observed) panic() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.panicked = true
}

// register makes the hooks of the node report about a connection, and returns the last part of its tokens.
func (n *node) register(o *observed) string {
	id := fmt.Sprint(n.connections.Add(1))
	n.observed.Store(id, o)
	return id
}

// observedBy returns the argument of register for a token.
func (n *node) observedBy(text string) *observed {
	o, _ := n.observed.Load(text[strings.LastIndexByte(text, '/')+1:])
	return o.(*observed) // tokens are made with the result of register
}
