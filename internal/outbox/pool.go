package outbox

import (
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoal-go/shoal/internal/frame"
)

// Options configure a Pool. The zero value is the documented default, and so is anything below zero.
type Options struct {
	// Writers is the number of goroutines that write. 0: GOMAXPROCS.
	Writers int
	// MaxBytes and MaxMessages bound what one connection may have waiting, control frames aside.
	// 0: 1 MiB and 1024.
	MaxBytes    int
	MaxMessages int
	// MaxAge bounds how long a message may wait for a slow client, and so how long a write may be stuck.
	// 0: 10 s. It is kept to the millisecond, and is one day at most.
	MaxAge time.Duration
	// CloseTimeout bounds all that Outbox.Close does: flush, close frame, waiting for the peer. 0: 5 s.
	CloseTimeout time.Duration
}

func (o Options) withDefaults() Options {
	if o.Writers <= 0 {
		o.Writers = runtime.GOMAXPROCS(0)
	}
	if o.MaxBytes <= 0 {
		o.MaxBytes = 1 << 20
	}
	if o.MaxMessages <= 0 {
		o.MaxMessages = 1024
	}
	if o.MaxAge <= 0 {
		o.MaxAge = 10 * time.Second
	}
	if o.CloseTimeout <= 0 {
		o.CloseTimeout = 5 * time.Second
	}
	o.MaxAge = min(max(o.MaxAge, time.Millisecond), 24*time.Hour)
	return o
}

// controlBound bounds the control lane. A healthy connection has a ping or a pong waiting, and perhaps an
// answer about its authentication.
var controlBound = tally{frames: 64, bytes: 16 << 10}

// A Pool owns the goroutines that write to connections. Its methods may be called from any number of
// goroutines; only Close blocks.
type Pool struct {
	writers      []*writer
	bound        tally
	maxAge       time.Duration
	closeTimeout time.Duration
	// slow is what an outbox sends before it closes itself, unless its Config says otherwise.
	slow  []*frame.Frame
	start time.Time

	// chunks, indexes and batches hold *chunk, index and *batch for reuse.
	chunks, indexes, batches sync.Pool

	// What stands above never changes, and every Send reads it; what follows changes now and then.
	_    [cacheLine]byte
	turn atomic.Uint32
	// running counts the writers, the goroutines of outboxes, and the timers that may become one.
	running sync.WaitGroup
}

// NewPool starts a pool's writers. The caller must Close it.
func NewPool(opt Options) *Pool {
	opt = opt.withDefaults()
	p := &Pool{
		bound:        tally{frames: opt.MaxMessages, bytes: opt.MaxBytes},
		maxAge:       opt.MaxAge,
		closeTimeout: opt.CloseTimeout,
		slow:         []*frame.Frame{frame.NewClose(1013, "Slow consumer")},
		start:        time.Now(),
	}
	for range opt.Writers {
		p.writers = append(p.writers, newWriter())
	}
	for _, w := range p.writers {
		w.peers = p.writers
		p.running.Go(w.run)
	}
	return p
}

// neighbours is how many connections that come after one another share a writer. What the kernel keeps of them
// lies side by side, and two processors that write to neighbours in turn slow each other down.
const neighbours = 256

// Config is what is particular to one connection.
type Config struct {
	// Variant is the wire form of the connection's frames.
	Variant frame.Variant
	// Overflow are the frames that the outbox sends when it closes itself because the client is too slow;
	// the last one is the close frame. They may be shared between connections. Empty: a close frame with
	// 1013 "Slow consumer".
	Overflow []*frame.Frame
}

// Open returns the outbox of a connection. From now on nobody else may write to conn, set its write
// deadline or close it, and somebody must read from it and call PeerGone when that ends.
//
// A connection that implements syscall.Conn is written to past its own Write method, so a wrapper whose
// Write does something of its own must not let that method show through. In a closed pool the outbox is
// aborted from the start.
func (p *Pool) Open(conn net.Conn, cfg Config) *Outbox {
	o := &Outbox{
		pool:     p,
		writer:   p.writers[p.turn.Add(1)/neighbours%uint32(len(p.writers))], //nolint:gosec // a handful
		conn:     conn,
		raw:      rawConn(conn),
		variant:  cfg.Variant,
		overflow: cfg.Overflow,
	}
	if len(o.overflow) == 0 {
		o.overflow = p.slow
	}
	if !o.writer.link(o) {
		o.Abort()
	}
	return o
}

// Close aborts every outbox that is left and returns when no goroutine of the pool or of its outboxes is
// running any more. It may be called again, and then waits as well.
func (p *Pool) Close() {
	for _, w := range p.writers {
		for _, o := range w.closeOpen() {
			o.Abort()
		}
	}
	// No outbox can find its way to a writer's list from here on, so a writer that has emptied its list
	// may end.
	for _, w := range p.writers {
		w.stop()
	}
	p.running.Wait()
}

// clock returns the milliseconds since the pool was made. They wrap after 49 days: only differences mean
// something, and no entry waits for more than a day.
func (p *Pool) clock() uint32 {
	return uint32(time.Since(p.start) / time.Millisecond) //nolint:gosec // wraps on purpose
}
