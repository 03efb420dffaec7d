package outbox

import (
	"cmp"
	"math"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/shoal-go/shoal/internal/frame"
)

// Options configures a Pool. Zero and negative values select the documented defaults.
type Options struct {
	// Writers is the number of writer goroutines. 0: GOMAXPROCS.
	Writers int
	// MaxBytes and MaxMessages limit the unwritten frames of one connection, without control frames.
	// 0: 1 MiB and 1024.
	MaxBytes    int
	MaxMessages int
	// MaxBurstBytes and MaxBurstMessages limit the unwritten frames of a connection that is not to blame for exceeding
	// MaxBytes and MaxMessages: its writer has not served it yet, or its client has not read for less than a
	// second. 0: 16 times MaxBytes and 64 times MaxMessages, at least 16 MiB and 65,536.
	MaxBurstBytes    int
	MaxBurstMessages int
	// MaxRecoveryBytes limits the stored messages that are queued for one connection (see Outbox.Recover), each counted
	// with 32 bytes more than its size. Messages beyond it are read from the history later. 0: 8 MiB.
	MaxRecoveryBytes int
	// UnsentBytes limits the bytes of one TCP connection that the kernel holds and has not sent yet, beside one write of
	// up to 64 KiB: frames beyond it remain in the queue, where a newer state may replace an older one. After a stall the
	// kernel holds at most half of it, beside one write of up to 4 KiB or one larger frame. 0: 16 KiB; negative:
	// the system's limit, up to some megabytes. On systems other than Linux and macOS the socket's whole send buffer is
	// limited.
	UnsentBytes int
	// MaxAge limits the time that a frame is queued for a slow client, and thereby the duration of a blocked write.
	// 0: 10 s. Its resolution is 1 ms, its maximum 24 h.
	MaxAge time.Duration
	// CloseTimeout limits the duration of Outbox.Close: flushing the queues, writing the close frame and waiting for the
	// peer. 0: 5 s.
	CloseTimeout time.Duration
	// Written is called with the age of a written frame, the oldest live one of a batch, for a sample of the batches.
	// Waited is called with the time for which the oldest frame of a slow connection had waited when it was written. Both
	// are called by the goroutines that write, and must not block. nil: no calls.
	Written func(age time.Duration)
	Waited  func(age time.Duration)
	// Traced is called with each written frame for which Traced reports true. It is called like Written. nil: no calls.
	Traced func(*frame.Frame)
	// OnPanic is called when a method of a connection has panicked, with the stack. The connection is aborted. nil: no
	// call.
	OnPanic func(stack []byte)
}

// maxLimit bounds the limits, so that sums and multiples of them do not overflow.
const maxLimit = math.MaxInt / 128

func (o Options) withDefaults() Options {
	if o.Writers <= 0 {
		o.Writers = runtime.GOMAXPROCS(0)
	}
	if o.MaxBytes <= 0 {
		o.MaxBytes = 1 << 20
	}
	o.MaxBytes, o.MaxMessages = min(o.MaxBytes, maxLimit), min(o.MaxMessages, maxLimit)
	o.UnsentBytes = cmp.Or(o.UnsentBytes, 16<<10)
	if o.MaxMessages <= 0 {
		o.MaxMessages = 1024
	}
	if o.MaxBurstBytes <= 0 {
		o.MaxBurstBytes = max(16*o.MaxBytes, 16<<20)
	}
	if o.MaxBurstMessages <= 0 {
		o.MaxBurstMessages = max(64*o.MaxMessages, 1<<16)
	}
	if o.MaxRecoveryBytes <= 0 {
		o.MaxRecoveryBytes = 8 << 20
	}
	if o.MaxAge <= 0 {
		o.MaxAge = 10 * time.Second
	}
	if o.CloseTimeout <= 0 {
		o.CloseTimeout = 5 * time.Second
	}
	o.MaxAge = min(max(o.MaxAge, time.Millisecond), 24*time.Hour)
	o.MaxBurstBytes, o.MaxRecoveryBytes = min(o.MaxBurstBytes, maxLimit), min(o.MaxRecoveryBytes, maxLimit)
	return o
}

// controlLimit limits the control queue. A healthy connection has at most a ping, a few pongs and an authentication
// result queued.
var controlLimit = amount{frames: 64, bytes: 16 << 10}

// burstAge is the time in milliseconds after which a client that reads nothing is to blame for exceeding the limits.
const burstAge = 1000

// Pool owns the writer goroutines. Its methods may be called from any number of goroutines; only Close blocks.
type Pool struct {
	writers      []*writer
	limit, burst amount
	maxRecovery  int
	unsentBytes  int
	maxAge       time.Duration
	closeTimeout time.Duration
	// overflow is the default of Config.Overflow.
	overflow func() []*frame.Frame
	start    time.Time

	onPanic         func(stack []byte)
	written, waited func(age time.Duration)
	traced          func(*frame.Frame)
	// chunks, indexes, batches and recoveries hold values of type *chunk, index, *batch and *recovery for reuse.
	chunks, indexes, batches, recoveries sync.Pool

	// The fields above never change and are read by every Send; the padding keeps them in cache lines that no
	// processor writes to.
	_    [cacheLine]byte
	turn atomic.Uint32
	// flushers holds the socketWriters of Flush. deferred is the time, since start, until which the frames of
	// SendDeferred would have lasted at one each flushInterval.
	flushers sync.Pool
	deferred atomic.Int64
	// flushing is read-locked by each Flush, which never waits for a client, and protects closed: no Flush begins to
	// write any more.
	flushing sync.RWMutex
	closed   bool

	// running counts the writers, the drain goroutines and the set timers.
	running sync.WaitGroup
}

// slowConsumer are the frames of the default of Config.Overflow.
var slowConsumer = []*frame.Frame{frame.NewClose(1013, "Slow consumer")}

// NewPool returns a pool with running writers. The caller must call Close.
func NewPool(opt Options) *Pool {
	opt = opt.withDefaults()
	p := &Pool{
		limit:        amount{frames: opt.MaxMessages, bytes: opt.MaxBytes},
		burst:        amount{frames: opt.MaxBurstMessages, bytes: opt.MaxBurstBytes},
		maxRecovery:  opt.MaxRecoveryBytes,
		onPanic:      opt.OnPanic,
		written:      opt.Written,
		waited:       opt.Waited,
		traced:       opt.Traced,
		unsentBytes:  opt.UnsentBytes,
		maxAge:       opt.MaxAge,
		closeTimeout: opt.CloseTimeout,
		overflow:     func() []*frame.Frame { return slowConsumer },
		start:        time.Now(),
		flushers:     sync.Pool{New: func() any { return newSocketWriter() }},
	}
	for range opt.Writers {
		p.writers = append(p.writers, newWriter())
	}
	for _, w := range p.writers {
		w.siblings = p.writers
		p.running.Go(w.run)
	}
	return p
}

// connsPerWriterRun is the number of consecutively opened connections that share a writer. The kernel allocates their
// sockets next to each other, and two processors that write to adjacent sockets contend for cache lines.
const connsPerWriterRun = 256

// Config configures the outbox of one connection.
type Config struct {
	// Variant is the wire form of the connection's frames.
	Variant frame.Variant
	// Raw gives access to the non-blocking descriptor of the connection, if Open cannot find it: Open writes to the
	// descriptors of *net.TCPConn and *net.UnixConn only, because the Write method of any other type may do more than
	// write. nil: such a connection is written to with its Write method.
	Raw syscall.RawConn
	// Overflow is called once, when the outbox closes itself because the client is too slow, and returns the frames that
	// it sends then; the last one must be a close frame. They may be shared between connections. It is called with the
	// outbox and locks of the sender locked, so it must neither block nor use them. nil: a close frame with 1013 "Slow
	// consumer".
	Overflow func() []*frame.Frame
	// Events encodes the frames as Server-Sent Events. It belongs to the outbox from now on. nil: as WebSocket frames.
	Events *frame.EventEncoder
	// Corked: nothing is written before Uncork or Reject, one of which must be called.
	Corked bool
}

// Open returns the outbox of a connection. From now on the caller must not write to conn, set its write deadline or
// close it; it must read from conn and call PeerGone when reading ends.
//
// In a closed pool the outbox is already aborted.
func (p *Pool) Open(conn net.Conn, cfg Config) *Outbox {
	o := &Outbox{
		pool:     p,
		writer:   p.writers[p.turn.Add(1)/connsPerWriterRun%uint32(len(p.writers))], //nolint:gosec // a small number
		conn:     conn,
		raw:      cfg.Raw,
		variant:  cfg.Variant,
		overflow: cfg.Overflow,
		events:   cfg.Events,
		owned:    cfg.Corked,
	}
	if o.raw == nil {
		o.raw = rawConn(conn)
	}
	if tcp := tcpConn(conn); tcp != nil {
		p.LimitUnsent(tcp)
	}
	if o.overflow == nil {
		o.overflow = p.overflow
	}
	if !o.writer.link(o) {
		o.Abort()
	}
	return o
}

// LimitUnsent limits the bytes that the kernel holds for a connection and has not sent to Options.UnsentBytes. Open
// does that where it finds a *net.TCPConn; the caller does it for a socket that is no longer one. It does not block.
func (p *Pool) LimitUnsent(conn *net.TCPConn) {
	if p.unsentBytes > 0 {
		limitUnsent(conn, p.unsentBytes)
	}
}

// Close aborts all open outboxes and blocks until all goroutines of the pool and of its outboxes have ended. It may be
// called more than once; each call blocks until then.
func (p *Pool) Close() {
	for _, w := range p.writers {
		for _, o := range w.closeOpen() {
			o.Abort()
		}
	}
	p.flushing.Lock()
	p.closed = true
	p.flushing.Unlock()
	// From here on no outbox is put on a ready list, so writers may end once their lists are empty.
	for _, w := range p.writers {
		w.stop()
	}
	p.running.Wait()
}

// clock returns the milliseconds since NewPool. The value wraps after 49 days: only differences are meaningful, and no
// frame is queued for more than a day.
func (p *Pool) clock() uint32 {
	return uint32(time.Since(p.start) / time.Millisecond) //nolint:gosec // wraps on purpose
}
