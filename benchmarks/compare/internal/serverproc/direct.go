package serverproc

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"

	"github.com/shoal-go/shoal/internal/load"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/message"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/systems"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/worker"
)

const (
	// directWarm is the number of messages before those that are measured.
	directWarm = 200
	// directPatience is the longest time for clients to subscribe, and to receive the last messages.
	directPatience = 10 * time.Second
)

// DirectTimes are the times until messages were received, from the planned time and from the call that published, the
// number received, and the largest delay of a call in nanoseconds.
type DirectTimes struct {
	Planned, Called load.Percentiles
	Received        uint64
	Late            int64
}

// Direct measures the shortest way: clients of this process, each with a goroutine that reads, and one goroutine that
// publishes at a fixed rate to the only channel.
func (s *server) Direct(q results.Params, a *DirectTimes) (err error) {
	r := &receivers{calls: make([]atomic.Int64, directWarm+q.Messages), planned: load.NewTimes(), called: load.NewTimes()}
	defer r.close()
	dialect := s.entry.Dialect(systems.Audience{Channels: 1})
	for i := range q.Connections {
		if err := r.connect(s.addr, dialect, i); err != nil {
			return fmt.Errorf("serverproc: client %d: %w", i, err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), directPatience)
	defer cancel()
	if err := worker.Poll(ctx, func() bool { return s.system.Subscriptions() == q.Connections }); err != nil {
		return fmt.Errorf("%d of %d clients subscribed: %w", s.system.Subscriptions(), q.Connections, err)
	}
	if a.Late, err = s.publishDirect(q, r); err != nil {
		return err
	}
	a.Received = uint64(len(r.calls) * q.Connections) //nolint:gosec // not negative
	ctx, cancel = context.WithTimeout(context.Background(), directPatience)
	defer cancel()
	if err := worker.Poll(ctx, func() bool { return r.received.Load() == a.Received }); err != nil {
		return fmt.Errorf("%d of %d messages received: %w", r.received.Load(), a.Received, err)
	}
	a.Planned, a.Called = r.planned.Percentiles(), r.called.Percentiles()
	return nil
}

// publishDirect publishes each message at its planned time and returns the largest delay of a call.
func (s *server) publishDirect(q results.Params, r *receivers) (late int64, err error) {
	_, err = worker.Pace(q.Rate, len(r.calls), func(i int, planned time.Time) error {
		number := uint64(i) //nolint:gosec // not negative
		m := message.Message{Channel: message.Channel(0), Sent: planned.UnixNano(), Number: number, Size: q.Bytes}
		now := time.Now()
		r.calls[i].Store(now.UnixNano())
		if i >= directWarm {
			late = max(late, int64(now.Sub(planned)))
		}
		return s.system.Publish([]message.Message{m})
	})
	return late, err
}

// receivers are WebSocket clients in this process, each with a goroutine.
type receivers struct {
	// calls are the times at which the messages were published, by their numbers.
	calls           []atomic.Int64
	planned, called *load.Times
	conns           []*websocket.Conn
	reading         sync.WaitGroup
	received        atomic.Uint64
}

// connect connects client i, blocks until it is ready, and starts its goroutine.
func (r *receivers) connect(addr string, d load.Dialect, i int) error {
	dialer := websocket.Dialer{HandshakeTimeout: directPatience}
	conn, response, err := dialer.Dial("ws://"+addr+d.Path, nil)
	if err != nil {
		return err
	}
	_ = response.Body.Close()
	r.conns = append(r.conns, conn)
	for _, hello := range d.Hello(i) {
		if err := conn.WriteMessage(websocket.TextMessage, hello); err != nil {
			return err
		}
	}
	for ready := false; !ready; {
		_, payload, err := conn.ReadMessage()
		if err != nil {
			return err
		}
		ready = d.Ready(payload)
	}
	r.reading.Go(func() { r.read(conn, d) })
	return nil
}

// read reads until the connection ends.
func (r *receivers) read(conn *websocket.Conn, d load.Dialect) {
	for {
		_, payload, err := conn.ReadMessage()
		now := time.Now().UnixNano()
		if err != nil {
			return
		}
		sent, number, ok := message.Read(payload)
		if !ok || d.Data(payload) != 1 || number >= uint64(len(r.calls)) {
			continue
		}
		if number >= directWarm {
			r.planned.Add(now - sent)
			r.called.Add(now - r.calls[number].Load())
		}
		r.received.Add(1)
	}
}

// close closes all connections and waits for the goroutines.
func (r *receivers) close() {
	for _, conn := range r.conns {
		_ = conn.Close()
	}
	r.reading.Wait()
}
