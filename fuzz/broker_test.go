package fuzz_test

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/internal/frame"
	"github.com/shoal-go/shoal/manager"
)

// liar is a broker whose answers and messages are an input: nothing that it says needs to be true.
type liar struct {
	mu      sync.Mutex // protects the fields below
	handler broker.Handler
	// script holds the values that are left; each use takes some of its bytes.
	script []byte
	text   []byte
}

// next returns the next value of the script, 0 at its end.
func (l *liar) next() byte {
	if len(l.script) == 0 {
		return 0
	}
	b := l.script[0]
	l.script = l.script[1:]
	return b
}

// offset returns a small, a large or the largest offset.
func (l *liar) offset() uint64 {
	b := uint64(l.next())
	switch {
	case b == 255:
		return 1<<64 - 1
	case b >= 240:
		return 1<<63 + b
	}
	return b % 16
}

func (l *liar) position() broker.Position {
	return broker.Position{Epoch: []string{"", "a", "b"}[l.next()%3], Offset: l.offset()}
}

// payload returns a valid message, an arbitrary one, or none.
func (l *liar) payload() []byte {
	switch b := l.next(); b % 4 {
	case 0:
		return nil
	case 1:
		n := min(len(l.text), int(l.next()))
		return append([]byte(nil), l.text[:n]...)
	default:
		return fmt.Appendf(nil, `{"action":"note","n":%d}`, b)
	}
}

func (l *liar) snapshot() broker.Snapshot {
	s := broker.Snapshot{Position: l.position(), Floor: l.offset()}
	for range l.next() % 5 {
		s.Messages = append(s.Messages, broker.Stored{
			Offset: l.offset(), Payload: l.payload(), At: time.Now().Add(time.Duration(l.next()) * time.Minute),
		})
	}
	return s
}

// result returns nil mostly, and an error now and then.
func (l *liar) result() error {
	if l.next()%8 == 7 {
		return broker.ErrUnavailable
	}
	return nil
}

// lie calls fn with the lock held.
func lie[T any](l *liar, fn func() T) T {
	l.mu.Lock()
	defer l.mu.Unlock()
	return fn()
}

func (l *liar) Run(ctx context.Context, h broker.Handler) error {
	lie(l, func() int { l.handler = h; return 0 })
	h.Health(nil)
	<-ctx.Done()
	return nil
}

func (l *liar) Subscribe(context.Context, ...string) error   { return lie(l, l.result) }
func (l *liar) Unsubscribe(context.Context, ...string) error { return lie(l, l.result) }
func (l *liar) Publish(context.Context, string, []byte) error {
	return nil
}

func (l *liar) Store(context.Context, string, []byte) (broker.Position, error) {
	return lie(l, l.position), lie(l, l.result)
}

func (l *liar) History(context.Context, string, broker.Position) (broker.Snapshot, error) {
	return lie(l, l.snapshot), lie(l, l.result)
}

func (l *liar) Newest(context.Context, string) (broker.Snapshot, error) {
	return lie(l, l.snapshot), lie(l, l.result)
}

func (l *liar) Positions(_ context.Context, channels ...string) ([]broker.Position, error) {
	all := make([]broker.Position, lie(l, l.next)%4)
	for i := range all {
		all[i] = lie(l, l.position)
	}
	if lie(l, l.next)%2 == 0 {
		all = make([]broker.Position, len(channels))
	}
	return all, lie(l, l.result)
}

func (l *liar) Forget(context.Context, string) error { return lie(l, l.result) }

// act lets one thing happen: a message, a notice of loss, or a change of health.
func (l *liar) act() {
	kind := lie(l, l.next)
	channel := "upload:" + []string{"cat", "dog", "\xff", ""}[lie(l, l.next)%4]
	switch kind % 8 {
	case 0:
		l.handler.Interrupted()
	case 1:
		l.handler.Interrupted(channel, "elsewhere")
	case 2:
		l.handler.Health(broker.ErrUnavailable)
		l.handler.Health(nil)
	case 3:
		<-time.After(100 * time.Millisecond)
	default:
		l.handler.Receive(broker.Message{
			Channel: channel, Payload: lie(l, l.payload), Position: lie(l, l.position), Prev: lie(l, l.offset),
		})
	}
}

// witness is a connection of shoal.v1 that checks its frames: valid messages whose offsets increase until a new position
// is announced.
type witness struct {
	t  *testing.T
	mu sync.Mutex // protects the fields below
	at map[string]uint64
	// fresh are the uploads whose newest message may follow the position that was announced.
	fresh map[string]bool
}

// Send checks a frame.
func (w *witness) Send(f *manager.Frame) manager.Outcome {
	if !f.For(frame.V1) {
		return manager.Queued
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	wire := f.Append(nil, frame.V1, 0)
	var r struct {
		Action string `json:"action"`
		ID     string `json:"upload_id"`
		Offset uint64 `json:"offset"`
	}
	header := 2
	if wire[1] == 126 {
		header = 4
	}
	if err := json.Unmarshal(wire[header:], &r); err != nil || r.Action == "" {
		w.t.Errorf("a frame is no message: %q", wire)
	}
	switch {
	case r.Action == "subscribed":
		w.at[r.ID], w.fresh[r.ID] = r.Offset, true
	case f.Offset() > 0:
		if f.Offset() <= w.at[f.UploadID()] && !w.fresh[f.UploadID()] {
			w.t.Errorf("upload %q: offset %d came after %d", f.UploadID(), f.Offset(), w.at[f.UploadID()])
		}
		w.at[f.UploadID()] = max(w.at[f.UploadID()], f.Offset())
		w.fresh[f.UploadID()] = false
	}
	return manager.Queued
}

func (w *witness) Close(manager.CloseReason) {}

// FuzzBroker runs a manager on a broker whose messages, positions and histories are arbitrary. The manager never panics
// or hangs, and its subscribers get valid messages only, whose offsets increase until a new position is announced.
func FuzzBroker(f *testing.F) {
	f.Add([]byte("\x04\x00\x02\x01\x01\x00\x04\x00\x02\x01\x02\x01"), []byte(`{"action":"note"}`))
	f.Add([]byte("\x00\x00\x04\x00\x02\x02\xff\xff\x01\x00\x03\x00"), []byte(`{"action":"subscribed","upload_id":"cat"}`))
	f.Add([]byte("\x07\x01\x01\x05\x01\x00\x00\x00\x00\x00\x00\x01\x00\x02\x02\xf0\xf1"), []byte("\xff\xfe{"))
	f.Fuzz(func(t *testing.T, script, text []byte) {
		const most = 200
		synctest.Test(t, func(t *testing.T) {
			l := &liar{script: script[:min(len(script), most)], text: text}
			m, err := manager.New(manager.Options{Broker: l, HistoryMessages: 4})
			if err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			w := &witness{t: t, at: map[string]uint64{}, fresh: map[string]bool{}}
			if err := m.Connect("ann", w); err != nil {
				t.Fatal(err)
			}
			for _, id := range []string{"cat", "dog"} {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				_ = m.SubscribeConn(ctx, "ann", w, id, manager.SubscribeOptions{Acknowledge: true}) // may fail: see result
				cancel()
			}
			for len(l.script) > 0 {
				l.act()
				synctest.Wait()
			}
			if err := m.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	})
}
