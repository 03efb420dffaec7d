package brokertest

import (
	"cmp"
	"context"
	"testing"
	"time"

	"github.com/shoal-go/shoal/broker"
)

// FaultConfig configures Faults.
type FaultConfig struct {
	// Engine starts an engine of its own, which keeps Messages messages of a channel for an hour, say.
	Engine func(t testing.TB) Engine
	// Node returns a fresh node, not yet running, that reaches the engine at addr (host:port) and nowhere else.
	Node func(t testing.TB, addr string) broker.HistoryBroker
	// Messages is how many messages of a channel are stored. At least 16.
	Messages int
	// Durable: acknowledged messages survive Kill and Restart(true), which is tried too.
	Durable bool
	// Renews: all stored messages are found again after Restart(true), but in a new epoch.
	Renews bool
	// Patience is how long to wait for an expected event: a node noticing a fault, and full recovery. 0: 30 seconds.
	Patience time.Duration
}

// Faults lets things go wrong in the middle of traffic, each as a subtest with an engine of its own, and accounts for
// every message: a follower on another node than the writer's got it in order, live or from the history, or was
// notified of a loss where there could be one. It takes real time.
func Faults(t *testing.T, c FaultConfig) {
	t.Helper()
	c.Patience = cmp.Or(c.Patience, 30*time.Second)
	for _, f := range faults() {
		if f.durable && !c.Durable {
			continue
		}
		t.Run(f.name, func(t *testing.T) {
			s := newSuite(t, Config{Messages: c.Messages, Patience: c.Patience})
			engine := c.Engine(t)
			e := &environment{engine: engine, writer: NewLink(t, engine.Addr()), reader: NewLink(t, engine.Addr())}
			f.renewsEpoch = f.durable && c.Renews
			s.checkFault(c.Node(t, e.writer.Addr()), c.Node(t, e.reader.Addr()), f.in(e))
		})
	}
}

// environment is the engine and the links to it, where faults are injected.
type environment struct {
	engine         Engine
	writer, reader *Link
}

// fault is a failure that begins and ends.
type fault struct {
	name       string
	begin, end func(e *environment)
	// affectsWriter and affectsReader say whose health has to change.
	affectsWriter, affectsReader bool
	// durable: the engine must be durable; losesHistory: no stored message is left; renewsEpoch: all are left, but in a
	// new epoch.
	durable, losesHistory, renewsEpoch bool
}

// injectedFault is a fault in an environment.
type injectedFault struct {
	fault
	begin, end func()
}

func (f fault) in(e *environment) injectedFault {
	return injectedFault{fault: f, begin: func() { f.begin(e) }, end: func() { f.end(e) }}
}

func faults() []fault {
	kill := func(e *environment) { e.engine.Kill() }
	slow := func(l *Link) {
		l.Slow(20*time.Millisecond, 15*time.Millisecond)
		l.Limit(50_000)
	}
	mendReader, mendWriter := func(e *environment) { e.reader.Mend() }, func(e *environment) { e.writer.Mend() }
	return []fault{{
		name:  "engine paused",
		begin: func(e *environment) { e.engine.Pause() }, end: func(e *environment) { e.engine.Resume() },
		affectsWriter: true, affectsReader: true,
	}, {
		name:  "engine killed and back with what it stored",
		begin: kill, end: func(e *environment) { e.engine.Restart(true) },
		affectsWriter: true, affectsReader: true, durable: true,
	}, {
		name:  "engine killed and back empty",
		begin: kill, end: func(e *environment) { e.engine.Restart(false) },
		affectsWriter: true, affectsReader: true, losesHistory: true,
	}, {
		name:  "reader cut off",
		begin: func(e *environment) { e.reader.Cut() }, end: mendReader,
		affectsReader: true,
	}, {
		name:  "writer cut off",
		begin: func(e *environment) { e.writer.Cut() }, end: mendWriter,
		affectsWriter: true,
	}, {
		name:  "reader receives nothing",
		begin: func(e *environment) { e.reader.Silence() }, end: mendReader,
		affectsReader: true,
	}, {
		name:  "writer receives nothing",
		begin: func(e *environment) { e.writer.Silence() }, end: mendWriter,
		affectsWriter: true,
	}, {
		name:  "reader slow",
		begin: func(e *environment) { slow(e.reader) }, end: mendReader,
	}, {
		name:  "writer slow",
		begin: func(e *environment) { slow(e.writer) }, end: mendWriter,
	}}
}

// checkFault injects a fault during traffic from one node to another, and checks that every message was delivered or
// reported as lost.
func (s *suite) checkFault(writing, reading broker.HistoryBroker, m injectedFault) {
	s.Helper()
	writer, reader := NewFollower(writing), NewFollower(reading)
	s.follow(writer)
	s.follow(reader)
	t, silent := s.newTraffic(writing, 12), s.newTraffic(writing, 1)
	silent.channels = s.channels("silent", 1) // until the fault has ended
	for _, channel := range append(silent.channels, t.channels...) {
		s.call("Subscribe", func(ctx context.Context) error { return reader.Follow(ctx, channel) })
	}
	t.send(t.burst, nil)
	t.awaitDelivery(reader)
	epochs := t.epochs()

	t.send(t.burst, m.begin)
	if m.affectsWriter {
		s.awaitUnhealthy(writer, "the writer's")
	}
	if m.affectsReader {
		s.awaitUnhealthy(reader, "the reader's")
	}
	t.send(t.burst/2, m.end)
	s.awaitHealthy(writer, "the writer's")
	s.awaitHealthy(reader, "the reader's")

	t.send(t.burst, nil)
	t.awaitDelivery(reader)
	t.checkDelivery(reader, m.fault)
	silent.awaitDelivery(reader)
	silent.checkDelivery(reader, m.fault)
	for i, epoch := range t.epochs() {
		if (m.losesHistory || m.renewsEpoch) && epoch == epochs[i] {
			s.Errorf("the epoch is still %q, want a new one", epoch)
		}
	}
}

// awaitUnhealthy returns when a node is unhealthy.
func (s *suite) awaitUnhealthy(f *Follower, whose string) {
	s.Helper()
	s.await(&f.observable, whose+" health to turn into an error", func() bool { return f.currentHealth() != nil })
}

// awaitHealthy returns when a node is healthy.
func (s *suite) awaitHealthy(f *Follower, whose string) {
	s.Helper()
	s.await(&f.observable, whose+" health to turn nil", func() bool { return f.currentHealth() == nil })
}
