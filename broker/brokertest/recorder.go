package brokertest

import (
	"runtime"
	"sync"
	"time"

	"github.com/shoal-go/shoal/broker"
)

// ear is a Handler that records its calls. Its fields are read by the conditions given to await.
type ear struct {
	// touch, if not nil, may change a payload as its owner may, once a copy of it has been recorded.
	touch func(payload []byte)

	board
	connected bool
	// heard holds the received messages by channel. An interruption stands there as a message without payload.
	heard  map[string][]broker.Message
	inside map[string]bool
	// overlapped is a channel for which Receive was called while it was running, or "".
	overlapped string
}

func newEar() *ear {
	return &ear{
		board:  newBoard(),
		heard:  make(map[string][]broker.Message),
		inside: make(map[string]bool),
	}
}

// Receive notes a message. It lets others run in the middle, so that calls which may overlap do.
func (e *ear) Receive(m broker.Message) {
	e.look(func() {
		if e.inside[m.Channel] {
			e.overlapped = m.Channel
		}
		e.inside[m.Channel] = true
	})
	runtime.Gosched()
	if e.touch != nil && m.Payload != nil {
		theirs := m.Payload
		m.Payload = append([]byte{}, theirs...)
		e.touch(theirs)
	}
	e.change(func() {
		e.inside[m.Channel] = false
		e.heard[m.Channel] = append(e.heard[m.Channel], m)
	})
}

// Interrupted notes that messages may have been lost.
func (e *ear) Interrupted(channels ...string) {
	e.change(func() {
		if len(channels) == 0 {
			for name := range e.heard {
				channels = append(channels, name)
			}
		}
		for _, name := range channels {
			e.heard[name] = append(e.heard[name], broker.Message{Channel: name})
		}
	})
}

// Health notes that the node has connected.
func (e *ear) Health(err error) { e.change(func() { e.connected = err == nil }) }

// messages returns the messages of a channel that have a payload. It is called with the lock held.
func (e *ear) messages(channel string) []broker.Message {
	var messages []broker.Message
	for _, m := range e.heard[channel] {
		if m.Payload != nil {
			messages = append(messages, m)
		}
	}
	return messages
}

// payloads returns the payloads that came on a channel so far.
func (e *ear) payloads(channel string) []string {
	var payloads []string
	e.look(func() {
		for _, m := range e.messages(channel) {
			payloads = append(payloads, string(m.Payload))
		}
	})
	return payloads
}

// awaitLast returns when the newest payload that came on a channel is this one.
func (s *trial) awaitLast(n *node, channel, payload string) {
	s.Helper()
	s.await(&n.board, "the payload "+payload, func() bool {
		messages := n.heard[channel]
		return len(messages) > 0 && string(messages[len(messages)-1].Payload) == payload
	})
}

// awaitCount returns when at least a number of messages have been received on a channel.
func (s *trial) awaitCount(n *node, channel string, count int) {
	s.Helper()
	s.await(&n.board, "all messages of a channel", func() bool { return len(n.messages(channel)) >= count })
}

// board holds state that changes while a test waits for it. All methods may be called from any number of goroutines.
type board struct {
	mu     sync.Mutex    // protects turned, and the fields of the struct that the board is part of
	turned chan struct{} // closed and replaced whenever something has changed
}

func newBoard() board { return board{turned: make(chan struct{})} }

// change calls fn with the lock held, and wakes waiting goroutines.
func (b *board) change(fn func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	fn()
	close(b.turned)
	b.turned = make(chan struct{})
}

// look calls fn with the lock held.
func (b *board) look(fn func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	fn()
}

// await returns when the condition holds, which is called with the board's lock held.
func (s *trial) await(b *board, what string, condition func() bool) {
	s.Helper()
	if s.Failed() {
		s.FailNow()
	}
	late := time.NewTimer(s.Patience)
	defer late.Stop()
	for {
		b.mu.Lock()
		held, turned := condition(), b.turned
		b.mu.Unlock()
		if held {
			return
		}
		select {
		case <-turned:
		case <-late.C:
			s.Fatalf("after %v still waiting for %s", s.Patience, what)
		}
	}
}
