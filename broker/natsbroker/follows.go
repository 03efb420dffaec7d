package natsbroker

import (
	"container/list"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// follows are the channels that a node is subscribed to. All methods may be called from any number of goroutines;
// none waits for the server. A channel costs a subscription that shares one Go channel with all others, and so
// neither a goroutine nor a buffer of its own.
type follows struct {
	mu        sync.RWMutex // protects what follows, and the order of what the connection is told
	bySubject map[string]*follow
	// due holds all of them, in the order in which their records have to be written again.
	due *list.List
	// slow are those of which messages were lost on the way from the connection to the handler.
	slow map[*follow]struct{}
}

// follow is one channel.
type follow struct {
	channel, base string
	subscription  *nats.Subscription
	// confirmed says that a call that subscribed to it has returned without error.
	confirmed bool
	// begin is the sequence of the mark that began the epoch, as far as this node knows.
	begin uint64
	// reported is how many lost messages have been told of.
	reported int
	element  *list.Element
	refresh  time.Time
	// record is the sequence of the record when it was last looked at.
	record uint64
}

func newFollows() *follows {
	return &follows{
		bySubject: make(map[string]*follow),
		due:       list.New(),
		slow:      make(map[*follow]struct{}),
	}
}

// add subscribes to those that are not yet subscribed to, and returns which these are. After an error none is new.
func (f *follows) add(
	conn *nats.Conn, arrivals chan *nats.Msg, channels []string, refresh time.Time,
) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var added []string
	for _, channel := range channels {
		base := baseSubject(channel)
		if _, ok := f.bySubject[livePrefix+base]; ok {
			continue
		}
		subscription, err := conn.ChanSubscribe(livePrefix+base, arrivals)
		if err != nil {
			f.removeLocked(added)
			return nil, err
		}
		one := &follow{channel: channel, base: base, subscription: subscription, refresh: refresh}
		one.element = f.due.PushBack(one)
		f.bySubject[livePrefix+base] = one
		added = append(added, channel)
	}
	return added, nil
}

// confirm notes that the subscriptions hold. It returns false if one of them is gone again.
func (f *follows) confirm(channels []string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := true
	for _, channel := range channels {
		one, ok := f.bySubject[livePrefix+baseSubject(channel)]
		if ok {
			one.confirmed = true
		}
		all = all && ok
	}
	return all
}

// giveUp takes back what add did, but for what another call has confirmed meanwhile.
func (f *follows) giveUp(added []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, channel := range added {
		if one, ok := f.bySubject[livePrefix+baseSubject(channel)]; ok && !one.confirmed {
			f.removeLocked([]string{channel})
		}
	}
}

// remove unsubscribes.
func (f *follows) remove(channels []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.removeLocked(channels)
}

func (f *follows) removeLocked(channels []string) {
	for _, channel := range channels {
		subject := livePrefix + baseSubject(channel)
		one, ok := f.bySubject[subject]
		if !ok {
			continue
		}
		delete(f.bySubject, subject)
		delete(f.slow, one)
		f.due.Remove(one.element)
		// The error says that the connection is gone, and the subscription with it.
		_ = one.subscription.Unsubscribe()
	}
}

// learn notes where a channel's epoch begins.
func (f *follows) learn(subject string, begin uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if one, ok := f.bySubject[subject]; ok {
		one.begin = max(one.begin, begin)
	}
}

// find returns the channel of a live subject and where its epoch begins.
func (f *follows) find(subject string) (channel string, begin uint64, ok bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if one, ok := f.bySubject[subject]; ok {
		return one.channel, one.begin, true
	}
	return "", 0, false
}

// lose notes that a message of a subscription was lost on its way to the handler.
func (f *follows) lose(subscription *nats.Subscription) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if one, ok := f.bySubject[subscription.Subject]; ok {
		f.slow[one] = struct{}{}
	}
}

// losses returns the channels of which more was lost than was told of before. They stay under observation, since
// the connection says that it drops messages of a subscription only when it begins to.
func (f *follows) losses() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var channels []string
	for one := range f.slow {
		if dropped, err := one.subscription.Dropped(); err == nil && dropped != one.reported {
			one.reported = dropped
			channels = append(channels, one.channel)
		}
	}
	return channels
}

// next returns the base subject of a channel whose record is due, with the sequence that it had when it was last
// looked at, and puts it at the end of the queue.
func (f *follows) next(now, again time.Time) (base string, record uint64, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	front := f.due.Front()
	if front == nil {
		return "", 0, false
	}
	one, isFollow := front.Value.(*follow)
	if !isFollow || one.refresh.After(now) {
		return "", 0, false
	}
	one.refresh = again
	f.due.MoveToBack(front)
	return one.base, one.record, true
}

// saw notes the sequence of a channel's record.
func (f *follows) saw(base string, record uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if one, ok := f.bySubject[livePrefix+base]; ok {
		one.record = record
	}
}
