package outbox

import "github.com/shoal-go/shoal/internal/frame"

// index maps an upload to its queued state that a newer state may replace: the last queued frame of the upload, if
// that is a state. It exists only under pressure, so clients that keep up do not pay for it.
type index map[string]*queuedFrame

// add updates the index for a frame appended to the queue. An event or terminal removes the upload's state from the
// index: replacing that state would move the newer one ahead of the event.
func (x index) add(e *queuedFrame) {
	switch key := e.frame.UploadID(); {
	case key == "": // belongs to no upload and is never conflated
	case e.frame.Class() == frame.State:
		x[key] = e
	default:
		delete(x, key)
	}
}

// remove updates the index for a frame that leaves the queue.
func (x index) remove(e *queuedFrame) {
	if key := e.frame.UploadID(); x[key] == e {
		delete(x, key)
	}
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
		o.index, _ = o.pool.indexes.Get().(index)
		if o.index == nil {
			o.index = make(index)
		}
		for e := range o.data.all() {
			o.index.add(e)
		}
	}
	return o.index[f.UploadID()]
}

// conflate replaces a queued state by a newer one, which inherits the enqueue time: the client has been waiting for
// news of this upload since then.
func (o *Outbox) conflate(e *queuedFrame, f *frame.Frame) Outcome {
	growth := amount{bytes: f.Size() - e.frame.Size()}
	if !o.data.unwritten.fits(growth, o.pool.limit) {
		return o.rejectOverLimit()
	}
	o.data.replace(e, f)
	e.skipped++
	return Conflated
}

// dropIndex returns the index to the pool, if there is one.
func (o *Outbox) dropIndex() {
	if o.index != nil {
		clear(o.index)
		o.pool.indexes.Put(o.index)
		o.index = nil
	}
}
