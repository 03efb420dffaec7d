package coalesce

import (
	"context"
	"fmt"
	"time"
)

// entryLocked returns a key's entry, made if there is none.
func (t *Coalescer[M, P]) entryLocked(key string) *entry[M, P] {
	e, ok := t.keys[key]
	if !ok {
		e = &entry[M, P]{key: key}
		t.keys[key] = e
	}
	return e
}

// holdLocked makes a state wait, in the place of the one that does.
func (t *Coalescer[M, P]) holdLocked(e *entry[M, P], m M) {
	if e.full {
		t.counts.Replaced++
	} else if !e.trying {
		t.counts.Waiting++
	}
	e.slot, e.full = m, true
}

// await waits until the turn of a message has come. After an error, which is that of ctx, it has no turn.
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
	return fmt.Errorf("throttle: waiting for earlier messages: %w", ctx.Err())
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

// settleLocked finds a place for an entry that is in no line and has nobody to care for it: what waits may
// leave, and a key without anything is forgotten.
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

// standLocked puts an entry at the end of the line for so many failures.
func (t *Coalescer[M, P]) standLocked(e *entry[M, P], failures int) {
	l := t.lines[min(failures, len(t.lines)-1)]
	e.due = time.Now().Add(l.pause)
	if l.push(e) {
		t.nudge()
	}
}

// flush sends the state that waits, if there is one. The caller has the turn. If it fails, the state goes on
// waiting, unless a newer one has come meanwhile.
func (t *Coalescer[M, P]) flush(ctx context.Context, e *entry[M, P]) error {
	m, ok := t.take(e)
	if !ok {
		return nil
	}
	pos, err := t.cfg.Send(ctx, e.key, m)
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
		e.slot, e.full = m, true
	}
	e.failures++
	t.standLocked(e, e.failures)
	return err
}

// take takes the state that waits, to be sent now.
func (t *Coalescer[M, P]) take(e *entry[M, P]) (m M, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !e.full {
		return m, false
	}
	var none M
	m, e.slot = e.slot, none
	e.full, e.trying = false, true
	t.standLocked(e, 0)
	return m, true
}
