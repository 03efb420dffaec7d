package manager

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/internal/frame"
	"github.com/shoal-go/shoal/internal/outbox"
)

// outboxConn is a connection with an outbox, as the server's.
type outboxConn struct{ box *outbox.Outbox }

func (c *outboxConn) Send(f *Frame) Outcome { return Queued + Outcome(c.box.Send(f)) }

func (c *outboxConn) Close(r CloseReason) { c.box.Close(frame.NewClose(r.Code, r.Text)) }

func (c *outboxConn) Replay(r Replay) Outcome {
	return Queued + Outcome(c.box.Recover(outbox.Replay{
		UploadID: r.UploadID, Frames: r.Frames, Source: r.Source,
	}))
}

func (c *outboxConn) CancelReplay(uploadID string) { c.box.CancelRecovery(uploadID) }

func (c *outboxConn) HoldReplays()                 { c.box.Hold() }
func (c *outboxConn) ReleaseReplays(answer *Frame) { c.box.Release(answer) }

// replayClient is the client of an outboxConn. It reads at a number of bytes per second and follows uploads by their
// positions, as a client of shoal.v1 does.
type replayClient struct {
	conn *outboxConn
	done chan struct{}

	mu sync.Mutex
	// positions are protected by mu, as are the fields below. An upload is in it from the first answer that names it.
	positions map[string]*clientPosition
	received  int
	problem   error
	closed    CloseReason
}

// clientPosition is the position of a client in an upload.
type clientPosition struct {
	Position
	unknown bool // until the next message: the last answer was not recovered
}

// connectReplay connects a client that has the given positions.
func connectReplay(
	t tester, m *Manager, p *outbox.Pool, user string, positions map[string]Position, bytesPerSecond int,
) *replayClient {
	t.Helper()
	here, there := net.Pipe()
	c := &replayClient{
		conn: &outboxConn{p.Open(there, outbox.Config{Variant: frame.V1})},
		done: make(chan struct{}), positions: map[string]*clientPosition{},
	}
	must(t, m.Connect(user, c.conn))
	go func() {
		defer close(c.done)
		defer c.conn.box.PeerGone()
		defer here.Close()
		c.read(slowReader{here, bytesPerSecond}, positions)
	}()
	return c
}

type slowReader struct {
	r              io.Reader
	bytesPerSecond int
}

func (s slowReader) Read(p []byte) (int, error) {
	n, err := s.r.Read(p[:min(len(p), max(1, s.bytesPerSecond/10))])
	<-time.After(time.Second * time.Duration(n) / time.Duration(s.bytesPerSecond))
	return n, err
}

func (c *replayClient) read(r io.Reader, since map[string]Position) {
	for {
		head := make([]byte, 2)
		if _, err := io.ReadFull(r, head); err != nil {
			return
		}
		length := int(head[1])
		if length > 125 {
			wide := make([]byte, 2+6*(length-126))
			if _, err := io.ReadFull(r, wide); err != nil {
				return
			}
			length = 0
			for _, b := range wide {
				length = length<<8 | int(b)
			}
		}
		body := make([]byte, length)
		if _, err := io.ReadFull(r, body); err != nil {
			return
		}
		c.mu.Lock()
		if frame.Opcode(head[0]&0xF) == frame.Close {
			c.closed = CloseReason{binary.BigEndian.Uint16(body), string(body[2:])}
		} else {
			c.receive(body, since)
		}
		c.mu.Unlock()
	}
}

func (c *replayClient) receive(body []byte, since map[string]Position) {
	var m struct {
		Action  string `json:"action"`
		Upload  string `json:"u"`
		Skipped uint64 `json:"skipped"`
		ackedUpload
		UploadID string                 `json:"upload_id"`
		Uploads  map[string]ackedUpload `json:"uploads"`
	}
	if err := json.Unmarshal(body, &m); err != nil {
		c.problem = errors.Join(c.problem, err)
		return
	}
	switch m.Action {
	case "resumed":
		for id, a := range m.Uploads {
			c.answer(id, a, since)
		}
	case "subscribed":
		c.answer(m.UploadID, m.ackedUpload, since)
	default:
		c.received++
		at := c.positions[m.Upload]
		switch {
		case at == nil: // another connection of the user follows the upload
		case at.unknown || m.Offset == at.Offset+1+m.Skipped:
			at.Offset, at.unknown = m.Offset, false
		default:
			c.problem = errors.Join(c.problem, fmt.Errorf("%s: message %d with %d skipped came after %d",
				m.Upload, m.Offset, m.Skipped, at.Offset))
			at.Offset = m.Offset
		}
	}
}

type ackedUpload struct {
	Position
	Recovered bool `json:"recovered"`
}

func (c *replayClient) answer(id string, a ackedUpload, since map[string]Position) {
	if a.Recovered {
		c.positions[id] = &clientPosition{Position: since[id]}
		return
	}
	c.positions[id] = &clientPosition{Position: a.Position, unknown: a.Offset > 0}
}

// now returns the client's positions.
func (c *replayClient) now() map[string]Position {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := map[string]Position{}
	for id, at := range c.positions {
		if !at.unknown {
			now[id] = at.Position
		}
	}
	return now
}

// wantUpToDate waits until the client has the newest position of each of its uploads.
func (c *replayClient) wantUpToDate(t tester, m *Manager) {
	t.Helper()
	behind := func() (id string, has, want Position) {
		c.mu.Lock()
		defer c.mu.Unlock()
		for id, at := range c.positions {
			if _, pos, ok := newest(m, id); ok && at.Position != pos {
				return id, at.Position, pos
			}
		}
		return "", Position{}, Position{}
	}
	for range 1 << 16 {
		if id, _, _ := behind(); id == "" {
			break
		}
		<-time.After(100 * time.Millisecond)
	}
	id, has, want := behind()
	c.mu.Lock()
	defer c.mu.Unlock()
	if id != "" || c.problem != nil || c.closed.Code != 0 {
		t.Fatalf("%s: the client is at %v, want %v; problem: %v; closed: %v", id, has, want, c.problem, c.closed)
	}
}

// uploadNote returns a message that names its upload.
func uploadNote(t tester, upload string, class string, size int) Encoded {
	t.Helper()
	e, err := Parse("", fmt.Appendf(nil, `{"action":"note","u":%q,"pad":"%*d"}`, upload, size, 0), time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	if class == "state" {
		e.class = frame.State
	}
	return e
}

// Invariant 9: with any sequence of publications, resumes and forgotten uploads, a client that reads gets the messages
// after its positions, each once and in order, or a new position.
func TestInvariant9_ReplayOfAnySequence(t *testing.T) {
	uploads := []string{"cat", "dog", "eel"}
	rapid.Check(t, func(t *rapid.T) {
		rapid.SyncTest(t, func(t *rapid.T) {
			m, err := New(Options{HistoryMessages: rapid.SampledFrom([]int{3, 100}).Draw(t, "history"), HistoryTTL: 24 * time.Hour})
			must(t, err)
			defer func() { must(t, m.Close(t.Context())) }()
			p := outbox.NewPool(outbox.Options{ // the live queue is not the subject
				MaxMessages: 1 << 20, MaxBytes: 1 << 30, MaxAge: 24 * time.Hour, MaxRecoveryBytes: rapid.SampledFrom([]int{1, 2000, 1 << 20}).Draw(t, "recovery"), CloseTimeout: time.Hour,
			})
			speed := rapid.SampledFrom([]int{20_000, 1 << 20}).Draw(t, "speed")
			other := connectReplay(t, m, p, "ann", nil, 1<<20)
			c := connectReplay(t, m, p, "ann", nil, speed)
			defer func() {
				p.Close()
				<-other.done
				<-c.done
			}()
			t.Repeat(map[string]func(*rapid.T){
				"publish": func(t *rapid.T) {
					id := rapid.SampledFrom(uploads).Draw(t, "upload")
					class := rapid.SampledFrom([]string{"state", "event"}).Draw(t, "class")
					for range rapid.IntRange(1, 20).Draw(t, "number") {
						_, err := m.Publish(t.Context(), id, uploadNote(t, id, class, 200))
						must(t, err)
					}
				},
				"forget": func(t *rapid.T) { must(t, m.Forget(t.Context(), rapid.SampledFrom(uploads).Draw(t, "upload"))) },
				"wait":   func(t *rapid.T) { <-time.After(time.Duration(rapid.IntRange(1, 500).Draw(t, "ms")) * time.Millisecond) },
				"other subscribes": func(t *rapid.T) {
					id := rapid.SampledFrom(uploads).Draw(t, "upload")
					must(t, m.SubscribeConn(t.Context(), "ann", other.conn, id, SubscribeOptions{Acknowledge: true}))
				},
				"reconnect": func(t *rapid.T) {
					since := c.now()
					m.Disconnect("ann", c.conn)
					c.conn.box.Abort()
					<-c.done
					if c.problem != nil {
						t.Fatal(c.problem)
					}
					for _, id := range uploads {
						if _, ok := since[id]; !ok && rapid.Bool().Draw(t, "new") {
							_, pos, _ := newest(m, id)
							pos.Offset = rapid.Uint64Range(0, pos.Offset).Draw(t, "offset")
							since[id] = pos
						}
					}
					c = connectReplay(t, m, p, "ann", since, speed)
					if rapid.Bool().Draw(t, "resume") {
						_, err := m.Resume(t.Context(), "ann", c.conn, since)
						must(t, err)
						return
					}
					for id, pos := range since {
						must(t, m.SubscribeConn(t.Context(), "ann", c.conn, id, SubscribeOptions{Since: &pos, Acknowledge: true}))
					}
				},
			})
			c.wantUpToDate(t, m)
		})
	})
}

// Uploads whose history is evicted while their recovery waits are announced with their new position, and nothing else.
func TestReplay_OfManyUploadsBeyondMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := open(t, Options{HistoryMessages: 64, HistoryTTL: 24 * time.Hour})
		p := outbox.NewPool(outbox.Options{MaxRecoveryBytes: 20_000})
		defer p.Close()
		since := map[string]Position{}
		for u := range 100 {
			id := fmt.Sprint("u", u)
			for range 64 {
				pos, err := m.Publish(t.Context(), id, uploadNote(t, id, "event", 100))
				must(t, err)
				since[id] = Position{Epoch: pos.Epoch}
			}
		}
		c := connectReplay(t, m, p, "ann", since, 20_000)
		resume(t, m, c.conn, since)
		for range 10 {
			<-time.After(time.Second)
			for id := range since {
				_, err := m.Publish(t.Context(), id, uploadNote(t, id, "event", 100))
				must(t, err)
			}
		}
		c.wantUpToDate(t, m)
		p.Close()
		<-c.done
	})
}

// The broker's connection is interrupted and caught up in the middle of a recovery.
func TestReplay_DuringCatchUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := broker.NewMemory(broker.MemoryOptions{Messages: 1000, TTL: 24 * time.Hour})
		opt := Options{HistoryMessages: 1000, HistoryTTL: 24 * time.Hour}
		here, there := openMember(t, hub, opt), openMember(t, hub, opt)
		p := outbox.NewPool(outbox.Options{MaxRecoveryBytes: 20_000})
		defer p.Close()
		var since Position
		for range 500 {
			pos, err := there.Publish(t.Context(), "cat", uploadNote(t, "cat", "event", 200))
			must(t, err)
			since.Epoch = pos.Epoch
		}
		c := connectReplay(t, here.Manager, p, "ann", map[string]Position{"cat": since}, 20_000)
		defer here.Disconnect("ann", c.conn)
		resume(t, here.Manager, c.conn, map[string]Position{"cat": since})
		<-time.After(time.Second)
		here.link.cut()
		for range 50 {
			_, err := there.Publish(t.Context(), "cat", uploadNote(t, "cat", "event", 200))
			must(t, err)
		}
		<-time.After(time.Second)
		here.link.mend()
		for range 10 {
			_, err := there.Publish(t.Context(), "cat", uploadNote(t, "cat", "event", 200))
			must(t, err)
			<-time.After(100 * time.Millisecond)
		}
		c.wantUpToDate(t, there.Manager)
		if c.received != 560 {
			t.Errorf("%d messages came, want 560", c.received)
		}
		p.Close()
		<-c.done
	})
}

// Uploads that the limit refuses cost nothing: they are not in the answer, and no upload is created for them.
func TestResume_RefusedUploadsAreNotCreated(t *testing.T) {
	m := open(t, Options{MaxSubscriptionsPerUser: 3})
	c := connect(t, m, "ann")
	must(t, m.SubscribeUpload(t.Context(), "ann", "cat"))
	must(t, m.SubscribeUpload(t.Context(), "ann", "dog"))
	refused, err := m.Resume(t.Context(), "ann", c, map[string]Position{"cat": {}, "new 1": {}, "new 2": {}})
	if err != nil || len(refused) != 1 || !errors.Is(refused["new 2"], ErrTooManySubscriptions) {
		t.Fatalf("refused are %v, %v", refused, err)
	}
	if got := slices.Sorted(maps.Keys(c.received(t)[0].Uploads)); !slices.Equal(got, []string{"cat", "new 1"}) {
		t.Errorf("the answer names %v", got)
	}
	for i := range 50 {
		_, err := m.Resume(t.Context(), "ann", c, map[string]Position{fmt.Sprint("more ", i): {}})
		must(t, err)
	}
	if got := m.Stats().Uploads; got != 3 {
		t.Errorf("%d uploads exist, want 3", got)
	}
}

// A Resume that cannot continue an upload closes the connection without holding a lock.
func TestResume_ClosesWithoutLocks(t *testing.T) {
	m := open(t, Options{Shards: 1})
	seen := publish(t, m, "cat", 3)
	c := &fakeConn{}
	c.onSend = func(f *Frame) Outcome {
		if read(t, f).Action == "resumed" {
			must(t, m.Forget(t.Context(), "cat"))
		}
		return Queued
	}
	closings := 0
	c.onClose = func(CloseReason) {
		closings++
		inTime("working with the same user and upload", func() {
			publish(t, m, "cat", 1)
			m.Disconnect("ann", c)
		})
	}
	must(t, m.Connect("ann", c))
	_, err := m.Resume(t.Context(), "ann", c, map[string]Position{"cat": seen})
	must(t, err)
	if closings != 1 {
		t.Errorf("the connection was closed %d times, want 1", closings)
	}
}

// faultyReplayer panics in one of its methods.
type faultyReplayer struct {
	fakeConn
	method string
}

func (c *faultyReplayer) fail(method string) {
	if c.method == method {
		panic("a fault of the connection")
	}
}

func (c *faultyReplayer) Replay(Replay) Outcome { c.fail("Replay"); return Queued }
func (c *faultyReplayer) CancelReplay(string)   { c.fail("CancelReplay") }
func (c *faultyReplayer) HoldReplays()          { c.fail("HoldReplays") }
func (c *faultyReplayer) ReleaseReplays(*Frame) { c.fail("ReleaseReplays") }

// A panic of a Replayer leaves no lock held.
func TestReplay_PanicsAreGuarded(t *testing.T) {
	for _, method := range []string{"Replay", "CancelReplay", "HoldReplays", "ReleaseReplays"} {
		m := open(t, Options{Shards: 1})
		publish(t, m, "cat", 1)
		c := &faultyReplayer{method: method}
		must(t, m.Connect("ann", c))
		must(t, m.SubscribeConn(t.Context(), "ann", c, "cat", SubscribeOptions{Acknowledge: true}))
		_, err := m.Resume(t.Context(), "ann", c, map[string]Position{"cat": {}})
		must(t, err)
		m.UnsubscribeConn("ann", c, "cat")
		inTime("working with the same user and upload", func() { everything(t, m, "ann", "cat") })
		if m.guard.panics.Load() == 0 {
			t.Errorf("%s: the panic was not counted", method)
		}
	}
}
