package outbox

import "github.com/shoal-go/shoal/internal/frame"

// An index knows, for each upload, the waiting state that a newer one may replace: the last waiting message
// of its upload, if that is a state. It exists only under pressure, so the usual path pays nothing for it.
type index map[string]*entry

// note takes account of an entry that was queued behind all others. Anything that is not a state shields
// the states before it: replacing one of those would let the newer state overtake.
func (x index) note(e *entry) {
	switch key := e.frame.UploadID(); {
	case key == "": // of no upload: there is nothing it could be newer than
	case e.frame.Class() == frame.State:
		x[key] = e
	default:
		delete(x, key)
	}
}

// drop takes account of an entry that leaves the queue.
func (x index) drop(e *entry) {
	if key := e.frame.UploadID(); x[key] == e {
		delete(x, key)
	}
}

// underPressure reports whether states may be replaced: the socket has refused bytes, or the queue is at
// least half full.
func (o *Outbox) underPressure() bool {
	bound := o.pool.bound
	return o.stalled || 2*o.data.held.frames >= bound.frames || 2*o.data.held.bytes >= bound.bytes
}

// replaceable returns the waiting entry that the frame may replace, or nil.
func (o *Outbox) replaceable(f *frame.Frame) *entry {
	if f.Class() != frame.State || !o.underPressure() {
		return nil
	}
	if o.index == nil {
		o.index, _ = o.pool.indexes.Get().(index)
		if o.index == nil {
			o.index = make(index)
		}
		for e := range o.data.all() {
			o.index.note(e)
		}
	}
	return o.index[f.UploadID()]
}

// dropIndex gives up the index, if there is one.
func (o *Outbox) dropIndex() {
	if o.index != nil {
		clear(o.index)
		o.pool.indexes.Put(o.index)
		o.index = nil
	}
}
