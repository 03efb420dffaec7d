package natsbroker

import (
	"container/list"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
)

// subscriptions are the channels that a node is subscribed to. The methods are safe for concurrent use and never
// wait for the server. All subscriptions share one Go channel, so that a channel costs neither a goroutine nor a
// buffer of its own.
type subscriptions struct {
	mu        sync.RWMutex // guards the fields below, and the order of commands to the connection
	bySubject map[string]*subscription
	// byRefresh holds all subscriptions, the one first whose record is due first to be written again.
	byRefresh *list.List
	// overflowed are the subscriptions that lost messages for want of room.
	overflowed map[*subscription]struct{}
}

// subscription is one channel's.
type subscription struct {
	channel, base string
	sub           *nats.Subscription
	// confirmed means that a Subscribe call for the channel has returned nil.
	confirmed bool
	// epoch is the channel's epoch, "" while unknown; begin is the sequence of the message that it began with.
	epoch string
	begin uint64
	// from is the sequence below which messages are of an epoch before, or were dropped before the epoch began.
	from uint64
	// dropped is the number of messages that did not fit into the queue, beside those that nats.go has dropped, and
	// reported the number of all that the handler was notified of.
	dropped, reported int
	element           *list.Element
	// refreshed is when this node last refreshed the channel's record, found it fresh, or subscribed.
	refreshed time.Time
	// record is the sequence of the channel's record when it was last read.
	record uint64
	// newest is the sequence of the newest stored message that has arrived since the stream has its epoch.
	newest *atomic.Uint64
}

func newSubscriptions() *subscriptions {
	return &subscriptions{
		bySubject:  make(map[string]*subscription),
		byRefresh:  list.New(),
		overflowed: make(map[*subscription]struct{}),
	}
}

// add subscribes to the channels that are not subscribed to yet and returns them. After an error none is added.
func (s *subscriptions) add(conn *nats.Conn, arrivals chan *nats.Msg, channels []string) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var added []string
	for _, channel := range channels {
		base := baseSubject(channel)
		if _, ok := s.bySubject[livePrefix+base]; ok {
			continue
		}
		sub, err := conn.ChanSubscribe(livePrefix+base, arrivals)
		if err != nil {
			s.removeLocked(added)
			return nil, err
		}
		one := &subscription{channel: channel, base: base, sub: sub, refreshed: time.Now(), newest: new(atomic.Uint64)}
		one.element = s.byRefresh.PushBack(one)
		s.bySubject[livePrefix+base] = one
		added = append(added, channel)
	}
	return added, nil
}

// move subscribes to all channels again on another connection.
func (s *subscriptions) move(conn *nats.Conn, arrivals chan *nats.Msg) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.overflowed)
	for subject, one := range s.bySubject {
		sub, err := conn.ChanSubscribe(subject, arrivals)
		if err != nil {
			return err
		}
		one.sub, one.dropped, one.reported = sub, 0, 0
		one.epoch, one.begin, one.from = "", 0, 0
	}
	return nil
}

// confirm marks subscriptions as effective. It returns false if one of them was removed in the meantime.
func (s *subscriptions) confirm(channels []string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := true
	for _, channel := range channels {
		one, ok := s.bySubject[livePrefix+baseSubject(channel)]
		if ok {
			one.confirmed = true
		}
		all = all && ok
	}
	return all
}

// rollBack removes the channels that add returned, except channels that another call has confirmed.
func (s *subscriptions) rollBack(added []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, channel := range added {
		if one, ok := s.bySubject[livePrefix+baseSubject(channel)]; ok && !one.confirmed {
			s.removeLocked([]string{channel})
		}
	}
}

// remove unsubscribes.
func (s *subscriptions) remove(channels []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.removeLocked(channels)
}

func (s *subscriptions) removeLocked(channels []string) {
	for _, channel := range channels {
		subject := livePrefix + baseSubject(channel)
		one, ok := s.bySubject[subject]
		if !ok {
			continue
		}
		delete(s.bySubject, subject)
		delete(s.overflowed, one)
		s.byRefresh.Remove(one.element)
		// An error means that the connection is closed, and the subscription with it.
		_ = one.sub.Unsubscribe()
	}
}

// setEpoch records a channel's epoch, which began at the sequence begin (0: with the stream). All messages of the
// channel below from are older.
func (s *subscriptions) setEpoch(base, epoch string, begin, from uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if one, ok := s.bySubject[livePrefix+base]; ok && begin >= one.begin {
		one.epoch, one.begin, one.from = epoch, begin, max(one.from, from)
	}
}

// replaceEpoch gives a channel the epoch of its record if it has another one that began before the record, and reports
// whether it had.
func (s *subscriptions) replaceEpoch(base string, r *record) (channel string, replaced bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	one, ok := s.bySubject[livePrefix+base]
	if !ok || one.epoch == "" || one.epoch == r.epoch || r.sequence <= one.begin {
		return "", false
	}
	// It held no more than the record when that was written: the handler, which is informed, reads it.
	one.epoch, one.begin, one.from = r.epoch, r.begin, max(one.from, r.sequence)
	return one.channel, true
}

// forgetEpochs has the epochs of all channels read again.
func (s *subscriptions) forgetEpochs() { s.setEpochs("", false) }

// resetEpochs sets the epoch of all channels to that of a new stream.
func (s *subscriptions) resetEpochs(epoch string) { s.setEpochs(epoch, true) }

func (s *subscriptions) setEpochs(epoch string, fresh bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, one := range s.bySubject {
		one.epoch, one.begin, one.from = epoch, 0, 0
		if fresh {
			one.newest.Store(0)
		}
	}
}

// newest returns the sequence of the newest message of a channel that has arrived since the stream has its epoch, 0
// without one.
func (s *subscriptions) newest(base string) uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if one, ok := s.bySubject[livePrefix+base]; ok {
		return one.newest.Load()
	}
	return 0
}

// lowerNewest replaces what newest has returned: the stream does not hold that message any more.
func (s *subscriptions) lowerNewest(base string, from, to uint64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if one, ok := s.bySubject[livePrefix+base]; ok {
		one.newest.CompareAndSwap(from, min(from, to))
	}
}

// find returns the present values of the subscription to a live subject.
func (s *subscriptions) find(subject string) (known subscription, ok bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	one, ok := s.bySubject[subject]
	if ok {
		known = *one
	}
	return known, ok
}

// confirmed reports whether a subject is subscribed to and a Subscribe call has said so.
func (s *subscriptions) confirmed(subject string) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	one, ok := s.bySubject[subject]
	return ok && one.confirmed
}

// includes reports whether a channel, given by its base subject, is subscribed to.
func (s *subscriptions) includes(base string) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	_, ok := s.bySubject[livePrefix+base]
	return ok
}

// markDropped records that nats.go dropped a message of a subscription.
func (s *subscriptions) markDropped(sub *nats.Subscription) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if one, ok := s.bySubject[sub.Subject]; ok {
		s.overflowed[one] = struct{}{}
	}
}

// addDropped records that a message on a subject did not fit into the queue.
func (s *subscriptions) addDropped(subject string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if one, ok := s.bySubject[subject]; ok {
		one.dropped++
		s.overflowed[one] = struct{}{}
	}
}

// dropped returns the channels that lost further messages since the last call. They stay under observation,
// since nats.go reports only the first of consecutive drops.
func (s *subscriptions) dropped() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var channels []string
	for one := range s.overflowed {
		if dropped, err := one.sub.Dropped(); err == nil && dropped+one.dropped != one.reported {
			one.reported = dropped + one.dropped
			channels = append(channels, one.channel)
		}
	}
	return channels
}

// nextDue returns the base subject of a channel whose record was not refreshed since a moment, and the record's last
// known sequence. It marks the record as refreshed.
func (s *subscriptions) nextDue(since time.Time) (base string, record uint64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	front := s.byRefresh.Front()
	if front == nil {
		return "", 0, false
	}
	one, isSubscription := front.Value.(*subscription)
	if !isSubscription || one.refreshed.After(since) {
		return "", 0, false
	}
	one.refreshed = time.Now()
	s.byRefresh.MoveToBack(front)
	return one.base, one.record, true
}

// setRecord records the sequence of a channel's record.
func (s *subscriptions) setRecord(base string, record uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if one, ok := s.bySubject[livePrefix+base]; ok {
		one.record = record
	}
}
