package managertest

import (
	"encoding/json"
	"slices"
	"sync"
	"time"

	"github.com/shoal-go/shoal/manager"
)

// TB is the part of testing.TB that the helpers use.
type TB interface {
	Helper()
	Fatalf(format string, args ...any)
}

// Message is a recorded message.
type Message struct {
	// JSON is the message as a client of shoal.v1 gets it, or of the base protocol for a connection of NewBaseConn.
	JSON string
	// UploadID is the upload that the message belongs to, "" if none.
	UploadID string
	// Position is the message's position, the zero value if it has none.
	Position manager.Position
	Class    manager.Class
}

// Action returns the message's action, "" if it has none.
func (m Message) Action() string {
	var fields struct{ Action string }
	_ = json.Unmarshal([]byte(m.JSON), &fields)
	return fields.Action
}

// Conn is a [manager.Conn] that records messages. Its methods may be called from any number of goroutines. The zero
// value is a connection of the base protocol.
type Conn struct {
	variant manager.Variant

	mu sync.Mutex // protects the fields below; nothing blocks under it but the manager's own callers
	// changed is closed when the fields below change; nil unless somebody waits for that.
	changed  chan struct{}
	messages []Message
	reasons  []manager.CloseReason
	// answer is the result of Send, nil for Queued.
	answer func(Message) manager.Outcome
	// blocked is not nil while Send blocks, and closed to release it.
	blocked chan struct{}
	stuck   bool
	// done is made by the first call of Done.
	done           chan struct{}
	ended, aborted bool
	// holds counts the calls of HoldReplays without ReleaseReplays. held are the messages that wait for the answer, those
	// of the uploads in replayed.
	holds    int
	replayed map[string]struct{}
	held     []*manager.Frame
}

// The interfaces of the manager that a Conn implements.
var (
	_ manager.Conn            = (*Conn)(nil)
	_ manager.Terminator      = (*Conn)(nil)
	_ manager.PositionTracker = (*Conn)(nil)
	_ manager.Replayer        = (*Conn)(nil)
)

// NewConn returns a connection that gets messages as a client of shoal.v1 does.
func NewConn() *Conn { return &Conn{variant: manager.VariantV1} }

// NewBaseConn returns a connection that gets messages as a client of the base protocol does.
func NewBaseConn() *Conn { return &Conn{variant: manager.VariantBase} }

// Send records a message and returns the outcome that Answer has set. After Close it returns manager.Dropped and
// records nothing.
func (c *Conn) Send(f *manager.Frame) manager.Outcome {
	if !f.For(c.variant) {
		return manager.Queued // the client misses nothing
	}
	c.mu.Lock()
	blocked := c.blocked
	c.mu.Unlock()
	if blocked != nil {
		<-blocked
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, found := c.replayed[f.UploadID()]; found {
		c.held = append(c.held, f)
		return manager.Queued
	}
	return c.record(f)
}

// Replay records stored messages of an upload. Between HoldReplays and ReleaseReplays they wait for the answer, and the
// upload's live messages with them.
func (c *Conn) Replay(r manager.Replay) manager.Outcome {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.holds > 0 {
		c.replayed[r.UploadID] = struct{}{}
		if !r.Snapshot { // the frames replace the messages
			c.held = slices.DeleteFunc(c.held, func(f *manager.Frame) bool {
				return f.UploadID() == r.UploadID && (f.Offset() > 0 || slices.Contains(r.Frames, f))
			})
		}
		c.held = append(c.held, r.Frames...)
		return manager.Queued
	}
	outcome := manager.Queued
	for _, f := range r.Frames {
		outcome = c.record(f)
	}
	return outcome
}

// CancelReplay drops the messages of an upload that wait for an answer.
func (c *Conn) CancelReplay(uploadID string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = slices.DeleteFunc(c.held, func(f *manager.Frame) bool {
		return f.UploadID() == uploadID && f.For(manager.VariantBase)
	})
}

// HoldReplays delays replays until ReleaseReplays.
func (c *Conn) HoldReplays() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.holds++; c.replayed == nil {
		c.replayed = make(map[string]struct{})
	}
}

// ReleaseReplays records the answer, then the messages that have waited for it.
func (c *Conn) ReleaseReplays(answer *manager.Frame) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if answer != nil {
		c.record(answer)
	}
	if c.holds--; c.holds > 0 {
		return
	}
	for _, f := range c.held {
		c.record(f)
	}
	c.held, c.replayed = nil, nil
}

// record records a message; c.mu is held.
func (c *Conn) record(f *manager.Frame) manager.Outcome {
	if len(c.reasons) > 0 || c.aborted {
		return manager.Dropped
	}
	if !f.For(c.variant) {
		return manager.Queued
	}
	m := Message{
		JSON: string(f.AppendPayload(nil, c.variant, 0)), UploadID: f.UploadID(), Class: f.Class(),
	}
	if offset := f.Offset(); offset > 0 { // an acknowledgement has an epoch alone
		m.Position = manager.Position{Epoch: f.Epoch(), Offset: offset}
	}
	outcome := manager.Queued
	if c.answer != nil {
		outcome = c.answer(m)
	}
	if outcome != manager.Dropped {
		c.messages = append(c.messages, m)
		c.change()
	}
	return outcome
}

// Close records the reason. The connection has ended then, unless Stick was called.
func (c *Conn) Close(reason manager.CloseReason) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reasons = append(c.reasons, reason)
	if !c.stuck {
		c.end()
	}
	c.change()
}

// Abort ends the connection.
func (c *Conn) Abort() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.aborted = true
	c.end()
	c.change()
}

// Done returns a channel that is closed when the connection has ended.
func (c *Conn) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done == nil {
		c.done = make(chan struct{})
		if c.ended {
			close(c.done)
		}
	}
	return c.done
}

// TracksPositions reports whether the connection is of shoal.v1.
func (c *Conn) TracksPositions() bool { return c.variant == manager.VariantV1 }

// Answer sets the function that returns the outcome of each message; it must not block, or call the manager or the
// connection. A message for which it returns manager.Dropped is not recorded. nil: manager.Queued.
func (c *Conn) Answer(outcome func(Message) manager.Outcome) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answer = outcome
}

// Block makes Send block until release is called, as a faulty connection would: publishers to its uploads then block
// too, and Close of the manager even beyond its context. release may be called several times.
func (c *Conn) Block() (release func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	blocked := make(chan struct{})
	c.blocked = blocked
	return sync.OnceFunc(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.blocked == blocked {
			c.blocked = nil
		}
		close(blocked)
	})
}

// Stick makes the connection go on after Close until Abort, like the connection of a client that does not read.
func (c *Conn) Stick() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stuck = true
}

// Messages returns the messages so far.
func (c *Conn) Messages() []Message {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.messages)
}

// Reasons returns the reasons of the calls of Close, normally one.
func (c *Conn) Reasons() []manager.CloseReason {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.reasons)
}

// Aborted reports whether Abort was called.
func (c *Conn) Aborted() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.aborted
}

// change wakes WaitFor; c.mu is held.
func (c *Conn) change() {
	if c.changed != nil {
		close(c.changed)
		c.changed = nil
	}
}

// end ends the connection; c.mu is held.
func (c *Conn) end() {
	if !c.ended && c.done != nil {
		close(c.done)
	}
	c.ended = true
}

// patience is how long the helpers wait for a condition before they fail the test.
const patience = 30 * time.Second

// WaitFor blocks until a condition of the connection holds, which it checks after each change. It fails the test after
// 30 seconds, with the name.
func (c *Conn) WaitFor(t TB, name string, condition func(*Conn) bool) {
	t.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for {
		c.mu.Lock()
		if c.changed == nil {
			c.changed = make(chan struct{})
		}
		changed := c.changed
		c.mu.Unlock()
		if condition(c) {
			return
		}
		select {
		case <-changed:
		case <-timeout.C:
			t.Fatalf("managertest: %s: not within %v; %d messages, closed with %v", name, patience, len(c.Messages()),
				c.Reasons())
			return
		}
	}
}

// Wait blocks until at least n messages have come, and returns all of them. It fails the test after 30 seconds.
func (c *Conn) Wait(t TB, n int) []Message {
	t.Helper()
	c.WaitFor(t, "messages have not come", func(c *Conn) bool { return len(c.Messages()) >= n })
	return c.Messages()
}

// WaitClosed blocks until the manager has closed the connection, and returns the reason. It fails the test after 30
// seconds.
func (c *Conn) WaitClosed(t TB) manager.CloseReason {
	t.Helper()
	c.WaitFor(t, "the connection is not closed", func(c *Conn) bool { return len(c.Reasons()) > 0 })
	reasons := c.Reasons()
	if len(reasons) == 0 {
		return manager.CloseReason{} // the test has failed
	}
	return reasons[0]
}
