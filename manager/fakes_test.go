package manager

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/shoal-go/shoal/internal/frame"
)

// fakeConn is a connection that records its frames. Its hooks are set before it is connected.
type fakeConn struct {
	ConnTime

	// onSend returns the outcome of a frame; nil queues it. onClose is called with each Close.
	onSend  func(*Frame) Outcome
	onClose func(CloseReason)

	mu sync.Mutex
	// frames are protected by mu. That the connection was closed shows as a close frame, in its turn.
	frames []*Frame
}

func (c *fakeConn) Send(f *Frame) Outcome {
	if f != nil && !f.For(frame.V1) {
		return Queued
	}
	c.mu.Lock()
	c.frames = append(c.frames, f)
	c.mu.Unlock()
	if c.onSend != nil {
		return c.onSend(f)
	}
	return Queued
}

func (c *fakeConn) Close(reason CloseReason) {
	c.mu.Lock()
	c.frames = append(c.frames, frame.NewClose(reason.Code, reason.Text))
	c.mu.Unlock()
	if c.onClose != nil {
		c.onClose(reason)
	}
}

// closed returns the reasons for which the connection was closed: one, if all is well.
func (c *fakeConn) closed() []CloseReason {
	c.mu.Lock()
	defer c.mu.Unlock()
	var reasons []CloseReason
	for _, f := range c.frames {
		if body := f.Body(); f.Opcode() == frame.Close {
			reasons = append(reasons, CloseReason{binary.BigEndian.Uint16(body), string(body[2:])})
		}
	}
	return reasons
}

// received returns the frames of a shoal.v1 connection as its client parses them.
func (c *fakeConn) received(t tester) []received {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]received, len(c.frames))
	for i, f := range c.frames {
		all[i] = read(t, f)
	}
	return all
}

// offsets returns the offsets of the messages that came, in the order in which they came.
func (c *fakeConn) offsets() []uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []uint64
	for _, f := range c.frames {
		if f.Offset() > 0 {
			all = append(all, f.Offset())
		}
	}
	return all
}

// received is a frame as a client of shoal.v1 reads it.
type received struct {
	Action string `json:"action"`
	// UploadID is the upload id of the frame if the message itself has none.
	UploadID string `json:"upload_id"`
	Position
	Recovered bool `json:"recovered"`
	Uploads   map[string]struct {
		Position
		Recovered bool `json:"recovered"`
	} `json:"uploads"`
	// published is the payload without the fields that the server adds.
	published string
}

func read(t tester, f *Frame) received {
	t.Helper()
	if f.Opcode() == frame.Close {
		return received{Action: "closed", published: string(f.Body()[2:])}
	}
	r := received{published: string(f.Body())}
	if err := json.Unmarshal(payload(f.Append(nil, frame.V1, 0)), &r); err != nil {
		t.Fatalf("a frame is not JSON: %v", err)
	}
	if r.UploadID == "" {
		r.UploadID = f.UploadID()
	}
	return r
}

// payload returns the bytes after the header of a server's frame.
func payload(wire []byte) []byte {
	header := 2
	switch wire[1] {
	case 126:
		header = 4
	case 127:
		header = 10
	}
	return wire[header:]
}

// open returns a running manager that is closed at the end of the test.
func open(t testing.TB, opt Options) *Manager {
	t.Helper()
	m, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := m.Close(ctx); err != nil {
			t.Errorf("closing the manager: %v", err)
		}
	})
	return m
}

// note returns a message of an application, which is an event, with a number to know it by.
func note(t tester, n int) Encoded {
	t.Helper()
	e, err := Parse("", fmt.Appendf(nil, `{"action":"note","n":%d}`, n), time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// tester is the common subset of testing.TB and rapid.TB.
type tester interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

// must stops a test at an error that it does not expect.
func must(t tester, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// connect registers a new connection of a user.
func connect(t testing.TB, m *Manager, userID string) *fakeConn {
	t.Helper()
	c := &fakeConn{}
	must(t, m.Connect(userID, c))
	return c
}

// publish publishes a number of messages to an upload and returns the position of the last.
func publish(t testing.TB, m *Manager, uploadID string, n int) (pos Position) {
	t.Helper()
	for i := range n {
		var err error
		if pos, err = m.Publish(context.Background(), uploadID, note(t, i)); err != nil {
			t.Errorf("publishing to %s: %v", uploadID, err)
		}
	}
	return pos
}

// newest returns an upload's newest message and position, and whether anything is known of it.
func newest(m *Manager, uploadID string) (Stored, Position, bool) {
	s, pos, err := m.Newest(context.Background(), uploadID)
	return s, pos, err == nil
}

// held returns the history of an upload on a node that is alone.
func held(m *Manager, uploadID string, since Position) History {
	h, err := m.History(context.Background(), uploadID, since)
	if err != nil {
		panic(err)
	}
	return h
}

// inTime runs work that must not hang.
func inTime(what string, work func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		work()
	}()
	select {
	case <-done:
	case <-time.After(time.Minute):
		panic(what + " hangs") // with the stacks of all goroutines
	}
}

// wantConsecutive fails unless the offsets are those from first to last, each once and in order.
func wantConsecutive(t tester, offsets []uint64, first, last uint64) {
	t.Helper()
	want := first
	for _, got := range offsets {
		if got != want {
			t.Fatalf("offset %d came where %d was due; received %v", got, want, offsets)
		}
		want++
	}
	if want != last+1 {
		t.Fatalf("received the offsets up to %d, want up to %d", want-1, last)
	}
}
