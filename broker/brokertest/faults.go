package brokertest

import (
	"context"
	"testing"
	"time"

	"github.com/shoal-go/shoal/broker"
)

// Engine is a running engine that a test may do with as it likes.
type Engine interface {
	// Addr is where it listens, host:port. It stays the same.
	Addr() string
	// Kill ends it without notice.
	Kill()
	// Restart starts it after Kill, with its stored data or empty, and returns when it listens.
	Restart(keep bool)
	// Pause stops it where it is, while its connections stay.
	Pause()
	// Resume lets it go on.
	Resume()
}

// FaultConfig configures Faults.
type FaultConfig struct {
	// Engine starts an engine of its own, which keeps Messages messages of a channel for an hour, say.
	Engine func(t testing.TB) Engine
	// Node returns a fresh node, not yet running, that reaches the engine at addr (host:port) and nowhere else.
	Node func(t testing.TB, addr string) broker.HistoryBroker
	// Messages is how many messages of a channel are kept. At least 16.
	Messages int
	// Durable: acknowledged messages survive Kill and Restart(true), which is tried too.
	Durable bool
	// Renews: all stored messages are found again after Restart(true), but in a new epoch.
	Renews bool
	// Patience is how long to wait for an expected event: a node noticing a fault, and full recovery. 0: 30 seconds.
	Patience time.Duration
}

// Faults lets things go wrong in the middle of traffic, each as a subtest with an engine of its own, and accounts for
// every message: a follower on another node than the writer's got it in order, live or from the history, or received
// an announcement of a loss where there could be one. It takes real time.
func Faults(t *testing.T, c FaultConfig) {
	t.Helper()
	if c.Patience == 0 {
		c.Patience = 30 * time.Second
	}
	for _, f := range faults() {
		if f.keeps && !c.Durable {
			continue
		}
		t.Run(f.name, func(t *testing.T) {
			s := newTrial(t, Config{Messages: c.Messages, Patience: c.Patience})
			engine := c.Engine(t)
			p := &place{engine: engine, writer: NewLink(t, engine.Addr()), reader: NewLink(t, engine.Addr())}
			f.renews = f.keeps && c.Renews
			s.endure(c.Node(t, p.writer.Addr()), c.Node(t, p.reader.Addr()), f.at(p))
		})
	}
}

// place is where faults happen.
type place struct {
	engine         Engine
	writer, reader *Link
}

// fault is something that goes wrong, and is mended again.
type fault struct {
	name       string
	begin, end func(p *place)
	// ofWriter and ofReader say whose health must turn.
	ofWriter, ofReader bool
	// keeps says that it needs a durable engine, wipes that all that was kept is lost, and renews that nothing is,
	// but that a new epoch begins with all of it.
	keeps, wipes, renews bool
}

// mishap is a fault at its place.
type mishap struct {
	fault
	begin, end func()
}

func (f fault) at(p *place) mishap {
	return mishap{fault: f, begin: func() { f.begin(p) }, end: func() { f.end(p) }}
}

func faults() []fault {
	kill := func(p *place) { p.engine.Kill() }
	slow := func(l *Link) {
		l.Slow(20*time.Millisecond, 15*time.Millisecond)
		l.Limit(50_000)
	}
	mendReader, mendWriter := func(p *place) { p.reader.Mend() }, func(p *place) { p.writer.Mend() }
	return []fault{{
		name:  "engine paused",
		begin: func(p *place) { p.engine.Pause() }, end: func(p *place) { p.engine.Resume() },
		ofWriter: true, ofReader: true,
	}, {
		name:  "engine killed and back with what it kept",
		begin: kill, end: func(p *place) { p.engine.Restart(true) },
		ofWriter: true, ofReader: true, keeps: true,
	}, {
		name:  "engine killed and back empty",
		begin: kill, end: func(p *place) { p.engine.Restart(false) },
		ofWriter: true, ofReader: true, wipes: true,
	}, {
		name:  "reader cut off",
		begin: func(p *place) { p.reader.Cut() }, end: mendReader,
		ofReader: true,
	}, {
		name:  "writer cut off",
		begin: func(p *place) { p.writer.Cut() }, end: mendWriter,
		ofWriter: true,
	}, {
		name:  "reader hears nothing",
		begin: func(p *place) { p.reader.Silence() }, end: mendReader,
		ofReader: true,
	}, {
		name:  "writer hears nothing",
		begin: func(p *place) { p.writer.Silence() }, end: mendWriter,
		ofWriter: true,
	}, {
		name:  "reader slow",
		begin: func(p *place) { slow(p.reader) }, end: mendReader,
	}, {
		name:  "writer slow",
		begin: func(p *place) { slow(p.writer) }, end: mendWriter,
	}}
}

// endure lets a fault happen in the middle of traffic from one node to another, and accounts for all messages.
func (s *trial) endure(writing, reading broker.HistoryBroker, m mishap) {
	s.Helper()
	writer, reader := NewFollower(writing), NewFollower(reading)
	s.follow(writer)
	s.follow(reader)
	t := s.newTraffic(writing, 12)
	for _, channel := range t.channels {
		s.call("Subscribe", func(ctx context.Context) error { return reader.Follow(ctx, channel) })
	}
	t.send(t.burst, nil)
	t.settle(reader)
	epochs := t.epochs()

	t.send(t.burst, m.begin)
	if m.ofWriter {
		s.awaitIll(writer, "the writer's")
	}
	if m.ofReader {
		s.awaitIll(reader, "the reader's")
	}
	t.send(t.burst/2, m.end)
	s.awaitWell(writer, "the writer's")
	s.awaitWell(reader, "the reader's")

	t.send(t.burst, nil)
	t.settle(reader)
	t.account(reader, m.fault)
	for i, epoch := range t.epochs() {
		if (m.wipes || m.renews) && epoch == epochs[i] {
			s.Errorf("the epoch is still %q, which was to end with the engine", epoch)
		}
	}
}

// awaitIll returns when a node knows that something ails it.
func (s *trial) awaitIll(f *Follower, whose string) {
	s.Helper()
	s.await(&f.board, whose+" health to turn into an error", func() bool { return f.health != nil })
}

// awaitWell returns when a node knows that nothing ails it.
func (s *trial) awaitWell(f *Follower, whose string) {
	s.Helper()
	s.await(&f.board, whose+" health to turn nil", func() bool { return f.health == nil })
}
