package replay

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/shoal-go/shoal/internal/frame"
)

// naive is a reference implementation of Queue: it holds all frames of each upload in one list, without a limit and
// without reading any of them later.
type naive struct {
	lists map[string][]*naiveEntry
	// held are the uploads whose live frames have to follow the answer of a hold.
	held  map[string]bool
	holds int
	ahead []*frame.Frame
}

// naiveEntry is an unwritten frame.
type naiveEntry struct {
	frame *frame.Frame
	// live: it was sent live, and has not been put back since. skipped is the number of states that it has replaced.
	live    bool
	skipped uint32
	// popped: it is being written. replaced and answered: a replay has replaced it since, whose answer follows.
	popped, replaced, answered bool
}

func (n *naive) add(f *frame.Frame, live bool) {
	n.lists[f.UploadID()] = append(n.lists[f.UploadID()], &naiveEntry{frame: f, live: live})
}

// remove removes the entries of an upload that are not being written and pass a test, and returns their frames.
func (n *naive) remove(id string, test func(*frame.Frame) bool) (removed []*frame.Frame) {
	n.lists[id] = slices.DeleteFunc(n.lists[id], func(e *naiveEntry) bool {
		if e.popped || !test(e.frame) {
			return false
		}
		removed = append(removed, e.frame)
		return true
	})
	return removed
}

func (n *naive) recover(r Replay, variant frame.Variant) {
	if n.holds > 0 {
		n.held[r.UploadID] = true
	}
	if !r.Snapshot {
		n.remove(r.UploadID, func(f *frame.Frame) bool { return f.Offset() > 0 || slices.Contains(r.Frames, f) })
		if n.holds > 0 {
			n.ahead = append(n.ahead, n.remove(r.UploadID, func(*frame.Frame) bool { return true })...)
		}
		for _, e := range n.lists[r.UploadID] {
			e.replaced = e.replaced || e.frame.Offset() > 0 || slices.Contains(r.Frames, e.frame)
			e.answered = e.answered || n.holds > 0
		}
	}
	for _, f := range r.Frames {
		if f.For(variant) {
			n.add(f, false)
		}
	}
}

func (n *naive) cancel(id string) {
	dropped := func(f *frame.Frame) bool { return f.Offset() > 0 || f.For(frame.Base) }
	n.remove(id, dropped)
	for _, e := range n.lists[id] {
		e.replaced = e.replaced || dropped(e.frame)
	}
}

// lose removes the stored messages of an upload that are still to be read: the newest one of an epoch that follows an
// offset, and all that have come behind it.
func (n *naive) lose(id, epoch string, after uint64) {
	lost := map[*frame.Frame]bool{}
	for _, e := range n.lists[id] {
		f := e.frame
		if f.Offset() == after+1 && f.Epoch() == epoch {
			clear(lost)
			lost[f] = true
		} else if len(lost) > 0 {
			lost[f] = f.Offset() > 0
		}
	}
	n.remove(id, func(f *frame.Frame) bool { return lost[f] })
}

// find returns the entry of a frame that may be written next. Stored frames keep their order. One without an offset may
// be written later than in its place, but not earlier.
func (n *naive) find(f *frame.Frame) (e *naiveEntry, problem string) {
	list := n.lists[f.UploadID()]
	at := slices.IndexFunc(list, func(e *naiveEntry) bool { return e.frame == f && !e.popped })
	if at < 0 {
		return nil, "is not due"
	}
	for _, earlier := range list[:at] {
		if late := earlier.frame.Offset() == 0 && f.Offset() > 0; !earlier.popped && !late {
			return nil, fmt.Sprintf("overtakes %d of %s", earlier.frame.Offset(), earlier.frame.Epoch())
		}
	}
	return list[at], ""
}

// pair is a Queue and its reference. It is a connection and the history of its uploads.
type pair struct {
	mu        sync.Mutex
	queue     Queue
	naive     naive
	variant   frame.Variant
	keep      int
	histories map[string]*history
	number    int
	writing   []pairWritten
	reading   func()
	over      bool // the queue has failed
	closed    bool
	// untold: messages were lost, and the client has no positions by which it could be told.
	untold bool
	// problem describes a frame that came back to the wrong place.
	problem string
}

type pairWritten struct {
	f       *frame.Frame
	skipped uint32
	b       *Backlog
	e       *naiveEntry
}

func (p *pair) history(id string) *history {
	if p.histories[id] == nil {
		p.number++
		p.histories[id] = &history{epoch: fmt.Sprint("e", p.number)}
	}
	return p.histories[id]
}

func (p *pair) acknowledgement(id string, offset uint64) *frame.Frame {
	p.number++
	at := frame.Start{Epoch: p.history(id).epoch, Offset: offset}
	return frame.NewAcknowledgement(id, at, fmt.Append(nil, "ack", p.number))
}

// message returns the next message of an upload, or one without an offset.
func (p *pair) message(id string, class frame.Class, size int, stored bool) *frame.Frame {
	p.number++
	m := frame.Message{
		UploadID: id, Class: class, StateKey: fmt.Sprint(size % 2), NamesUpload: true,
		Body: fmt.Appendf(nil, `{"n":%d,"pad":%q}`, p.number, strings.Repeat("x", size)),
	}
	h := p.history(id)
	if stored {
		m.Epoch, m.Offset = h.epoch, h.newest()+1
	}
	f := frame.ForUpload(m)
	if stored {
		h.frames = append(h.frames, f)
		if n := len(h.frames) - p.keep; n > 0 {
			h.frames, h.floor = h.frames[n:], h.floor+uint64(n)
		}
	}
	return f
}

// send sends a live frame to both.
func (p *pair) send(t *rapid.T, f *frame.Frame, slow bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over || p.closed {
		return
	}
	id, before := f.UploadID(), p.queue.Bytes()
	due := len(p.naive.lists[id]) > 0 || p.naive.held[id]
	if b := p.queue.backlogs[id]; b != nil && b.unread && f.For(p.variant) {
		// A new position, or a message that does not continue the history to be read, begins another one.
		if _, acknowledges := f.Start(); acknowledges || f.Offset() > 0 && (f.Epoch() != b.epoch || f.Offset() <= b.after) {
			p.naive.lose(id, b.epoch, b.after)
			p.untold = p.variant == frame.Base
		}
	}
	outcome, handled := p.queue.Send(f, slow)
	switch {
	case handled != due && !(handled && p.naive.holds > 0): // a finished backlog stays during a hold
		t.Fatalf("%s: handled is %v, by the reference %v", id, handled, due)
	case outcome == frame.Dropped, p.untold:
		p.fails(t, cost(f))
	case !handled, !f.For(p.variant):
	case outcome == frame.Conflated:
		list := p.naive.lists[id]
		last := list[len(list)-1]
		if !slow || !last.live || last.popped || last.frame.Class() != frame.State || f.Class() != frame.State ||
			last.frame.StateKey() != f.StateKey() {
			t.Fatalf("%s: message %d has replaced %d", id, f.Offset(), last.frame.Offset())
		}
		if now := p.queue.Bytes(); now > before && now > p.queue.limit {
			t.Fatalf("%s: message %d has replaced a smaller one, and there are %d bytes now", id, f.Offset(), now)
		}
		last.frame = f
		last.skipped++
	default:
		p.naive.add(f, true)
	}
}

// fails checks that the queue may fail: its frames without offsets are beyond the limit, or messages were lost that a
// client without positions cannot be told of.
func (p *pair) fails(t *rapid.T, more int) {
	beyond := p.queue.Bytes()+more > p.queue.limit+extraWithoutOffset
	if p.over = true; p.queue.Failed() != (beyond || p.untold) && !(beyond && !p.queue.Failed()) {
		t.Fatalf("failed is %v with %d bytes, messages lost: %v", p.queue.Failed(), p.queue.Bytes(), p.untold)
	}
}

func (p *pair) recover(t *rapid.T, r Replay) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over || p.closed {
		return
	}
	r.Source = p
	more := 0
	for _, f := range r.Frames {
		more += cost(f)
	}
	if !p.queue.Recover(r) {
		p.fails(t, more)
		return
	}
	p.naive.recover(r, p.variant)
}

// replay returns the stored messages after a number of the oldest, behind an acknowledgement. Without any the newest
// message follows, which may have no offset.
func (p *pair) replay(id string, back int, acknowledge bool, newest *frame.Frame) []*frame.Frame {
	h := p.history(id)
	n := max(0, len(h.frames)-back)
	var frames []*frame.Frame
	if acknowledge {
		frames = append(frames, p.acknowledgement(id, h.floor+uint64(n)))
	}
	frames = append(frames, h.frames[n:]...)
	if newest != nil && n == len(h.frames) {
		frames = append(frames, newest)
	}
	return frames
}

// pop dequeues a batch, unless one is being written.
func (p *pair) pop(t *rapid.T, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.writing) > 0 {
		return
	}
	for ; n > 0 && !p.over && p.queue.Writable(); n-- {
		f, skipped, b := p.queue.Pop()
		e, problem := p.naive.find(f)
		if p.naive.holds > 0 {
			problem = "does not wait for the answer"
		} else if e != nil && skipped != e.skipped {
			problem = fmt.Sprintf("has replaced %d states, but tells %d", e.skipped, skipped)
		}
		if problem != "" {
			t.Fatalf("%s: message %d of %s, class %d, %s", f.UploadID(), f.Offset(), f.Epoch(), f.Class(), problem)
		}
		e.popped, e.live = true, false
		p.writing = append(p.writing, pairWritten{f, skipped, b, e})
	}
}

func (p *pair) write(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n = min(n, len(p.writing))
	forget := func(e *naiveEntry) {
		id := e.frame.UploadID()
		p.naive.lists[id] = slices.DeleteFunc(p.naive.lists[id], func(other *naiveEntry) bool { return other == e })
	}
	for i := len(p.writing) - 1; i >= n && !p.over; i-- {
		w := p.writing[i]
		if ahead := p.queue.Requeue(w.b, w.f, w.skipped); ahead != (w.e.answered && !w.e.replaced) {
			p.problem = fmt.Sprintf("%s: %s precedes the answer: %v", w.f.UploadID(), w.f.Body(), ahead)
		}
		if w.e.popped = false; w.e.replaced || w.e.answered {
			forget(w.e)
		}
	}
	for _, w := range p.writing[:n] {
		if !p.over {
			p.queue.Written(w.b, w.f)
			forget(w.e)
		}
	}
	p.writing = nil
}

func (p *pair) release(t *rapid.T) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over || p.naive.holds == 0 {
		return
	}
	ahead := p.queue.Release()
	if !slices.Equal(ahead, p.naive.ahead) {
		t.Fatalf("%d frames precede the answer, want %d", len(ahead), len(p.naive.ahead))
	}
	p.naive.ahead = nil
	if p.naive.holds--; p.naive.holds == 0 {
		clear(p.naive.held)
	}
}

// read reads unread messages, while something else happens.
func (p *pair) read(t *rapid.T, during func()) {
	p.mu.Lock()
	if p.reading = during; len(p.writing) == 0 && !p.over && p.queue.Unread() {
		p.queue.Read(&p.mu)
		if p.queue.Failed() || p.untold {
			p.fails(t, 0)
		}
	}
	p.mu.Unlock() // not deferred: a test that fails in between has unlocked it
}

// Read implements Source.
func (p *pair) Read(id, epoch string, after uint64, deliver func([]*frame.Frame)) {
	p.reading()
	h := p.history(id)
	if h.epoch == epoch && after >= h.floor && after <= h.newest() {
		deliver(h.frames[after-h.floor:])
		return
	}
	n := max(0, len(h.frames)-1)
	lost := append([]*frame.Frame{p.acknowledgement(id, h.floor+uint64(n))}, h.frames[n:]...)
	b := p.queue.backlogs[id]
	if b != nil && b.unread && b.epoch == epoch && b.after == after {
		p.untold = p.variant == frame.Base
		p.naive.lose(id, epoch, after)
		for _, f := range lost {
			p.naive.add(f, false)
		}
	}
	deliver(lost)
}

// The queue writes exactly the frames of a reference that holds all of them, in its order, for any sequence of
// operations and any limit: but messages of an epoch that has ended, and frames without an offset may be late.
func TestQueue_WritesAsTheReference(t *testing.T) { rapid.Check(t, asTheReference) }

// FuzzReference is the same with operations that a fuzzer chooses.
func FuzzReference(f *testing.F) { f.Fuzz(rapid.MakeFuzz(asTheReference)) }

func asTheReference(t *rapid.T) {
	p := &pair{
		histories: map[string]*history{}, naive: naive{lists: map[string][]*naiveEntry{}, held: map[string]bool{}},
		keep:    rapid.SampledFrom([]int{3, enough, enough}).Draw(t, "keep"),
		variant: rapid.SampledFrom([]frame.Variant{frame.V1, frame.V1, frame.Base}).Draw(t, "variant"),
	}
	p.queue.Init(p.variant, rapid.SampledFrom([]int{1, 300, 1000, NoLimit}).Draw(t, "limit"))
	t.Repeat(p.actions(t))
	p.settle(t)
}

// actions returns the operations, each of which draws its parameters first: a test that ends in a Draw leaves no lock
// locked.
func (p *pair) actions(t *rapid.T) map[string]func(*rapid.T) {
	upload := rapid.SampledFrom(uploads)
	few := rapid.IntRange(0, 6)
	newest := map[string]*frame.Frame{} // the newest message of an upload, if it has no offset
	publish := func(t *rapid.T) func() {
		id, stored, slow := upload.Draw(t, "upload"), few.Draw(t, "stored") > 1, rapid.Bool().Draw(t, "slow")
		class := rapid.SampledFrom([]frame.Class{frame.State, frame.State, frame.Event, frame.Terminal}).Draw(t, "class")
		size := rapid.SampledFrom([]int{0, 1, 100, 1000, 1000, 400_000}).Draw(t, "size")
		if stored {
			size = min(size, 1000)
		}
		return func() {
			f := p.message(id, class, size, stored)
			newest[id] = f
			if stored {
				delete(newest, id)
			}
			p.send(t, f, slow)
		}
	}
	begin := func(t *rapid.T) func() {
		id, announced, same := upload.Draw(t, "upload"), rapid.Bool().Draw(t, "announced"), few.Draw(t, "same") == 0
		return func() {
			p.number++
			begun := &history{epoch: fmt.Sprint("e", p.number)}
			if h := p.history(id); same && p.variant == frame.V1 { // the epoch goes back
				begun = &history{epoch: h.epoch, floor: h.newest() / 2}
			}
			p.histories[id] = begun
			if delete(newest, id); announced || same && p.variant == frame.V1 {
				p.send(t, p.acknowledgement(id, begun.floor), false)
			}
		}
	}
	recovers := func(t *rapid.T) func() {
		id, back := upload.Draw(t, "upload"), few.Draw(t, "back")
		snapshot, acknowledge := rapid.Bool().Draw(t, "snapshot"), rapid.Bool().Draw(t, "acknowledge")
		return func() {
			if snapshot { // brings the newest message at most, again only if it is not due
				back = 0
				if len(p.naive.lists[id]) == 0 {
					back = 1
				}
			}
			r := Replay{UploadID: id, Snapshot: snapshot, Frames: p.replay(id, back, acknowledge, newest[id])}
			if snapshot && len(p.naive.lists[id]) > 0 {
				r.Frames = r.Frames[:min(1, len(r.Frames))]
				if !acknowledge {
					r.Frames = nil
				}
			}
			p.recover(t, r)
		}
	}
	cancel := func(t *rapid.T) func() {
		id, all := upload.Draw(t, "upload"), rapid.Bool().Draw(t, "all")
		return func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			switch {
			case p.over || p.closed:
			case all:
				p.queue.CancelAll(func(other string) bool { return other != id })
				for _, other := range uploads {
					if other != id {
						p.naive.cancel(other)
					}
				}
			default:
				p.queue.Cancel(id)
				p.naive.cancel(id)
			}
		}
	}
	during := func(t *rapid.T) func() {
		return rapid.SampledFrom([]func(*rapid.T) func(){publish, begin, recovers, cancel}).Draw(t, "during")(t)
	}
	return map[string]func(*rapid.T){
		"publish":   func(t *rapid.T) { publish(t)() },
		"publish 2": func(t *rapid.T) { publish(t)() },
		"begin":     func(t *rapid.T) { begin(t)() },
		"recover":   func(t *rapid.T) { recovers(t)() },
		"recover 2": func(t *rapid.T) { recovers(t)() },
		"cancel":    func(t *rapid.T) { cancel(t)() },
		"pop":       func(t *rapid.T) { p.pop(t, few.Draw(t, "frames")) },
		"write":     func(t *rapid.T) { p.write(few.Draw(t, "frames")) },
		"read":      func(t *rapid.T) { p.read(t, during(t)) },
		"hold":      func(*rapid.T) { p.hold() },
		"release":   func(t *rapid.T) { p.release(t) },
		"close": func(t *rapid.T) {
			if few.Draw(t, "close") == 0 {
				p.close()
			}
		},
		"": p.check,
	}
}

func (p *pair) hold() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.naive.holds < 2 && !p.over && !p.closed {
		p.queue.Hold()
		p.naive.holds++
	}
}

// close drops what would have to be read, as an owner that closes does.
func (p *pair) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.over && p.naive.holds == 0 {
		p.queue.DropUnread()
		p.closed = true
	}
}

// check compares the counts with the contents.
func (p *pair) check(t *rapid.T) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.problem != "" {
		t.Fatal(p.problem)
	}
	if p.over {
		return
	}
	bytes := 0
	for _, w := range p.writing {
		bytes += cost(w.f)
	}
	for id, b := range p.queue.backlogs {
		if b == nil {
			continue
		}
		for _, e := range b.entries[b.first:] {
			bytes += cost(e.frame)
		}
		for _, f := range b.late {
			bytes += cost(f)
		}
		if b.done() && p.naive.holds == 0 {
			t.Fatalf("the backlog of %s is done and has not ended", id)
		}
	}
	if bytes != p.queue.Bytes() {
		t.Fatalf("%d bytes are queued, %d counted", bytes, p.queue.Bytes())
	}
}

// settle writes all that is left.
func (p *pair) settle(t *rapid.T) {
	for p.naive.holds > 0 && !p.over {
		p.release(t)
	}
	for range enough {
		p.write(enough)
		p.read(t, func() {})
		if p.pop(t, 3); len(p.writing) == 0 && (p.over || !p.queue.Unread()) {
			break
		}
	}
	if p.over {
		return
	}
	if !p.queue.Empty() || p.queue.Bytes() != 0 {
		t.Fatalf("an idle queue is not empty: %+v", p.queue)
	}
	for id, list := range p.naive.lists {
		for _, e := range list {
			if !p.closed && e.frame.Epoch() == p.history(id).epoch {
				t.Fatalf("%s: %d frames were not written, the first is %d of %s", id, len(list), e.frame.Offset(), e.frame.Epoch())
			}
		}
	}
}
