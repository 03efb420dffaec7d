package sinks

import (
	"context"
	"math/rand/v2"
	"strconv"
	"unsafe"

	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/shard"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/message"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/systems"
)

// sink is a connection that counts. It fills a cache line, as the part of a real one does that a broadcast
// touches. Only who holds the upload's lock writes to it.
type sink struct {
	got uint64
	_   [56]byte
}

// Touched is how many bytes of memory a broadcast touches for each receiver: its slot in the upload, and it.
const Touched = unsafe.Sizeof(shard.Receiver[manager.Conn, struct{}]{}) + unsafe.Sizeof(sink{})

func (s *sink) Send(*manager.Frame) manager.Outcome { s.got++; return manager.Queued }

func (s *sink) Close(manager.CloseReason) {}

func userID(i int) string { return "user-" + strconv.Itoa(i) }

func (p *process) connect(i int) error { return p.manager.Connect(userID(i), p.conns[i]) }

// order is the order in which the connections subscribe, and so lie in their upload. In a server that has run
// for a while, where they lie in memory has nothing to do with it.
func (p *process) order(shuffled bool) []int {
	if shuffled {
		return rand.New(rand.NewPCG(1, 2)).Perm(len(p.conns)) //nolint:gosec // the same each time
	}
	order := make([]int, len(p.conns))
	for i := range order {
		order[i] = i
	}
	return order
}

func (p *process) subscribe(i int) error { return p.follow(i, i%p.uploads) }

func (p *process) follow(i, upload int) error {
	return p.manager.SubscribeConn(context.Background(), userID(i), p.conns[i], message.Channel(upload),
		manager.SubscribeOptions{})
}

// publish does all that a message takes, from the application's value on: checking, encoding, history, delivery.
func (p *process) publish(upload int) error {
	m := message.Message{Channel: message.Channel(upload), Size: p.bytes}
	_, err := p.manager.Publish(context.Background(), m.Channel, systems.Progress(m))
	return err
}

// churn has a user follow one more upload and leave it again.
func (p *process) churn(i, upload int) error {
	if i%p.uploads == upload { // it stays with its own
		return nil
	}
	if err := p.follow(i, upload); err != nil {
		return err
	}
	p.manager.UnsubscribeConn(userID(i), p.conns[i], message.Channel(upload))
	return nil
}
