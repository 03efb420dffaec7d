package client

import (
	"bytes"
	"encoding/json"
	"slices"
)

// upload is an upload that at least one loop follows. Client.mu protects it.
type upload struct {
	id string
	// head is the place up to which the client has received the upload's messages, ahead of its slow loops.
	head cursor
	// last is the newest message, which a later loop gets first.
	last      *Message
	followers []*follower
}

// follower is one loop over an upload. Client.mu protects it.
type follower struct {
	cursor
	upload *upload
	queue  queue
	// full: the queue had no room for a message. The cursor stays before that one until the queue is empty.
	full bool
	// err ends the loop when the queue is empty.
	err error
	// ready has a token if there is something for the loop.
	ready chan struct{}
}

func (f *follower) wake() {
	select {
	case f.ready <- struct{}{}:
	default:
	}
}

// end makes the loop end with err.
func (f *follower) end(err error) {
	if f.err == nil {
		f.err = err
	}
	f.wake()
}

func (u *upload) end(err error) {
	for _, f := range u.followers {
		f.end(err)
	}
}

// follow adds a loop, which begins where the upload is now.
func (u *upload) follow(q queue) *follower {
	f := &follower{cursor: u.head, upload: u, queue: q, ready: make(chan struct{}, 1)}
	if u.last != nil {
		f.give(*u.last)
	}
	u.followers = append(u.followers, f)
	return f
}

func (u *upload) unfollow(f *follower) {
	u.followers = slices.DeleteFunc(u.followers, func(other *follower) bool { return other == f })
	f.queue.clear()
}

// cursors calls do for the head and for each loop.
func (u *upload) cursors(do func(c *cursor)) {
	do(&u.head)
	for _, f := range u.followers {
		do(&f.cursor)
	}
}

// stop ends the subscription.
func (u *upload) stop() { u.cursors((*cursor).stop) }

// wants reports whether the upload needs a subscription. A loop whose queue is full waits until it is empty.
func (u *upload) wants() bool {
	return u.head.wants() || slices.ContainsFunc(u.followers, func(f *follower) bool { return f.wants() && !f.full })
}

// subscribe makes all cursors wait for the answer to a subscription, and returns its position: the first one of theirs.
func (u *upload) subscribe() (from Position) {
	known := false
	begin := func(c *cursor) {
		c.waiting = true
		at := c.position()
		if c.known && (!known || at.Offset < from.Offset) {
			from, known = at, true
		}
	}
	begin(&u.head)
	for _, f := range u.followers {
		if !f.full {
			begin(&f.cursor)
		}
	}
	if !known {
		from.Epoch = noEpoch
	}
	return from
}

// apply applies an answer to the subscription from a position, or a notice.
func (u *upload) apply(a answer, from Position, asked bool) error {
	if a.recovered && asked && (a.Epoch != from.Epoch || a.Offset < from.Offset) {
		return violation("upload %.40q was recovered from an offset that it does not have", u.id)
	}
	if u.head.apply(a) {
		u.last = nil
	}
	for _, f := range u.followers {
		last := f.position()
		if f.apply(a) {
			f.queue.pushGap(&GapError{UploadID: u.id, Last: last, Now: a.Position})
			f.wake()
		}
	}
	return nil
}

// receive distributes a message.
func (u *upload) receive(m Message) {
	m.Epoch = u.head.epoch
	if u.head.accept(m.Offset) {
		u.last = &m
	}
	for _, f := range u.followers {
		switch before := f.cursor; {
		case f.full && m.Offset == 0:
			f.queue.pushGap(&GapError{UploadID: u.id, Last: f.position(), Now: f.position()})
		case !f.accept(m.Offset):
		case !f.give(m) && m.Offset > 0:
			f.cursor = before
			f.live = false
		}
	}
}

// give queues a message and reports whether there was room for it. A message without an offset, which cannot be read
// again, leaves a gap.
func (f *follower) give(m Message) bool {
	f.wake()
	if f.queue.push(m) {
		return true
	}
	f.full = true
	if m.Offset == 0 {
		f.live = false
		f.queue.pushGap(&GapError{UploadID: m.UploadID, Last: f.position(), Now: f.position()})
	}
	return false
}

// next returns the next item of the queue. drained is true if the loop has emptied a full queue: it then continues from
// its position.
func (f *follower) next() (it item, ok, drained bool) {
	if it, ok = f.queue.pop(); ok {
		return it, true, false
	}
	drained = f.full
	f.full = false
	return item{}, false, drained
}

// resume is a request to subscribe to uploads.
type resume struct {
	Action  string              `json:"action"`
	Uploads map[string]Position `json:"uploads"`
}

// noEpoch is the epoch of a subscription without a position. No upload has it, so that the newest message is sent, also
// if the connection has subscribed before.
const noEpoch = "none"

// encode returns a message without escapes for HTML, which take six bytes instead of one against the server's limit.
func encode(message any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(message); err != nil {
		panic("client: " + err.Error()) // strings and numbers always encode
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}
