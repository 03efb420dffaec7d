package coalesce

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// entry is the state of one key while it has unsent messages or sent a state within the interval. The coalescer's lock
// protects it.
type entry[M, P any] struct {
	key string
	// last is the position of the last message that was sent.
	last P
	// slot is the state that waits, if full; again means that an attempt to send it has failed.
	slot  M
	full  bool
	again bool
	// trying: a state that has waited is being sent.
	trying bool
	// leaving is how many states are being sent, or have lined up for it.
	leaving int
	// failures is the number of consecutive failed attempts to send the waiting state.
	failures int

	// busy is set while a goroutine has the key's turn to send; turns wakes the waiting goroutines in FIFO order.
	busy  bool
	turns []chan struct{}

	// in is the list that the entry is in, nil if in none; due is when its place there is over.
	in         *list[M, P]
	prev, next *entry[M, P]
	due        time.Time
}

// held reports whether there is a state whose Send has returned and that was not sent yet.
func (e *entry[M, P]) held() bool { return e.full || e.trying }

// holds reports whether a state that comes now has to wait.
func (e *entry[M, P]) holds(now time.Time) bool {
	return e.held() || e.leaving > 0 || e.in != nil && now.Before(e.due)
}

// lineUp acquires the key's turn and returns nil, or returns a channel that is closed when the turn has come.
func (e *entry[M, P]) lineUp() chan struct{} {
	if !e.busy {
		e.busy = true
		return nil
	}
	turn := make(chan struct{})
	e.turns = append(e.turns, turn)
	return turn
}

// stepBack stops waiting for a turn, and reports false if it has come already.
func (e *entry[M, P]) stepBack(turn chan struct{}) bool {
	at := slices.Index(e.turns, turn)
	if at < 0 {
		return false
	}
	e.turns = slices.Delete(e.turns, at, at+1)
	return true
}

// pass hands the turn to the next waiting goroutine, if there is one.
func (e *entry[M, P]) pass() {
	if len(e.turns) == 0 {
		e.busy = false
		return
	}
	close(e.turns[0])
	e.turns = slices.Delete(e.turns, 0, 1)
}

// list is a queue of entries. An entry is in one list at most.
type list[M, P any] struct{ first, last *entry[M, P] }

// push moves an entry to the end of the list, and reports whether it was empty.
func (l *list[M, P]) push(e *entry[M, P]) (wasEmpty bool) {
	e.leave()
	e.in, e.prev = l, l.last
	if l.last == nil {
		l.first, l.last = e, e
		return true
	}
	l.last.next, l.last = e, e
	return false
}

// leave removes the entry from its list, if it is in one.
func (e *entry[M, P]) leave() {
	if e.in == nil {
		return
	}
	if e.prev == nil {
		e.in.first = e.next
	} else {
		e.prev.next = e.next
	}
	if e.next == nil {
		e.in.last = e.prev
	} else {
		e.next.prev = e.prev
	}
	e.in, e.prev, e.next = nil, nil, nil
}

// line is a list whose entries all wait for the same time, so that they are in the order of their due times.
type line[M, P any] struct {
	*list[M, P]
	pause time.Duration
}

// linesFor returns the line of keys that have sent a state, and the lines for one, two and more failures.
func linesFor[M, P any](cfg Config[M, P]) []line[M, P] {
	lines := []line[M, P]{{new(list[M, P]), cfg.Interval}}
	for pause := cfg.Retry; ; pause *= 2 {
		most := pause >= cfg.RetryMost/2
		if most {
			pause = max(cfg.Retry, cfg.RetryMost)
		}
		lines = append(lines, line[M, P]{new(list[M, P]), max(pause, cfg.Interval)})
		if most {
			return lines
		}
	}
}

// entryLocked returns a key's entry and creates it if necessary.
func (t *Coalescer[M, P]) entryLocked(key string) *entry[M, P] {
	e, ok := t.keys[key]
	if !ok {
		e = &entry[M, P]{key: key}
		t.keys[key] = e
	}
	return e
}

// holdLocked makes a state wait and replaces the waiting one.
func (t *Coalescer[M, P]) holdLocked(e *entry[M, P], m M) {
	if e.full {
		t.counts.Replaced++
	} else if !e.trying {
		t.counts.Waiting++
	}
	e.slot, e.full, e.again = m, true, false
}

// await blocks until it is the message's turn. After an error, which is ctx's error, the message has no turn.
func (t *Coalescer[M, P]) await(ctx context.Context, e *entry[M, P], turn chan struct{}, state bool) error {
	if turn == nil {
		return nil
	}
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !e.stepBack(turn) {
		return nil // it has come just now, and has to be used
	}
	if state {
		e.leaving--
	}
	return fmt.Errorf("coalesce: waiting for earlier messages: %w", ctx.Err())
}

// release gives the turn back.
func (t *Coalescer[M, P]) release(e *entry[M, P]) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.releaseLocked(e)
}

func (t *Coalescer[M, P]) releaseLocked(e *entry[M, P]) {
	e.pass()
	t.settleLocked(e)
	if t.closed {
		t.nudge()
	}
}

// settleLocked classifies an entry that is in no line and whose turn is free: it readies a waiting state for sending
// and removes a key without any work.
func (t *Coalescer[M, P]) settleLocked(e *entry[M, P]) {
	switch {
	case e.busy || e.in != nil:
	case e.full:
		t.ready.push(e)
		t.nudge()
	default:
		delete(t.keys, e.key)
	}
}

// left notes that a state of the key leaves now. The caller has the turn.
func (t *Coalescer[M, P]) left(e *entry[M, P]) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.standLocked(e, 0)
}

// standLocked appends an entry to the line for that number of failures.
func (t *Coalescer[M, P]) standLocked(e *entry[M, P], failures int) {
	l := t.lines[min(failures, len(t.lines)-1)]
	e.due = time.Now().Add(l.pause)
	if l.push(e) {
		t.nudge()
	}
}

// flush sends the waiting state, if there is one. The caller has the turn. On failure the state keeps waiting, unless a
// newer one has replaced it.
func (t *Coalescer[M, P]) flush(ctx context.Context, e *entry[M, P]) error {
	m, send := t.take(e)
	if send == nil {
		return nil
	}
	pos, err := send(ctx, e.key, m)
	t.mu.Lock()
	defer t.mu.Unlock()
	e.trying = false
	switch {
	case err == nil:
		e.last, e.failures = pos, 0
		if !e.full {
			t.counts.Waiting--
		}
		return nil
	case e.full:
		t.counts.Replaced++
	default:
		e.slot, e.full, e.again = m, true, true
	}
	e.failures++
	t.standLocked(e, e.failures)
	return err
}

// take removes the waiting state in order to send it now, with the function that it returns, which is nil without a
// state.
func (t *Coalescer[M, P]) take(e *entry[M, P]) (m M, send func(context.Context, string, M) (P, error)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !e.full {
		return m, nil
	}
	send = t.cfg.Send
	if e.again {
		send = t.cfg.Resend
	}
	var none M
	m, e.slot = e.slot, none
	e.full, e.again, e.trying = false, false, true
	t.standLocked(e, 0)
	return m, send
}
