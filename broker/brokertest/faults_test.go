package brokertest

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoal-go/shoal/broker"
)

// flakyBroker is a connection to a Memory that goes down and comes back. The fields before mu are set before use.
type flakyBroker struct {
	broker.HistoryBroker
	healthy        bool // always reports to be healthy
	acksAll        bool // acknowledges messages that it loses
	unlinked       bool // does not report missed messages, neither at once nor by Prev
	sameEpoch      bool // tells no new epoch
	reportsLoss    bool // says that all was lost
	renewsOnReturn bool // goes on in a new epoch when it comes back
	losesOldest    bool // lacks the oldest message when it has come back

	mu      sync.Mutex
	down    bool
	back    bool // has been down
	handler broker.Handler
}

func (s *flakyBroker) isDown() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.down
}

func (s *flakyBroker) isBack() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.back
}

// epoch returns the name by which this node knows an epoch of the Memory.
func (s *flakyBroker) epoch(name string) string {
	if s.renewsOnReturn && s.isBack() && name != "" {
		return name + " renewed"
	}
	return name
}

func (s *flakyBroker) Run(ctx context.Context, h broker.Handler) error {
	s.mu.Lock()
	s.handler = h
	s.mu.Unlock()
	return s.HistoryBroker.Run(ctx, interceptor{h, func(m broker.Message) []broker.Message {
		if s.isDown() {
			return nil
		}
		if s.unlinked {
			m.Prev = 0
		}
		m.Epoch = s.epoch(m.Epoch)
		return []broker.Message{m}
	}})
}

func (s *flakyBroker) Store(ctx context.Context, channel string, payload []byte) (broker.Position, error) {
	if !s.isDown() {
		return s.HistoryBroker.Store(ctx, channel, payload)
	}
	if s.acksAll {
		return broker.Position{}, nil
	}
	return broker.Position{}, broker.ErrUnavailable
}

func (s *flakyBroker) History(ctx context.Context, channel string, since broker.Position) (broker.Snapshot, error) {
	if s.isDown() {
		return broker.Snapshot{}, broker.ErrUnavailable
	}
	k, err := s.HistoryBroker.History(ctx, channel, broker.Position{})
	if s.sameEpoch {
		k.Epoch = "the same"
	}
	k.Epoch = s.epoch(k.Epoch)
	if s.losesOldest && s.isBack() && len(k.Messages) > 0 {
		k.Floor, k.Messages = k.Messages[0].Offset, k.Messages[1:]
	}
	if s.reportsLoss {
		k.Floor = k.Offset
	}
	return k, err
}

// goDown fails every call from now on.
func (s *flakyBroker) goDown() {
	s.mu.Lock()
	s.down = true
	s.mu.Unlock()
	if !s.healthy {
		s.handler.Health(broker.ErrUnavailable)
	}
}

// comeBack ends goDown.
func (s *flakyBroker) comeBack() {
	s.mu.Lock()
	s.down, s.back = false, true
	s.mu.Unlock()
	if !s.unlinked {
		s.handler.Interrupted()
	}
	s.handler.Health(nil)
}

// TestSuite_AccountsForFaults exposes sound and broken nodes to all faults, and reads the account.
func TestSuite_AccountsForFaults(t *testing.T) {
	for name, e := range map[string]struct {
		writer, reader            *flakyBroker
		losesHistory, renewsEpoch bool
		failure                   string // "": none
	}{
		"sound, reader away":   {reader: &flakyBroker{}},
		"sound, writer away":   {writer: &flakyBroker{}},
		"sound, both away":     {writer: &flakyBroker{}, reader: &flakyBroker{}},
		"sound, history lost":  {writer: &flakyBroker{}, reader: &flakyBroker{}, losesHistory: true},
		"sound, epoch renewed": {writer: &flakyBroker{renewsOnReturn: true}, reader: &flakyBroker{renewsOnReturn: true}, renewsEpoch: true},
		"renewed with a part lost": {writer: &flakyBroker{renewsOnReturn: true}, reader: &flakyBroker{renewsOnReturn: true, losesOldest: true}, renewsEpoch: true,
			failure: "no loss was reported"},
		"to be renewed, same epoch":     {writer: &flakyBroker{}, reader: &flakyBroker{}, renewsEpoch: true, failure: "want a new one"},
		"losses unsaid":                 {reader: &flakyBroker{unlinked: true}, failure: "no loss was reported"},
		"losses acknowledged":           {writer: &flakyBroker{acksAll: true}, failure: "no loss was reported"},
		"unhealthy but reports healthy": {reader: &flakyBroker{healthy: true}, failure: "health to turn into an error"},
		"loss announced for safety":     {reader: &flakyBroker{reportsLoss: true}, failure: "need not be"},
		"history lost, same epoch": {writer: &flakyBroker{sameEpoch: true}, reader: &flakyBroker{sameEpoch: true}, losesHistory: true,
			failure: "waiting for the last message"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			hub := broker.NewMemory(broker.MemoryOptions{TTL: time.Hour})
			m := injectedFault{
				fault: fault{
					affectsWriter: e.writer != nil, affectsReader: e.reader != nil, losesHistory: e.losesHistory, renewsEpoch: e.renewsEpoch,
				},
				begin: func() { both(e.writer, e.reader, (*flakyBroker).goDown) },
			}
			failures := failuresOf(t, Config{Messages: 64, Patience: 3 * time.Second}, func(s *suite) {
				m.end = func() {
					if e.losesHistory {
						s.wipe(hub, 12)
					}
					both(e.writer, e.reader, (*flakyBroker).comeBack)
				}
				s.checkFault(over(e.writer, hub), over(e.reader, hub), m)
			})
			if !strings.Contains(failures, e.failure) || e.failure == "" && failures != "" {
				t.Errorf("the account fails with %q, want %q", failures, e.failure)
			}
		})
	}
}

// over returns a node of a hub behind a flaky connection; nil is a sound connection.
func over(s *flakyBroker, hub *broker.Memory) broker.HistoryBroker {
	if s == nil {
		return hub.Node()
	}
	s.HistoryBroker = hub.Node()
	return s
}

// both calls fn with each node there is.
func both(a, b *flakyBroker, fn func(*flakyBroker)) {
	for _, s := range []*flakyBroker{a, b} {
		if s != nil {
			fn(s)
		}
	}
}

// wipe forgets the channels of traffic.
func (s *suite) wipe(hub *broker.Memory, channels int) {
	n := s.connect(hub.Node(), NewRecorder())
	for _, channel := range s.channels("c", channels) {
		s.forget(n, channel)
	}
	n.stop()
}

func TestPublishLog(t *testing.T) {
	// Messages 0 to 5 were stored, 3 was not acknowledged. "-" is an announced loss.
	for observations, failure := range map[string]string{
		"0 1 2 3 4 5":   "",
		"0 1 2 4 5":     "",
		"0 1 2 4 3 5":   "", // it stood before a socket for a while
		"0 1 - 4 5":     "",
		"- 4 5":         "",
		"0 1 2 4 -":     "",
		"0 1 2 4":       "message 5 is missing at the end",
		"0 2 4 5":       "message 1 is missing before 2",
		"0 - 1 4 5":     "message 2 is missing before 4",
		"0 1 2 2 4 5":   "message 2 was seen twice",
		"0 1 2 3 3 4 5": "message 3 was seen twice",
		"3 0 1 2 4 5":   "message 0 is missing before 3",
		"0 - 2 1 4 5":   "message 1 was seen after 2, out of order",
		"0 1 2 4 5 6":   `"6" was seen, which was never stored`,
	} {
		l := &publishLog{acked: []bool{true, true, true, false, true, true}}
		var seen []Observation
		for i, word := range strings.Fields(observations) {
			observation := Observation{Offset: uint64(i + 1), Payload: []byte(word)}
			if word == "-" {
				observation = Observation{Lost: "a new epoch"}
			}
			seen = append(seen, observation)
		}
		got := ""
		if err := l.check(seen, true); err != nil {
			got = err.Error()
		}
		if failure == "" && got != "" || !strings.Contains(got, failure) {
			t.Errorf("for %q check returns %q, want %q", observations, got, failure)
		}
	}
	l := &publishLog{acked: []bool{true, true}}
	backwards := []Observation{{Offset: 2, Payload: []byte(strconv.Itoa(0))}, {Offset: 1, Payload: []byte(strconv.Itoa(1))}}
	if err := l.check(backwards, false); err == nil || !strings.Contains(err.Error(), "not above") {
		t.Errorf("with decreasing offsets check returns %v", err)
	}
	if err := l.check([]Observation{{Lost: "a new epoch"}}, false); err == nil || !strings.Contains(err.Error(), "need not be") {
		t.Errorf("for a loss without reason check returns %v", err)
	}
}
