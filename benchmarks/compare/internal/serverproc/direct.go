package serverproc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/gorilla/websocket"
	"golang.org/x/sys/unix"

	"github.com/shoal-go/shoal/internal/load"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/loadgen"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/message"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/systems"
)

const (
	// directWarm is the number of messages before those that are measured.
	directWarm = 200
	// directPatience is the longest time for clients to subscribe, and to receive the last messages.
	directPatience = 10 * time.Second
)

// direct measures the shortest way: clients of this process, each with a goroutine that reads, and one goroutine that
// publishes at a fixed rate.
func (p *process) direct(q Request) (a Answer, err error) {
	r := &receivers{calls: make([]atomic.Int64, directWarm+q.Messages)}
	defer r.close()
	dialect := p.entry.Dialect(systems.Audience{Channels: 1})
	for i := range q.Clients {
		if err := r.connect(p.addr, dialect, i); err != nil {
			return a, err
		}
	}
	if err := eventually(func() bool { return p.system.Subscriptions() == q.Clients }); err != nil {
		return a, fmt.Errorf("%d of %d clients subscribed: %w", p.system.Subscriptions(), q.Clients, err)
	}
	if a.Late, err = p.publishDirect(q, r); err != nil {
		return a, err
	}
	want := uint64(len(r.calls) * q.Clients) //nolint:gosec // not negative
	if err := eventually(func() bool { return r.received.Load() == want }); err != nil {
		return a, fmt.Errorf("%d of %d messages received: %w", r.received.Load(), want, err)
	}
	r.close()
	planned, called := r.times()
	a.Received, a.Planned, a.Called = want, loadgen.TimesOf(planned), loadgen.TimesOf(called)
	return a, nil
}

// publishDirect publishes each message at its planned time and returns the largest delay of a call.
func (p *process) publishDirect(q Request, r *receivers) (late int64, err error) {
	ticks, start, err := newTicker(time.Duration(float64(time.Second) / q.Rate))
	if err != nil {
		return 0, err
	}
	defer ticks.close()
	for i := 0; i < len(r.calls); {
		expired, err := ticks.wait()
		if err != nil {
			return 0, err
		}
		for ; expired > 0 && i < len(r.calls); expired-- {
			planned := start.Add(time.Duration(i) * ticks.period)
			m := message.Message{Channel: message.Channel(0), Sent: planned.UnixNano(), Number: uint64(i), Size: q.Bytes}
			now := time.Now()
			r.calls[i].Store(now.UnixNano())
			if err := p.system.Publish([]message.Message{m}); err != nil {
				return 0, err
			}
			if i >= directWarm {
				late = max(late, int64(now.Sub(planned)))
			}
			i++
		}
	}
	return late, nil
}

// receivers are WebSocket clients in this process.
type receivers struct {
	// calls are the times at which the messages were published, by their numbers.
	calls    []atomic.Int64
	all      []*receiver
	reading  sync.WaitGroup
	received atomic.Uint64
}

// receiver is one client. Its histograms belong to its goroutine until that has ended.
type receiver struct {
	conn            *websocket.Conn
	dialect         load.Dialect
	planned, called *hdrhistogram.Histogram
}

// connect connects client i, blocks until it is ready, and starts its goroutine.
func (r *receivers) connect(addr string, d load.Dialect, i int) error {
	dialer := websocket.Dialer{HandshakeTimeout: directPatience}
	conn, response, err := dialer.Dial("ws://"+addr+d.Path, nil)
	if err != nil {
		return fmt.Errorf("serverproc: client %d: %w", i, err)
	}
	_ = response.Body.Close()
	c := &receiver{conn: conn, dialect: d, planned: loadgen.NewTimes(), called: loadgen.NewTimes()}
	r.all = append(r.all, c)
	for _, hello := range d.Hello(i) {
		if err := conn.WriteMessage(websocket.TextMessage, hello); err != nil {
			return fmt.Errorf("serverproc: client %d: %w", i, err)
		}
	}
	for ready := false; !ready; {
		_, payload, err := conn.ReadMessage()
		if err != nil {
			return fmt.Errorf("serverproc: client %d: %w", i, err)
		}
		ready = d.Ready(payload)
	}
	r.reading.Go(func() { c.read(r) })
	return nil
}

// read reads until the connection ends.
func (c *receiver) read(r *receivers) {
	for {
		_, payload, err := c.conn.ReadMessage()
		now := time.Now().UnixNano()
		if err != nil {
			return
		}
		sent, ok := message.SentAt(payload)
		number, _ := message.NumberOf(payload)
		if !ok || c.dialect.Data(payload) != 1 || number >= uint64(len(r.calls)) {
			continue
		}
		if number >= directWarm {
			_ = c.planned.RecordValue(now - sent)
			_ = c.called.RecordValue(now - r.calls[number].Load())
		}
		r.received.Add(1)
	}
}

// close closes all connections and waits for the goroutines. It may be called again.
func (r *receivers) close() {
	for _, c := range r.all {
		_ = c.conn.Close()
	}
	r.reading.Wait()
}

// times merges the histograms of all clients: from the planned times of the messages, and from the calls.
func (r *receivers) times() (planned, called *hdrhistogram.Histogram) {
	planned, called = loadgen.NewTimes(), loadgen.NewTimes()
	for _, c := range r.all {
		planned.Merge(c.planned)
		called.Merge(c.called)
	}
	return planned, called
}

// eventually polls a condition.
func eventually(condition func() bool) error {
	const often = time.Millisecond
	for end := time.Now().Add(directPatience); !condition(); time.Sleep(often) {
		if time.Now().After(end) {
			return errors.New("serverproc: not in time")
		}
	}
	return nil
}

// ticker expires at exact times. It wakes its goroutine through the runtime's poller, as a request does that makes a
// server publish: the runtime's timers are a millisecond coarse, and a thread that sleeps by itself hands its processor
// back late.
type ticker struct {
	file   *os.File
	period time.Duration
}

// newTicker returns a ticker and the time of its first expiry.
func newTicker(period time.Duration) (*ticker, time.Time, error) {
	const lead = 10 * time.Millisecond
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("serverproc: no timer: %w", err)
	}
	t := &ticker{os.NewFile(uintptr(fd), "timer"), period} //nolint:gosec // not negative
	start := time.Now().Add(lead)
	err = unix.TimerfdSettime(fd, 0, &unix.ItimerSpec{
		Interval: unix.NsecToTimespec(int64(period)), Value: unix.NsecToTimespec(int64(lead)),
	}, nil)
	if err != nil {
		t.close()
		return nil, time.Time{}, fmt.Errorf("serverproc: no timer: %w", err)
	}
	return t, start, nil
}

// wait blocks until the timer has expired and returns how often it has since the last call.
func (t *ticker) wait() (expired uint64, err error) {
	var count [8]byte
	if _, err := t.file.Read(count[:]); err != nil {
		return 0, fmt.Errorf("serverproc: the timer: %w", err)
	}
	return binary.NativeEndian.Uint64(count[:]), nil
}

func (t *ticker) close() { _ = t.file.Close() }
