package manager

import "sync"

// A burst holds the messages of one upload that its large audience has not been sent yet. Messages published in quick
// succession accumulate, and a goroutine visits each receiver once for all of them: fetching a receiver's queue into
// the processor's cache is nearly the whole cost of a message.
//
// The frames count as sent: they are flushed before a receiver is added or removed, and before anything else is sent to
// one. The upload's lock protects a burst.
type burst struct {
	frames []*Frame
	bytes  int
	// scheduled is set while a goroutine is about to flush the burst.
	scheduled bool
	// run is that goroutine's function, made once for each burst.
	run func()
}

// Bounds of a burst. At the bound, the publisher flushes it.
const (
	burstFrames = 64
	burstBytes  = 256 << 10
)

// bursts sends the messages of uploads to their receivers. Each burst is flushed by a goroutine of its own, so that the
// fan-outs of several large uploads do not wait for each other.
type bursts struct {
	fans     *fanOut
	counters *counters
	tracing  *tracing
	// withUpload locks an upload, if it exists.
	withUpload func(uploadID string, fn func(*upload)) bool

	// mu protects ending. No lock may be acquired under it.
	mu      sync.Mutex
	ending  bool
	running sync.WaitGroup
}

// close returns when all bursts are flushed. Broadcasts may still be under way: they are sent at once.
func (b *bursts) close() {
	b.mu.Lock()
	b.ending = true
	b.mu.Unlock()
	b.running.Wait()
}

// begin counts a goroutine, unless close was called.
func (b *bursts) begin() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.ending {
		b.running.Add(1)
	}
	return !b.ending
}

// send sends a frame to all receivers of an upload, with a short delay for large audiences. The upload's lock is held.
// The caller must flush d after unlocking it; with a nil d nothing is deferred.
func (b *bursts) send(u *upload, f *Frame, d *deferred) {
	if len(u.Receivers()) >= fanOutAlone && b.add(u, f) {
		return
	}
	b.flush(u)
	sent := b.fans.sendDeferred(u.Receivers(), f, d)
	b.counters.sent(sent)
	if b.tracing != nil && f.Traced() {
		b.tracing.sent(f, sent.Queued+sent.Conflated)
	}
}

// add adds a frame to an upload's burst, if it has room, and has the burst flushed. The upload's lock is held.
func (b *bursts) add(u *upload, f *Frame) bool {
	p := u.State.burst
	if p == nil {
		p = &burst{}
		p.run = b.flushLater(u.ID(), p)
		u.State.burst = p
	}
	if p.full(f) {
		return false
	}
	if !p.scheduled {
		if !b.begin() {
			return false
		}
		p.scheduled = true
		go p.run()
	}
	p.frames = append(p.frames, f)
	p.bytes += f.Size()
	return true
}

// flushLater returns the function of the goroutine that flushes a burst.
func (b *bursts) flushLater(uploadID string, p *burst) func() {
	return func() {
		defer b.running.Done()
		b.withUpload(uploadID, func(u *upload) {
			p.scheduled = false
			b.flush(u)
		})
	}
}

// flush sends the frames of an upload's burst, and discards the burst of an audience that has become small. The
// upload's lock is held.
func (b *bursts) flush(u *upload) {
	p := u.State.burst
	if p == nil {
		return
	}
	if len(p.frames) > 0 {
		b.counters.sent(b.fans.send(u.Receivers(), p.frames...))
		b.tracing.sentAll(p.frames, u.Receivers())
		clear(p.frames)
		p.frames, p.bytes = p.frames[:0], 0
	}
	if len(u.Receivers()) < fanOutAlone {
		u.State.burst = nil
	}
}

// full reports whether the frame exceeds the bounds. An empty burst takes any frame.
func (p *burst) full(f *Frame) bool {
	return len(p.frames) >= burstFrames || len(p.frames) > 0 && p.bytes+f.Size() > burstBytes
}
