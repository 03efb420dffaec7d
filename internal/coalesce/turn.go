package coalesce

import (
	"context"
	"fmt"
	"time"
)

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

// take removes the waiting state in order to send it now, with the function that it returns: nil if there is none.
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
