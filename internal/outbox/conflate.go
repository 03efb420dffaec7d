package outbox

import "github.com/shoal-go/shoal/internal/frame"

// index finds queued states that a newer state may replace. It exists only under pressure, so clients that keep up do
// not pay for it.
type index struct {
	states  map[stateKey]indexedState
	uploads map[string]indexedUpload
}

// stateKey identifies the states of which only the newest matters.
type stateKey struct{ upload, key string }

func keyOf(f *frame.Frame) stateKey { return stateKey{f.UploadID(), f.StateKey()} }

type indexedState struct {
	entry *queuedFrame
	era   uint32
}

type indexedUpload struct {
	// last is the last queued frame of the upload.
	last *queuedFrame
	// era counts the events and terminals of the upload: a state may be replaced only by one of the same era, since the
	// client would otherwise miss it between two events.
	era uint32
}

// add updates the index for a frame appended to the queue.
func (x *index) add(e *queuedFrame) {
	upload := e.frame.UploadID()
	if upload == "" { // belongs to no upload and is never conflated
		return
	}
	u := x.uploads[upload]
	u.last = e
	if e.frame.Class() == frame.State {
		x.states[keyOf(e.frame)] = indexedState{e, u.era}
	} else {
		u.era++
	}
	x.uploads[upload] = u
}

// remove updates the index for a frame that leaves the queue.
func (x *index) remove(e *queuedFrame) {
	if upload := e.frame.UploadID(); x.uploads[upload].last == e {
		delete(x.uploads, upload)
	}
	if key := keyOf(e.frame); x.states[key].entry == e {
		delete(x.states, key)
	}
}

// replaceable returns the queued state that f may replace, or nil.
func (x *index) replaceable(f *frame.Frame) *queuedFrame {
	if state := x.states[keyOf(f)]; state.entry != nil && state.era == x.uploads[f.UploadID()].era {
		return state.entry
	}
	return nil
}

// underPressure reports whether states may be conflated: the socket has returned EAGAIN, or the queue is at
// least half full.
func (o *Outbox) underPressure() bool {
	limit := o.pool.limit
	return o.stalled || 2*o.data.unwritten.frames >= limit.frames || 2*o.data.unwritten.bytes >= limit.bytes
}

// replaceable returns the queued state that f may replace, or nil.
func (o *Outbox) replaceable(f *frame.Frame) *queuedFrame {
	if f.Class() != frame.State || !o.underPressure() {
		return nil
	}
	if o.index == nil {
		o.index, _ = o.pool.indexes.Get().(*index)
		if o.index == nil {
			o.index = &index{make(map[stateKey]indexedState), make(map[string]indexedUpload)}
		}
		for e := range o.data.all() {
			o.index.add(e)
		}
	}
	return o.index.replaceable(f)
}

// conflate replaces a queued state by a newer one. If it is the last queued frame of its upload, the newer one takes
// its place and inherits the enqueue time: the client has been waiting for news of this upload since then. Otherwise
// the newer one is queued at the end, behind the messages that were published before it, so that offsets increase.
func (o *Outbox) conflate(e *queuedFrame, f *frame.Frame) Outcome {
	growth := amount{bytes: f.Size() - e.frame.Size()}
	if growth.bytes > 0 && !o.data.unwritten.fits(growth, o.pool.limit) && !o.tolerates(growth) {
		return o.rejectOverLimit()
	}
	if o.index.uploads[f.UploadID()].last == e {
		o.data.replace(e, f)
		e.skipped++
		return Conflated
	}
	skipped := e.skipped + 1
	o.index.remove(e)
	o.data.remove(e, &o.pool.chunks)
	if o.data.sparse() {
		o.dropIndex()
		o.data.compact(&o.pool.chunks)
	}
	o.push(queuedFrame{frame: f, enqueued: o.enqueueTime(), skipped: skipped})
	return Conflated
}

// push appends a frame to the data queue.
func (o *Outbox) push(e queuedFrame) {
	queued := o.data.push(&o.pool.chunks, e)
	if o.index != nil {
		o.index.add(queued)
	}
}

// dropIndex returns the index to the pool, if there is one.
func (o *Outbox) dropIndex() {
	if o.index != nil {
		clear(o.index.states)
		clear(o.index.uploads)
		o.pool.indexes.Put(o.index)
		o.index = nil
	}
}
