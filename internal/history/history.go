// Package history stores the recent messages of an upload for late and returning subscribers: the newest message,
// earlier messages within documented bounds, and the position (an epoch and an offset).
//
// A Log is not safe for concurrent use: the upload's lock protects it.
package history

import (
	"slices"
	"sort"
	"time"
)

// Limits bound one log. Each must be positive, unless its comment says otherwise.
type Limits struct {
	// Messages is the largest number of messages held. Negative: the log holds positions only.
	Messages int
	// Bytes is the largest sum of their sizes. The newest message is held even if it is larger.
	Bytes int
	// TTL is how long a message is held.
	TTL time.Duration
}

// Entry is one held message.
type Entry[M any] struct {
	Offset  uint64
	Message M
	at      time.Time
	size    int
}

// At returns when the message was stored.
func (e Entry[M]) At() time.Time { return e.at }

// Log is the history of one upload. Offsets strictly increase; they need not be neighbours, since a broker
// may count across uploads.
type Log[M any] struct {
	epoch string
	// offset is the offset of the newest message ever appended, 0 before the first.
	offset uint64
	// floor is the offset of the newest message that was dropped: a client at floor or later can recover completely.
	floor uint64
	bytes int
	// touched is when the log was begun or last appended to.
	touched time.Time
	// latest is a message without an offset that came after the newest one of the ring.
	latest *Entry[M]
	// ring holds the n entries from head on, oldest first. Its length is a power of two, or 0.
	ring []Entry[M]
	head int
	n    int
}

// New returns an empty log at offset 0 of the epoch.
func New[M any](epoch string, now time.Time) *Log[M] { return &Log[M]{epoch: epoch, touched: now} }

// Begin returns an empty log that continues an epoch at an offset; messages up to that offset are not held.
func Begin[M any](epoch string, offset uint64, now time.Time) *Log[M] {
	return &Log[M]{epoch: epoch, offset: offset, floor: offset, touched: now}
}

// Epoch returns the opaque name of the run of offsets that this log continues.
func (l *Log[M]) Epoch() string { return l.epoch }

// Offset returns the offset of the newest message ever appended, or 0.
func (l *Log[M]) Offset() uint64 { return l.offset }

// Floor returns an offset after which no message of the log is missing from it.
func (l *Log[M]) Floor() uint64 { return l.floor }

// Touched returns when the log was begun or last appended to.
func (l *Log[M]) Touched() time.Time { return l.touched }

// Len returns the number of messages held.
func (l *Log[M]) Len() int { return l.n }

// Append adds a message and drops the oldest ones that exceed the limits. The offset must be larger than the last one;
// size is the number of bytes that the message counts for.
func (l *Log[M]) Append(offset uint64, m M, size int, now time.Time, lim Limits) {
	if offset <= l.offset {
		panic("history: offset does not increase")
	}
	if lim.Messages < 0 {
		l.offset, l.touched = offset, now
		l.Drop()
		return
	}
	l.Expire(now, lim.TTL)
	for l.n > 0 && (l.n >= lim.Messages || l.bytes+size > lim.Bytes) {
		l.dropOldest()
	}
	if l.n == len(l.ring) {
		l.grow()
	}
	l.ring[l.index(l.n)] = Entry[M]{Offset: offset, Message: m, at: now, size: size}
	l.n++
	l.bytes += size
	l.offset, l.touched, l.latest = offset, now, nil
}

// Advance moves the offset forward, past messages that must not be delivered. An offset that is not ahead has no
// effect.
func (l *Log[M]) Advance(offset uint64) { l.offset = max(l.offset, offset) }

// SetLatest makes a message without an offset the newest one, until the next is appended. Such a message is not
// recovered by Since. size is the number of bytes that it counts for in Size.
func (l *Log[M]) SetLatest(m M, size int, now time.Time) {
	l.latest = &Entry[M]{Message: m, at: now, size: size}
	l.touched = now
}

// Size returns the number of messages held and the sum of their sizes.
func (l *Log[M]) Size() (messages, bytes int) {
	if l.latest == nil {
		return l.n, l.bytes
	}
	return l.n + 1, l.bytes + l.latest.size
}

// Drop drops every message. The position stays.
func (l *Log[M]) Drop() {
	for l.n > 0 {
		l.dropOldest()
	}
	l.ring, l.head, l.latest, l.floor = nil, 0, nil, l.offset
}

// Newest returns the newest message if it is still held.
func (l *Log[M]) Newest() (Entry[M], bool) {
	if l.latest != nil {
		return *l.latest, true
	}
	if l.n == 0 {
		return Entry[M]{}, false
	}
	return l.ring[l.index(l.n-1)], true
}

// Since returns the messages after the offset, oldest first, and whether that is all of them: it is not if
// the epoch is another one, the offset lies ahead of the log, or the log no longer reaches back to it.
func (l *Log[M]) Since(epoch string, offset uint64) ([]Entry[M], bool) {
	if epoch != l.epoch || offset > l.offset || offset < l.floor {
		return nil, false
	}
	return l.from(sort.Search(l.n, func(i int) bool { return l.ring[l.index(i)].Offset > offset })), true
}

// All returns every message held, oldest first.
func (l *Log[M]) All() []Entry[M] { return l.from(0) }

// from returns the held messages without the first i.
func (l *Log[M]) from(i int) []Entry[M] {
	out := make([]Entry[M], 0, l.n-i)
	for ; i < l.n; i++ {
		out = append(out, l.ring[l.index(i)])
	}
	return out
}

// Clone returns a copy that no longer changes with this log. The messages are shared.
func (l *Log[M]) Clone() *Log[M] {
	c := *l
	c.ring = slices.Clone(l.ring)
	return &c
}

// Expire drops the messages that are older than ttl. The position stays.
func (l *Log[M]) Expire(now time.Time, ttl time.Duration) {
	for l.n > 0 && now.Sub(l.ring[l.head].at) >= ttl {
		l.dropOldest()
	}
	if l.latest != nil && now.Sub(l.latest.at) >= ttl {
		l.latest = nil
	}
	if l.n == 0 {
		l.ring, l.head = nil, 0
	}
}

func (l *Log[M]) index(i int) int { return (l.head + i) & (len(l.ring) - 1) }

func (l *Log[M]) dropOldest() {
	e := &l.ring[l.head]
	l.floor = e.Offset
	l.bytes -= e.size
	*e = Entry[M]{} // lets the message be collected
	l.head = l.index(1)
	l.n--
}

func (l *Log[M]) grow() {
	ring := make([]Entry[M], max(1, 2*len(l.ring)))
	for i := range l.n {
		ring[i] = l.ring[l.index(i)]
	}
	l.ring, l.head = ring, 0
}
