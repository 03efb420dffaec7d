package sim

import (
	"fmt"
	"sync"
	"time"

	"github.com/shoal-go/shoal/broker"
)

// class is the message class of the protocol.
type class uint8

const (
	event class = iota
	state
	terminal
)

func (c class) String() string { return [...]string{"event", "state", "terminal"}[c] }

// entry is one accepted message.
type entry struct {
	body, upload int
	class        class
	// seq is the place in the order in which the upload's messages were accepted, from 1.
	seq int
	// at are the positions that the message had, one for each epoch: a broker that returns with its data may number the
	// message again.
	at []broker.Position
	// lost: the broker has lost the message, or was asked to forget it, so that it need not be delivered.
	lost bool
	// expires is the time from which it is not held; zero: never.
	expires time.Time
}

// gone reports whether the message is lost or no longer held.
func (e *entry) gone() bool { return e.lost || passed(e.expires) }

// offset returns the offset that the message had in an epoch, 0 if it had none.
func (e *entry) offset(epoch string) uint64 {
	for _, at := range e.at {
		if at.Epoch == epoch {
			return at.Offset
		}
	}
	return 0
}

// account knows every message that was accepted. All methods may be called from any number of goroutines.
type account struct {
	// ttl is how long messages are held; 0: always.
	ttl time.Duration

	mu      sync.Mutex // protects the fields below
	classes map[int]class
	bodies  map[int]*entry
	// logs hold the entries of each upload in the order of acceptance.
	logs map[int][]*entry
	// spots find an entry by its position.
	spots map[spot]*entry
	// twice is a body that was accepted twice.
	twice int
}

// spot is a position of an upload.
type spot struct {
	upload int
	broker.Position
}

func newAccount(ttl time.Duration) *account {
	return &account{
		ttl: ttl, classes: map[int]class{}, bodies: map[int]*entry{}, logs: map[int][]*entry{}, spots: map[spot]*entry{},
	}
}

// announce notes the class of a body before it is published.
func (a *account) announce(body int, c class) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.classes[body] = c
}

// accept notes that a body was accepted at a position.
func (a *account) accept(upload, body int, pos broker.Position) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.bodies[body] != nil {
		a.twice = body
	}
	e := &entry{body: body, upload: upload, class: a.classes[body], seq: len(a.logs[upload]) + 1}
	if a.ttl > 0 {
		e.expires = time.Now().Add(a.ttl)
	}
	a.bodies[body] = e
	a.logs[upload] = append(a.logs[upload], e)
	if pos.Offset > 0 {
		e.at = append(e.at, pos)
		a.spots[spot{upload, pos}] = e
	}
}

// renumber notes another position of a body that was accepted before.
func (a *account) renumber(upload, body int, pos broker.Position) {
	a.mu.Lock()
	defer a.mu.Unlock()
	e := a.bodies[body]
	e.at = append(e.at, pos)
	a.spots[spot{upload, pos}] = e
}

// lose notes that the messages of an upload need not be delivered any more, but those in keep.
func (a *account) lose(upload int, keep map[int]bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, e := range a.logs[upload] {
		e.lost = e.lost || !keep[e.body]
	}
}

// unspot notes that the offsets of an epoch above one will be used again.
func (a *account) unspot(upload int, above broker.Position) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for at := range a.spots {
		if at.upload == upload && at.Epoch == above.Epoch && at.Offset > above.Offset {
			delete(a.spots, at)
		}
	}
}

// held reports whether all messages between two positions of an upload are held.
func (a *account) held(upload int, after, end broker.Position) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for offset := after.Offset + 1; offset <= end.Offset; offset++ {
		if e := a.spots[spot{upload, broker.Position{Epoch: end.Epoch, Offset: offset}}]; e != nil && e.gone() {
			return false
		}
	}
	return true
}

// repeated returns a body that was accepted twice, or 0.
func (a *account) repeated() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.twice
}

// find returns the entry of a body, or nil.
func (a *account) find(body int) *entry {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.bodies[body]
}

// newest returns the newest entry of an upload that is not lost, or nil.
func (a *account) newest(upload int) *entry {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := len(a.logs[upload]) - 1; i >= 0; i-- {
		if e := a.logs[upload][i]; !e.gone() {
			return e
		}
	}
	return nil
}

// between describes the first message after seq and before end that must not be missing, or returns "" and the number
// of missing states. Lost messages do not count.
func (a *account) between(upload, seq, end int) (states int, problem string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, e := range a.logs[upload][seq:max(seq, end-1)] {
		switch {
		case e.gone():
		case e.class == state:
			states++
		default:
			return states, fmt.Sprintf("%s %d (number %d of the upload) is missing", e.class, e.body, e.seq)
		}
	}
	return states, ""
}

// last returns the number of messages that an upload has had.
func (a *account) last(upload int) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.logs[upload])
}

// spot returns the entry at a position, or nil.
func (a *account) spot(upload int, epoch string, offset uint64) *entry {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.spots[spot{upload, broker.Position{Epoch: epoch, Offset: offset}}]
}
