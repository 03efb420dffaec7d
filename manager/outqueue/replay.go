package outqueue

import (
	"slices"
	"time"

	"github.com/shoal-go/shoal/manager"
)

const (
	// replayOverhead is added to the size of each message of a replay.
	replayOverhead = 64
	// extraWithoutOffset is the number of bytes by which messages without an offset may exceed the limit of replays: they
	// cannot be read from the history later.
	extraWithoutOffset = 1 << 20
)

// replay holds the messages of one upload that the client has missed and Next has not returned, followed by the live
// messages that came after them.
type replay struct {
	uploadID string
	frames   []*manager.Frame
	// at is the position of the last message queued in frames, and source has the later ones.
	at     manager.Position
	source manager.ReplaySource
	// unread: messages after at are still to be read from the source, live ones with an offset among them. late are the
	// live ones without, which came in the meantime.
	unread bool
	late   []*manager.Frame
	// begun is when the replay was queued: the live messages that were queued before precede it.
	begun time.Time
	// held: it waits for the answer of ReleaseReplays.
	held   bool
	listed bool
}

// size is the amount by which a message of a replay counts against the limit.
func size(f *manager.Frame) int { return f.Size() + replayOverhead }

// Replay queues stored messages of an upload, which Next returns in turn with the live messages of other uploads. They
// do not count against MaxMessages. Up to MaxBytes of them are queued; the others are read when Next needs them.
func (q *Queue) Replay(r manager.Replay) manager.Outcome {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed != nil {
		return manager.Dropped
	}
	p := q.replays[r.UploadID]
	if p == nil {
		p = &replay{uploadID: r.UploadID}
		q.replays[r.UploadID] = p
	}
	if r.Snapshot && (len(p.frames) > 0 || p.unread) {
		return q.finish(p, q.queueSnapshot(p, r.Frames))
	}
	// Messages of an earlier replay are in the new one as far as the client needs them.
	q.keep(p, func(f *manager.Frame) bool { return f.Offset() == 0 })
	p.at, p.source, p.begun, p.held = r.Position, r.Source, time.Now(), q.holds > 0
	return q.finish(p, q.queueReplay(p, r.Frames, false))
}

// CancelReplay drops the messages of an upload that is being replayed, but not acknowledgements. It has no
// effect after Close.
func (q *Queue) CancelReplay(uploadID string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if p := q.replays[uploadID]; p != nil && q.closed == nil {
		q.keep(p, func(f *manager.Frame) bool { return !f.For(manager.VariantBase) })
		q.finish(p, true)
	}
}

// HoldReplays delays replays until ReleaseReplays.
func (q *Queue) HoldReplays() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.holds++
}

// ReleaseReplays queues the answer, of any size, ahead of the replays that have waited for it.
func (q *Queue) ReleaseReplays(answer *manager.Frame) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.holds--
	if q.closed != nil {
		return
	}
	if q.answers == maxControl {
		q.overflow()
		return
	}
	now := time.Now()
	if answer.For(q.opt.Variant) {
		q.answers++
		q.push(entry{frame: answer, queued: now, answer: true})
	}
	for _, p := range q.replays {
		if p.held {
			p.begun = now
		}
		if p.held = p.held && q.holds > 0; !p.held {
			q.finish(p, true)
		}
	}
	q.watchAge()
	q.notify()
}

// The functions below are called with mu held.

// keep removes the messages of a replay that fail a test, and forgets the unread ones.
func (q *Queue) keep(p *replay, test func(*manager.Frame) bool) {
	all, at := slices.Concat(p.frames, p.late), p.at
	q.ready -= len(p.frames)
	p.frames, p.late, p.unread = nil, nil, false
	for _, f := range all {
		q.replayed -= size(f)
		if test(f) {
			q.append(p, f)
		}
	}
	p.at = at // removed messages are not to be read again
}

func (q *Queue) append(p *replay, f *manager.Frame) {
	p.frames = append(p.frames, f)
	q.ready++
	q.replayed += size(f)
	at, acknowledges := f.Start()
	switch epoch := f.Epoch(); {
	case acknowledges && at.Epoch != p.at.Epoch: // a new one, whose offsets start over
		p.at = manager.Position(at)
	case f.Offset() > 0:
		p.at.Offset = f.Offset()
		if epoch != "" {
			p.at.Epoch = epoch
		}
	}
}

// queueReplay queues messages that continue a replay, up to the limit unless all is true; the source has the rest. It
// returns false if a message fits nowhere.
func (q *Queue) queueReplay(p *replay, frames []*manager.Frame, all bool) bool {
	p.unread = false
	for _, f := range frames {
		switch {
		case !f.For(q.opt.Variant):
		case all || q.hasRoom(size(f), f.Offset() == 0):
			if f.Offset() > 0 {
				q.releaseLate(p, f.Offset())
			}
			q.append(p, f)
		case f.Offset() > 0 && p.source != nil:
			p.unread = true
			return true
		default:
			return false
		}
	}
	q.appendLate(p, len(p.late))
	return true
}

// queueSnapshot queues an acknowledgement and the newest message, if any, behind the messages of a replay. While
// messages are unread, the source has the newest one: the acknowledgement then comes before it. It returns false if a
// frame does not fit.
func (q *Queue) queueSnapshot(p *replay, frames []*manager.Frame) bool {
	for _, f := range frames {
		switch {
		case !f.For(q.opt.Variant), p.unread && f.Offset() > 0:
		case !q.hasRoom(size(f), true):
			return false
		case p.unread:
			p.late = append(p.late, f)
			q.replayed += size(f)
		default:
			q.append(p, f)
		}
	}
	return true
}

// releaseLate queues the late acknowledgements of positions before an offset, and the late messages before them. A
// client that gets a position must have got, or get before, all messages up to there.
func (q *Queue) releaseLate(p *replay, offset uint64) {
	due := 0
	for i, f := range p.late {
		if at, acknowledges := f.Start(); acknowledges && at.Offset < offset {
			due = i + 1
		}
	}
	q.appendLate(p, due)
}

// appendLate queues a number of late messages.
func (q *Queue) appendLate(p *replay, n int) {
	for _, f := range p.late[:n] {
		q.replayed -= size(f)
		q.append(p, f)
	}
	p.late = slices.Delete(p.late, 0, n)
}

// hasRoom reports whether a message fits into the limit of replays. If none is ready one does in any case, so that
// replays go on.
func (q *Queue) hasRoom(bytes int, withoutOffset bool) bool {
	limit := q.opt.MaxBytes
	if withoutOffset {
		limit += extraWithoutOffset
	}
	return q.opt.MaxBytes < 0 || q.ready == 0 || q.replayed+bytes <= limit
}

// sendBehind queues a live message behind the replay of its upload.
func (q *Queue) sendBehind(p *replay, f *manager.Frame) manager.Outcome {
	stored := f.Offset() > 0 && p.source != nil
	switch {
	case p.unread && stored:
		return manager.Queued // the source has it
	case q.hasRoom(size(f), f.Offset() == 0):
	case stored:
		p.unread = true
		return q.finish(p, true)
	default:
		return q.overflow()
	}
	if p.unread {
		p.late = append(p.late, f)
		q.replayed += size(f)
		return manager.Queued
	}
	q.append(p, f)
	return q.finish(p, true)
}

// finish lists a replay with messages for Next, and forgets one without, unless an answer is to precede its live
// messages. ok is false if a message fitted nowhere.
func (q *Queue) finish(p *replay, ok bool) manager.Outcome {
	switch {
	case !ok:
		return q.overflow()
	case len(p.frames) == 0 && !p.unread:
		if !p.held {
			delete(q.replays, p.uploadID)
		}
	case !p.listed:
		if len(q.turns) == 0 {
			q.progress = time.Now()
		}
		p.listed = true
		q.turns = append(q.turns, p)
		q.watchAge()
		q.notify()
	}
	return manager.Queued
}

// current reports whether a replay is still that of its upload.
func (q *Queue) current(p *replay) bool { return q.replays[p.uploadID] == p }

// nextReplay returns the replay whose turn it is. Its next messages must be read first if it has none.
func (q *Queue) nextReplay() *replay {
	for q.holds == 0 && len(q.turns) > 0 {
		p := q.turns[0]
		switch {
		case !q.current(p) || len(p.frames) == 0 && !p.unread: // cancelled
			p.listed = false
			q.turns = q.turns[1:]
		case q.head < len(q.data) && !q.data[q.head].queued.After(p.begun):
			return nil
		case len(p.frames) == 0 && q.ready > 0 && 2*q.replayed > q.opt.MaxBytes:
			q.turns = append(q.turns[1:], p) // there is room when others have been returned
		default:
			return p
		}
	}
	return nil
}

// popReplay returns the next message of a replay.
func (q *Queue) popReplay(p *replay, now time.Time) entry {
	f := p.frames[0]
	p.frames[0] = nil
	p.frames = p.frames[1:]
	q.ready--
	q.replayed -= size(f)
	q.turns, p.listed = q.turns[1:], false
	q.finish(p, true)
	q.sending, q.progress = amount{}, now
	q.watchAge()
	return entry{frame: f, queued: now}
}

// read reads the next messages of a replay from its source. It releases mu in the meantime: sources lock uploads, and
// mu is taken with an upload locked.
func (q *Queue) read(p *replay) {
	at, source, delivered := p.at, p.source, false
	unchanged := func() bool { return q.current(p) && p.unread && p.at == at && q.closed == nil }
	q.mu.Unlock()
	source.Read(p.uploadID, at.Epoch, at.Offset, func(frames []*manager.Frame) {
		q.mu.Lock()
		defer q.mu.Unlock()
		if delivered = true; !unchanged() {
			return
		}
		// A new position and the newest message belong together. Acknowledgements that came before announce older ones. A
		// client without positions cannot be told that messages are lost.
		restart := len(frames) > 0 && !frames[0].For(manager.VariantBase)
		switch {
		case restart && q.opt.Variant == manager.VariantBase:
			q.overflow()
			return
		case restart:
			q.queueAcknowledgements(p)
		}
		q.finish(p, q.queueReplay(p, frames, restart))
	})
	q.mu.Lock()
	if !delivered && unchanged() {
		q.finish(p, q.queueReplay(p, nil, false)) // the upload no longer exists
	}
	if len(q.turns) > 1 && q.turns[0] == p && len(p.frames) == 0 {
		q.turns = append(q.turns[1:], p) // its next message fits only when those of others have been returned
	}
}

// queueAcknowledgements queues the acknowledgements among the late messages of a replay.
func (q *Queue) queueAcknowledgements(p *replay) {
	late := p.late
	p.late = nil
	for _, f := range late {
		if f.For(manager.VariantBase) {
			p.late = append(p.late, f)
			continue
		}
		q.replayed -= size(f)
		q.append(p, f)
	}
}

// closeReplays keeps the queued messages of the replays: the client continues from there when it returns. It drops
// replays that wait for an answer.
func (q *Queue) closeReplays() {
	for id, p := range q.replays {
		if p.held {
			delete(q.replays, id)
			continue
		}
		q.keep(p, func(*manager.Frame) bool { return true })
	}
}
