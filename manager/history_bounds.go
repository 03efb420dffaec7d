package manager

import (
	"math"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"
)

// The memory that stored messages need beyond their payloads, approximately: a message its frame and its place in the
// ring, an upload its id, its entries in the registry and its log.
const (
	MessageOverhead = 256
	UploadOverhead  = 768
)

// historyUse counts the stored messages and the positions of all uploads, and enforces Options.HistoryTotalBytes and
// Options.MaxUploads.
type historyUse struct {
	uploads, messages, bytes atomic.Int64
	evicted                  atomic.Uint64
	// arriving are the bytes of the messages for which there is room and that are being stored: at most what they add to
	// bytes.
	arriving atomic.Int64
	// positions are the logs without messages. The bounds apply to those of uploads without followers, which any client
	// can leave behind: all but those that had followers when they were last counted.
	positions, followed positionUse
	// pause is the use by positions up to which the next eviction in the background waits, after one that has not freed
	// enough: positions of uploads with followers come and go, and each would have all uploads visited.
	pause positionUse
	// wake starts the goroutine that evicts before publishers have to.
	wake chan struct{}
	// evicting is held while uploads are evicted. Upload locks are acquired under it, so it must not be acquired with
	// one held.
	evicting sync.Mutex
	// logged is when an eviction was last logged, on Manager.clock.
	logged atomic.Int64
}

// positionUse counts logs without messages and the memory that they need.
type positionUse struct{ count, bytes atomic.Int64 }

// add adds logs that need a number of bytes together.
func (p *positionUse) add(logs, bytes int) {
	p.count.Add(int64(logs))
	p.bytes.Add(int64(bytes))
}

// lower reduces the counts to those of a use that includes this one.
func (p *positionUse) lower(all *positionUse) {
	if count := all.count.Load(); count < p.count.Load() {
		p.count.Store(count)
	}
	if bytes := all.bytes.Load(); bytes < p.bytes.Load() {
		p.bytes.Store(bytes)
	}
}

// logSize is the part of historyUse that one upload accounts for. position are the bytes of a log without messages.
type logSize struct{ messages, bytes, position int }

// logSizeOf returns the part of historyUse that an upload accounts for. The upload's lock is held.
func logSizeOf(u *upload) (size logSize) {
	log := u.State.log
	if log == nil {
		return logSize{}
	}
	overhead := UploadOverhead + len(u.ID())
	if size.messages, size.bytes = log.Size(); size.messages == 0 {
		return logSize{position: overhead}
	}
	size.bytes += size.messages*MessageOverhead + overhead
	return size
}

// account brings Manager.held up to date after a change of an upload's log, from its size before the change. The
// upload's lock is held since then.
func (m *Manager) account(u *upload, before logSize) {
	now := logSizeOf(u)
	if now == before {
		return
	}
	m.held.bytes.Add(int64(now.bytes - before.bytes))
	if now.messages != before.messages {
		m.held.messages.Add(int64(now.messages - before.messages))
		m.held.uploads.Add(min(int64(now.messages), 1) - min(int64(before.messages), 1))
	}
	if now.position != before.position {
		m.held.positions.add(min(now.position, 1)-min(before.position, 1), now.position-before.position)
		m.held.followed.lower(&m.held.positions)
	}
	if m.evictionDue() {
		select {
		case m.held.wake <- struct{}{}:
		default:
		}
	}
}

// Eviction begins in the background when less than an evictFrom-th part of a bound is free, and goes on until an
// evictTo-th part is, so that the uploads are visited once for many messages. A publisher has to evict only at the
// bound.
const (
	evictFrom = 64
	evictTo   = 16
)

// evictionDue reports whether the goroutine that evicts has to begin.
func (m *Manager) evictionDue() bool {
	if !m.nearBound(evictFrom) {
		return false
	}
	p, pause := &m.held.positions, &m.held.pause
	return m.historiesNearBound(evictFrom) || p.count.Load() > pause.count.Load() || p.bytes.Load() > pause.bytes.Load()
}

// pauseEviction lets positions take a further evictFrom-th part of the bounds if an eviction has not freed enough.
func (m *Manager) pauseEviction() {
	var count, bytes int64
	if m.nearBound(evictTo) {
		after := func(used int64, bound int) int64 {
			if bound <= 0 {
				return math.MaxInt64
			}
			return used + int64(bound/evictFrom)
		}
		count = after(m.held.positions.count.Load(), m.opt.MaxUploads)
		bytes = after(m.held.positions.bytes.Load(), m.opt.HistoryTotalBytes)
	}
	m.held.pause.count.Store(count)
	m.held.pause.bytes.Store(bytes)
}

// nearBound reports whether less than a part of a bound is free.
func (m *Manager) nearBound(part int) bool {
	uploads, bytes := m.held.bounded()
	return m.near(uploads, bytes, part)
}

// historiesNearBound reports whether stored messages alone leave less than a part of a bound free. They are evicted for
// their own sake only: the count of positions without followers is too large while followers come.
func (m *Manager) historiesNearBound(part int) bool {
	return m.near(m.held.uploads.Load(), m.held.arriving.Load()+m.held.bytes.Load(), part)
}

func (m *Manager) near(uploads, bytes int64, part int) bool {
	over := func(used int64, bound int) bool { return bound > 0 && used > int64(bound-bound/part) }
	return over(bytes, m.opt.HistoryTotalBytes) || over(uploads, m.opt.MaxUploads)
}

// exceedsBound reports whether a bound is exceeded.
func (m *Manager) exceedsBound() bool {
	uploads, bytes := m.held.bounded()
	return m.opt.HistoryTotalBytes > 0 && bytes > int64(m.opt.HistoryTotalBytes) ||
		m.opt.MaxUploads > 0 && uploads > int64(m.opt.MaxUploads)
}

// exceedsBytes reports whether Options.HistoryTotalBytes, which is a bound, is exceeded.
func (m *Manager) exceedsBytes() bool {
	_, bytes := m.held.bounded()
	return bytes > int64(m.opt.HistoryTotalBytes)
}

// bounded returns the uploads and the bytes to which the bounds apply. A message that is stored in the meantime counts
// twice rather than not at all: arriving is read first.
func (h *historyUse) bounded() (uploads, bytes int64) {
	arriving := h.arriving.Load()
	return h.uploads.Load() + max(h.positions.count.Load()-h.followed.count.Load(), 0),
		arriving + h.bytes.Load() + max(h.positions.bytes.Load()-h.followed.bytes.Load(), 0)
}

// withRoom calls store, which adds a message to an upload, with the upload locked, when it fits in
// Options.HistoryTotalBytes with all messages that are being stored. If it does not, publishers evict first, and store
// one at a time as long as that is not enough, so that the bound is exceeded by one message at most, however many
// publishers there are. No lock is held.
func (m *Manager) withRoom(uploadID string, e Encoded, store func(u *upload)) {
	if m.opt.HistoryTotalBytes <= 0 {
		m.registry.With(uploadID, store)
		return
	}
	const fields = 64 // at most what shoal.v1 adds to a message, but for the id
	most := int64(len(e.payload) + fields + 3*len(uploadID) + MessageOverhead + UploadOverhead)
	m.held.arriving.Add(most)
	if m.exceedsBytes() {
		m.held.arriving.Add(-most) // it waits for its turn
		m.storeAtBound(uploadID, most, store)
		return
	}
	defer m.held.arriving.Add(-most)
	m.registry.With(uploadID, store)
}

// storeAtBound evicts and then stores a message that adds at most a number of bytes. While it does not fit, no other
// goroutine stores one at the bound.
func (m *Manager) storeAtBound(uploadID string, most int64, store func(u *upload)) {
	var evicted uint64
	defer func() { m.logEvicted(evicted) }() // without the lock: a handler of the log may publish
	m.held.evicting.Lock()
	m.held.arriving.Add(most)
	defer m.held.arriving.Add(-most)
	if evicted = m.evictLocked(); m.exceedsBytes() {
		defer m.held.evicting.Unlock()
	} else {
		m.held.evicting.Unlock() // nobody waits for the fan-out
	}
	m.registry.With(uploadID, store)
}

// enforceBounds evicts if a bound is exceeded. No upload's lock is held.
func (m *Manager) enforceBounds() {
	if m.exceedsBound() {
		m.evict()
	}
}

// evictInBackground evicts until the manager is closed. Followers that have left since they were counted are noticed at
// the interval of sweeps.
func (m *Manager) evictInBackground() {
	tick := time.NewTicker(m.sweepInterval())
	defer tick.Stop()
	for {
		select {
		case <-m.stop:
			return
		case <-m.held.wake:
			m.evict()
		case <-tick.C:
			if m.held.followed.count.Load() > 0 {
				m.countFollowed()
				m.evict()
			}
		}
	}
}

// ages counts uploads by the time since their last message, in steps of an eighth of a power of two.
type ages [64 * ageSteps]int64

const ageSteps = 8

// ageStep returns the index in ages.
func ageStep(age time.Duration) int {
	n := uint64(max(age, 0))/uint64(time.Millisecond) + ageSteps // not negative
	exponent := bits.Len64(n) - 1
	return exponent*ageSteps + int(n>>(exponent-3)&(ageSteps-1)) // less than ageSteps
}

// evict drops histories until evictTo is reached: first the positions without messages of uploads without followers,
// then the histories of these, then the messages of others; in each group the ones that were published to longest ago
// first. It visits the uploads twice instead of sorting a list of them, because the list would need memory when there
// is least of it.
func (m *Manager) evict() {
	m.held.evicting.Lock()
	evicted := m.evictLocked()
	m.held.evicting.Unlock()
	m.logEvicted(evicted)
}

// evictLocked is evict for a caller that holds evicting. It returns how many uploads have lost messages, for the log.
func (m *Manager) evictLocked() (evicted uint64) {
	if !m.nearBound(evictFrom) { // another caller has evicted
		return 0
	}
	m.countFollowed()
	before := m.held.evicted.Load()
	m.evictOldest(evictionGroup{}, m.nearBound)
	if m.historiesNearBound(evictFrom) {
		m.evictOldest(evictionGroup{messages: true}, m.historiesNearBound)
		m.evictOldest(evictionGroup{messages: true, followed: true}, m.historiesNearBound)
	}
	m.pauseEviction()
	return m.held.evicted.Load() - before
}

// countFollowed counts the positions of uploads with followers.
func (m *Manager) countFollowed() {
	logs, bytes := 0, 0
	group := evictionGroup{followed: true}
	m.eachUpload(func(u *upload) {
		if group.contains(u) {
			logs++
			bytes += logSizeOf(u).position
		}
	})
	m.held.followed.count.Store(int64(logs))
	m.held.followed.bytes.Store(int64(bytes))
}

// evictionGroup are the uploads with a log that have stored messages, or none, and followers, or none.
type evictionGroup struct{ messages, followed bool }

// contains reports whether an upload, whose lock is held, is one of the group.
func (g evictionGroup) contains(u *upload) bool {
	return u.State.log != nil && (logSizeOf(u).messages > 0) == g.messages &&
		(u.Subscribers() > 0 || u.State.follow != nil) == g.followed
}

// evictOldest evicts uploads of a group as long as near(evictTo) reports that a bound is near.
func (m *Manager) evictOldest(g evictionGroup, near func(part int) bool) {
	if !near(evictTo) {
		return
	}
	now := time.Now()
	var count ages
	m.eachUpload(func(u *upload) {
		if g.contains(u) {
			count[ageStep(now.Sub(u.State.log.Touched()))]++
		}
	})
	for step := len(count) - 1; step >= 0 && near(evictTo); {
		// Steps with few uploads are evicted together, so that the number of passes stays small.
		first, some := step, count[step]
		for first > 0 && some < (m.held.uploads.Load()+m.held.positions.count.Load())/32 {
			first--
			some += count[first]
		}
		if some > 0 {
			m.eachUpload(func(u *upload) {
				if g.contains(u) && ageStep(now.Sub(u.State.log.Touched())) >= first && near(evictTo) {
					m.evictUpload(u, g.followed)
				}
			})
		}
		step = first - 1
	}
}

// evictUpload drops the stored messages of an upload, whose lock is held, and its position too if it has no followers.
func (m *Manager) evictUpload(u *upload, followed bool) {
	before := logSizeOf(u)
	defer m.account(u, before)
	if followed {
		u.State.log.Drop()
		if f := u.State.follow; f != nil { // the broker has them
			f.partial = true
		}
	} else {
		u.State.log = nil
	}
	if before.messages > 0 {
		m.held.evicted.Add(1)
	}
}

// logEvicted logs evictions, at most once a minute. No lock is held.
func (m *Manager) logEvicted(uploads uint64) {
	now, last := m.clock(), m.held.logged.Load()
	if uploads == 0 || last != 0 && now-last < int64(time.Minute) || !m.held.logged.CompareAndSwap(last, now) {
		return
	}
	m.opt.Logger.Warn("histories evicted", "uploads", uploads, "evicted_total", m.held.evicted.Load(),
		"history_bytes", m.held.bytes.Load(), "history_uploads", m.held.uploads.Load(),
		"remedy", "raise HistoryTotalBytes and MaxUploads (--history-total-bytes, --max-uploads), or lower HistoryTTL, "+
			"HistoryMessages and HistoryBytes (--history-ttl, --history-messages, --history-bytes)")
}
