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

// shaky is a connection to a Memory that goes down and comes back. The fields before mu are set before use.
type shaky struct {
	broker.HistoryBroker
	healthy    bool // always reports to be healthy
	acksAll    bool // acknowledges messages that it loses
	unlinked   bool // does not report missed messages, neither at once nor by Prev
	sameEpoch  bool // tells no new epoch
	alarmistic bool // says that all was lost
	renewing   bool // goes on in a new epoch when it comes back
	forgetful  bool // lacks the oldest message when it has come back

	mu      sync.Mutex
	down    bool
	back    bool // has been down
	handler broker.Handler
}

func (s *shaky) isDown() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.down
}

func (s *shaky) isBack() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.back
}

// epoch returns the name by which this node knows an epoch of the Memory.
func (s *shaky) epoch(name string) string {
	if s.renewing && s.isBack() && name != "" {
		return name + " anew"
	}
	return name
}

func (s *shaky) Run(ctx context.Context, h broker.Handler) error {
	s.mu.Lock()
	s.handler = h
	s.mu.Unlock()
	return s.HistoryBroker.Run(ctx, meddler{h, func(m broker.Message) []broker.Message {
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

func (s *shaky) Store(ctx context.Context, channel string, payload []byte) (broker.Position, error) {
	if !s.isDown() {
		return s.HistoryBroker.Store(ctx, channel, payload)
	}
	if s.acksAll {
		return broker.Position{}, nil
	}
	return broker.Position{}, broker.ErrUnavailable
}

func (s *shaky) History(ctx context.Context, channel string, since broker.Position) (broker.Snapshot, error) {
	if s.isDown() {
		return broker.Snapshot{}, broker.ErrUnavailable
	}
	k, err := s.HistoryBroker.History(ctx, channel, broker.Position{})
	if s.sameEpoch {
		k.Epoch = "the same"
	}
	k.Epoch = s.epoch(k.Epoch)
	if s.forgetful && s.isBack() {
		k.Floor, k.Messages = k.Messages[0].Offset, k.Messages[1:]
	}
	if s.alarmistic {
		k.Floor = k.Offset
	}
	return k, err
}

// fall lets nothing through any more.
func (s *shaky) fall() {
	s.mu.Lock()
	s.down = true
	s.mu.Unlock()
	if !s.healthy {
		s.handler.Health(broker.ErrUnavailable)
	}
}

// rise mends that.
func (s *shaky) rise() {
	s.mu.Lock()
	s.down, s.back = false, true
	s.mu.Unlock()
	if !s.unlinked {
		s.handler.Interrupted()
	}
	s.handler.Health(nil)
}

// TestFaultsAreAccountedFor exposes sound and broken nodes to all faults, and reads the account.
func TestFaultsAreAccountedFor(t *testing.T) {
	for name, e := range map[string]struct {
		writer, reader *shaky
		wipes, renews  bool
		complaint      string // "": none
	}{
		"sound, reader away":   {reader: &shaky{}},
		"sound, writer away":   {writer: &shaky{}},
		"sound, both away":     {writer: &shaky{}, reader: &shaky{}},
		"sound, history lost":  {writer: &shaky{}, reader: &shaky{}, wipes: true},
		"sound, epoch renewed": {writer: &shaky{renewing: true}, reader: &shaky{renewing: true}, renews: true},
		"renewed with a part lost": {writer: &shaky{renewing: true}, reader: &shaky{renewing: true, forgetful: true}, renews: true,
			complaint: "nothing was said of it"},
		"to be renewed, same epoch": {writer: &shaky{}, reader: &shaky{}, renews: true, complaint: "was to end"},
		"losses unsaid":             {reader: &shaky{unlinked: true}, complaint: "nothing was said of it"},
		"losses acknowledged":       {writer: &shaky{acksAll: true}, complaint: "nothing was said of it"},
		"ill and says it is well":   {reader: &shaky{healthy: true}, complaint: "health to turn into an error"},
		"loss announced for safety": {reader: &shaky{alarmistic: true}, complaint: "need not be"},
		"history lost, same epoch": {writer: &shaky{sameEpoch: true}, reader: &shaky{sameEpoch: true}, wipes: true,
			complaint: "waiting for the last message"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			hub := broker.NewMemory(broker.MemoryOptions{TTL: time.Hour})
			m := mishap{
				fault: fault{
					ofWriter: e.writer != nil, ofReader: e.reader != nil, wipes: e.wipes, renews: e.renews,
				},
				begin: func() { both(e.writer, e.reader, (*shaky).fall) },
			}
			complaints := complaintsOf(t, Config{Messages: 64, Patience: 3 * time.Second}, func(s *trial) {
				m.end = func() {
					if e.wipes {
						s.wipe(hub, 12)
					}
					both(e.writer, e.reader, (*shaky).rise)
				}
				s.endure(over(e.writer, hub), over(e.reader, hub), m)
			})
			if !strings.Contains(complaints, e.complaint) || e.complaint == "" && complaints != "" {
				t.Errorf("the account complains of %q, want %q", complaints, e.complaint)
			}
		})
	}
}

// over lets a node stand on a hub. nil is a node that stays up.
func over(s *shaky, hub *broker.Memory) broker.HistoryBroker {
	if s == nil {
		return hub.Node()
	}
	s.HistoryBroker = hub.Node()
	return s
}

// both calls fn with each node there is.
func both(a, b *shaky, fn func(*shaky)) {
	for _, s := range []*shaky{a, b} {
		if s != nil {
			fn(s)
		}
	}
}

// wipe forgets the channels of traffic.
func (s *trial) wipe(hub *broker.Memory, channels int) {
	n := s.connect(hub.Node(), newEar())
	for _, channel := range s.channels("c", channels) {
		s.forget(n, channel)
	}
	n.stop()
}

func TestLedger(t *testing.T) {
	// Messages 0 to 5 were stored, 3 was not acknowledged. "-" is an announced loss.
	for sights, complaint := range map[string]string{
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
		l := &ledger{acked: []bool{true, true, true, false, true, true}}
		var seen []Sight
		for i, word := range strings.Fields(sights) {
			sight := Sight{Offset: uint64(i + 1), Payload: []byte(word)}
			if word == "-" {
				sight = Sight{Lost: "a new epoch"}
			}
			seen = append(seen, sight)
		}
		got := ""
		if err := l.check(seen, true); err != nil {
			got = err.Error()
		}
		if complaint == "" && got != "" || !strings.Contains(got, complaint) {
			t.Errorf("of %q the ledger says %q, want %q", sights, got, complaint)
		}
	}
	l := &ledger{acked: []bool{true, true}}
	backwards := []Sight{{Offset: 2, Payload: []byte(strconv.Itoa(0))}, {Offset: 1, Payload: []byte(strconv.Itoa(1))}}
	if err := l.check(backwards, false); err == nil || !strings.Contains(err.Error(), "not above") {
		t.Errorf("of offsets that fall the ledger says %v", err)
	}
	if err := l.check([]Sight{{Lost: "a new epoch"}}, false); err == nil || !strings.Contains(err.Error(), "need not be") {
		t.Errorf("of a loss without reason the ledger says %v", err)
	}
}
