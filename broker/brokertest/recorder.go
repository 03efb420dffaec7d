package brokertest

import (
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/shoal-go/shoal/broker"
)

// observable holds state that changes while a test waits for it. All methods may be called from any number of
// goroutines.
type observable struct {
	mu      sync.Mutex    // protects changed, and the fields of the struct that embeds this one
	changed chan struct{} // closed and replaced at every change
}

func newObservable() observable { return observable{changed: make(chan struct{})} }

// update calls fn with the lock held, and wakes waiting goroutines.
func (o *observable) update(fn func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	fn()
	close(o.changed)
	o.changed = make(chan struct{})
}

// read calls fn with the lock held.
func (o *observable) read(fn func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	fn()
}

// await returns when the condition holds, and ends the test after patience. The condition is called without the lock.
func (o *observable) await(t testing.TB, patience time.Duration, event string, condition func() bool) {
	t.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for {
		var changed chan struct{}
		o.read(func() { changed = o.changed })
		if condition() {
			return
		}
		select {
		case <-changed:
		case <-timeout.C:
			t.Fatalf("after %v still waiting for %s", patience, event)
		}
	}
}

// Recorder is a broker.Handler that records its calls. All methods may be called from any number of goroutines.
type Recorder struct {
	// OnReceive, if not nil, is called with each message before that is recorded. It may block. It is set before use.
	OnReceive func(m broker.Message)

	observable
	received      map[string][]broker.Message // by channel; an interruption is a message without payload and epoch
	interruptions [][]string
	health        []error
	receiving     map[string]bool
	overlapped    string
}

// NewRecorder returns a Recorder without calls.
func NewRecorder() *Recorder {
	return &Recorder{
		observable: newObservable(),
		received:   make(map[string][]broker.Message),
		receiving:  make(map[string]bool),
	}
}

// Receive records a message and a copy of its payload. It yields the processor in between, so that calls which may
// overlap do.
func (r *Recorder) Receive(m broker.Message) {
	r.read(func() {
		if r.receiving[m.Channel] {
			r.overlapped = m.Channel
		}
		r.receiving[m.Channel] = true
	})
	runtime.Gosched()
	recorded := m
	recorded.Payload = slices.Clone(m.Payload)
	if r.OnReceive != nil {
		r.OnReceive(m)
	}
	r.update(func() {
		r.receiving[m.Channel] = false
		r.received[m.Channel] = append(r.received[m.Channel], recorded)
	})
}

// Interrupted records that messages may have been lost.
func (r *Recorder) Interrupted(channels ...string) {
	r.update(func() {
		r.interruptions = append(r.interruptions, slices.Clone(channels))
		if len(channels) == 0 {
			for name := range r.received {
				channels = append(channels, name)
			}
		}
		for _, name := range channels {
			r.received[name] = append(r.received[name], broker.Message{Channel: name})
		}
	})
}

// Health records whether the broker is healthy.
func (r *Recorder) Health(err error) { r.update(func() { r.health = append(r.health, err) }) }

// Await returns when the condition holds, and ends the test after 30 seconds. It calls the condition whenever something
// was recorded.
func (r *Recorder) Await(t testing.TB, event string, condition func() bool) {
	t.Helper()
	const patience = 30 * time.Second
	r.await(t, patience, event, condition)
}

// Messages returns the received messages of a channel in order, those without payload that begin an epoch among them.
func (r *Recorder) Messages(channel string) (messages []broker.Message) {
	for _, m := range r.events(channel) {
		if m.Payload != nil || m.Epoch != "" {
			messages = append(messages, m)
		}
	}
	return messages
}

// Payloads returns the payloads that were received on a channel in order.
func (r *Recorder) Payloads(channel string) (payloads []string) {
	for _, m := range r.events(channel) {
		if m.Payload != nil {
			payloads = append(payloads, string(m.Payload))
		}
	}
	return payloads
}

// Interruptions returns the arguments of the calls of Interrupted.
func (r *Recorder) Interruptions() (all [][]string) {
	r.read(func() { all = slices.Clone(r.interruptions) })
	return all
}

// HealthReports returns the arguments of the calls of Health.
func (r *Recorder) HealthReports() (all []error) {
	r.read(func() { all = slices.Clone(r.health) })
	return all
}

// Healthy reports whether the newest call of Health was with nil.
func (r *Recorder) Healthy() bool {
	reports := r.HealthReports()
	return len(reports) > 0 && reports[len(reports)-1] == nil
}

// Fault returns the newest argument of Health, nil before the first call.
func (r *Recorder) Fault() error {
	reports := r.HealthReports()
	if len(reports) == 0 {
		return nil
	}
	return reports[len(reports)-1]
}

// events returns the recorded messages of a channel, and its interruptions among them.
func (r *Recorder) events(channel string) (events []broker.Message) {
	r.read(func() { events = slices.Clone(r.received[channel]) })
	return events
}

// withPayload returns the messages of a channel that have a payload.
func (r *Recorder) withPayload(channel string) (messages []broker.Message) {
	for _, m := range r.events(channel) {
		if m.Payload != nil {
			messages = append(messages, m)
		}
	}
	return messages
}

// awaitLast returns when the newest payload that was received on a channel is this one.
func (s *suite) awaitLast(n *node, channel, payload string) {
	s.Helper()
	s.await(&n.observable, "the payload "+payload, func() bool {
		events := n.events(channel)
		return len(events) > 0 && string(events[len(events)-1].Payload) == payload
	})
}

// awaitCount returns when at least a number of messages have been received on a channel.
func (s *suite) awaitCount(n *node, channel string, count int) {
	s.Helper()
	s.await(&n.observable, "all messages of a channel", func() bool { return len(n.Payloads(channel)) >= count })
}

// await returns when the condition holds, and ends the test after Patience, or at once if it has failed.
func (s *suite) await(o *observable, event string, condition func() bool) {
	s.Helper()
	if s.Failed() {
		s.FailNow()
	}
	o.await(s.TB, s.Patience, event, condition)
}
