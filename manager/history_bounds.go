package manager

import (
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

// historyUse counts the stored messages of all uploads, and enforces Options.HistoryTotalBytes and Options.MaxUploads.
type historyUse struct {
	uploads, messages, bytes atomic.Int64
	evicted                  atomic.Uint64
	// wake starts the goroutine that evicts before publishers have to.
	wake chan struct{}
	// evicting is held while uploads are evicted. Upload locks are acquired under it, so it must not be acquired with
	// one held.
	evicting sync.Mutex
	// logged is when an eviction was last logged, on Manager.clock. By evicting.
	logged int64
}

// logSize is the part of historyUse that one upload accounts for.
type logSize struct{ messages, bytes int }

// logSizeOf returns the part of historyUse that an upload accounts for. The upload's lock is held.
func logSizeOf(u *upload) (size logSize) {
	if log := u.State.log; log != nil {
		size.messages, size.bytes = log.Size()
	}
	if size.messages > 0 {
		size.bytes += size.messages*MessageOverhead + UploadOverhead + len(u.ID())
	}
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
	if m.nearBound(evictFrom) {
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

// nearBound reports whether less than a part of a bound is free.
func (m *Manager) nearBound(part int) bool {
	over := func(used int64, bound int) bool { return bound > 0 && used > int64(bound-bound/part) }
	return over(m.held.bytes.Load(), m.opt.HistoryTotalBytes) || over(m.held.uploads.Load(), m.opt.MaxUploads)
}

// exceedsBound reports whether a bound is exceeded.
func (m *Manager) exceedsBound() bool {
	return m.opt.HistoryTotalBytes > 0 && m.held.bytes.Load() > int64(m.opt.HistoryTotalBytes) ||
		m.opt.MaxUploads > 0 && m.held.uploads.Load() > int64(m.opt.MaxUploads)
}

// enforceBounds evicts if a bound is exceeded. No upload's lock is held.
func (m *Manager) enforceBounds() {
	if m.exceedsBound() {
		m.evict()
	}
}

func (m *Manager) evictInBackground() {
	for {
		select {
		case <-m.stop:
			return
		case <-m.held.wake:
			m.evict()
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

// evict drops histories until evictTo is reached: first those of uploads without followers, then the messages of
// others, those that were published to longest ago first. It visits the uploads twice instead of sorting a list of
// them, because the list would need memory when there is least of it.
func (m *Manager) evict() {
	m.held.evicting.Lock()
	defer m.held.evicting.Unlock()
	if !m.nearBound(evictFrom) { // another caller has evicted
		return
	}
	before := m.held.evicted.Load()
	for _, followed := range []bool{false, true} {
		if m.nearBound(evictTo) {
			m.evictOldest(followed)
		}
	}
	m.logEvicted(m.held.evicted.Load() - before)
}

// evictOldest evicts uploads with or without followers.
func (m *Manager) evictOldest(followed bool) {
	now := time.Now()
	var count ages
	matches := func(u *upload) bool {
		return logSizeOf(u).messages > 0 && (u.Subscribers() > 0 || u.State.follow != nil) == followed
	}
	m.registry.EachUpload(func(u *upload) {
		if matches(u) {
			count[ageStep(now.Sub(u.State.log.Touched()))]++
		}
	})
	for step := len(count) - 1; step >= 0 && m.nearBound(evictTo); {
		// Steps with few uploads are evicted together, so that the number of passes stays small.
		first, some := step, count[step]
		for first > 0 && some < m.held.uploads.Load()/32 {
			first--
			some += count[first]
		}
		if some > 0 {
			m.registry.EachUpload(func(u *upload) {
				if matches(u) && ageStep(now.Sub(u.State.log.Touched())) >= first && m.nearBound(evictTo) {
					m.evictUpload(u, followed)
				}
			})
		}
		step = first - 1
	}
}

// evictUpload drops the stored messages of an upload, whose lock is held.
func (m *Manager) evictUpload(u *upload, followed bool) {
	defer m.account(u, logSizeOf(u))
	if followed {
		u.State.log.Drop()
		if f := u.State.follow; f != nil { // the broker has them
			f.partial = true
		}
	} else {
		u.State.log = nil
	}
	m.held.evicted.Add(1)
}

// logEvicted logs evictions, at most once a minute. The caller holds evicting.
func (m *Manager) logEvicted(uploads uint64) {
	now := m.clock()
	if uploads == 0 || m.held.logged != 0 && now-m.held.logged < int64(time.Minute) {
		return
	}
	m.held.logged = now
	m.opt.Logger.Warn("histories evicted", "uploads", uploads, "evicted_total", m.held.evicted.Load(),
		"history_bytes", m.held.bytes.Load(), "history_uploads", m.held.uploads.Load(),
		"remedy", "raise HistoryTotalBytes and MaxUploads, or lower HistoryTTL, HistoryMessages and HistoryBytes")
}
