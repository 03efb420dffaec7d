package manager

import (
	"maps"
	"slices"
	"sync"
)

// A relay sends messages to large audiences in batches on its own goroutine. Messages that are published to an upload
// in quick succession accumulate, and the relay visits each receiver once for all of them: fetching a receiver's queue
// into the processor's cache is nearly the whole cost of a message.
//
// Accumulated messages count as sent: any other caller that locks the upload flushes them first.
type relay struct {
	fans     *fanOut
	counters *counters
	tracing  *tracing
	// settleUpload locks an upload and flushes its backlog.
	settleUpload func(*upload)
	// spare holds backlogs for reuse.
	spare   sync.Pool
	running sync.WaitGroup

	// mu protects the fields below. No lock may be acquired under it.
	mu sync.Mutex
	// waiting are the uploads with a backlog, until it is sent; list contains the uploads that the relay has not
	// started on yet, in their order.
	waiting map[*upload]*backlog
	list    []*upload
	wake    *sync.Cond
	ending  bool
}

// A backlog holds the unsent messages for an upload's receivers. The upload's lock protects it.
type backlog struct {
	frames []*Frame
	bytes  int
}

// Bounds of a backlog. At the bound, the publisher sends it.
const (
	backlogFrames = 64
	backlogBytes  = 256 << 10
)

// newRelay returns a relay that is not running yet.
func newRelay(fans *fanOut, c *counters, t *tracing) *relay {
	r := &relay{
		fans:     fans,
		counters: c,
		tracing:  t,
		spare:    sync.Pool{New: func() any { return new(backlog) }},
		waiting:  map[*upload]*backlog{},
	}
	r.wake = sync.NewCond(&r.mu)
	return r
}

// start starts the relay with a function that locks an upload and flushes its backlog.
func (r *relay) start(settleUpload func(*upload)) {
	r.settleUpload = settleUpload
	r.running.Go(r.run)
}

// close returns when all that waits has been sent. Broadcasts may still be under way.
func (r *relay) close() {
	r.mu.Lock()
	r.ending = true
	r.mu.Unlock()
	r.wake.Signal()
	r.running.Wait()
}

func (r *relay) run() {
	var list []*upload
	for {
		r.mu.Lock()
		for len(r.list) == 0 && !r.ending {
			r.wake.Wait()
		}
		list, r.list = r.list, list[:0]
		r.mu.Unlock()
		if len(list) == 0 {
			return
		}
		for _, u := range list {
			r.settleUpload(u)
		}
		clear(list)
	}
}

// flush returns when all that waits at the moment has been sent.
func (r *relay) flush() {
	r.mu.Lock()
	uploads := slices.Collect(maps.Keys(r.waiting))
	r.mu.Unlock()
	for _, u := range uploads {
		r.settleUpload(u)
	}
}

// send sends a frame to all receivers of an upload, with a short delay for large audiences. The upload is locked, and
// may have a backlog. The caller has to flush d after unlocking the upload; nil: it will not.
func (r *relay) send(u *upload, f *Frame, d *deferred) {
	if len(u.Receivers()) >= fanOutAlone && r.putOff(u, f) {
		u.PutOff()
		return
	}
	if u.Unsettled() {
		r.settle(u)
	}
	sent := r.fans.sendDeferred(u.Receivers(), f, d)
	r.counters.sent(sent)
	if r.tracing != nil && f.Traced() {
		r.tracing.sent(f, sent.Queued+sent.Conflated)
	}
}

// putOff adds a frame to an upload's backlog, if it has room.
func (r *relay) putOff(u *upload, f *Frame) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := r.waiting[u]
	if r.ending || b.full(f) {
		return false
	}
	if b == nil {
		b = r.spare.Get().(*backlog) //nolint:forcetypeassert // the pool holds nothing else
		r.waiting[u] = b
		r.list = append(r.list, u)
		r.wake.Signal()
	}
	b.frames = append(b.frames, f)
	b.bytes += f.Size()
	return true
}

// settle sends the backlog of an upload, which is locked.
func (r *relay) settle(u *upload) {
	r.mu.Lock()
	b := r.waiting[u]
	r.mu.Unlock()
	if b == nil {
		return
	}
	r.counters.sent(r.fans.send(u.Receivers(), b.frames...))
	r.tracing.sentAll(b.frames, len(u.Receivers()))
	r.mu.Lock()
	delete(r.waiting, u)
	r.mu.Unlock()
	clear(b.frames)
	b.frames, b.bytes = b.frames[:0], 0
	r.spare.Put(b)
}

// full reports whether the frame exceeds the bounds. b may be nil, an empty backlog.
func (b *backlog) full(f *Frame) bool {
	return b != nil && (len(b.frames) >= backlogFrames || b.bytes+f.Size() > backlogBytes)
}
