package coalesce

import (
	"context"
	"time"
)

const (
	// idle is how long the goroutine waits if nothing is due; it is woken when that changes.
	idle = time.Hour
	// batch is the number of keys processed per acquisition of the lock.
	batch = 1024
)

// run sends due states in the background until the coalescer is closed.
func (t *Coalescer[M, P]) run() {
	defer close(t.done)
	defer t.sends.Wait()
	timer := time.NewTimer(idle)
	defer timer.Stop()
	for {
		pause, over := t.advance()
		if over {
			return
		}
		timer.Reset(pause)
		select {
		case <-t.wake:
		case <-timer.C:
		}
	}
}

// nudge wakes run.
func (t *Coalescer[M, P]) nudge() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// advance removes the due entries from the lines and starts to send ready ones, as far as Config.Parallel allows. It
// returns the time until the next entry is due; over means that the coalescer is closed and no work is left.
func (t *Coalescer[M, P]) advance() (pause time.Duration, over bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	pause = t.dueLocked(time.Now())
	gaveUp := t.ctx.Err() != nil
	for t.running < t.cfg.Parallel && t.ready.first != nil && !gaveUp {
		e := t.ready.first
		e.leave()
		if e.busy || !e.full {
			t.settleLocked(e) // the goroutine that has the key's turn settles it afterwards
			continue
		}
		e.busy = true
		t.running++
		t.sends.Add(1)
		go t.background(e, t.closed)
	}
	return pause, t.closed && t.running == 0 && (gaveUp || t.counts.Waiting == 0)
}

// dueLocked removes the due entries from the lines, or all entries after Close, and returns the time until the next one
// is due.
func (t *Coalescer[M, P]) dueLocked(now time.Time) time.Duration {
	pause := idle
	left := batch
	for _, l := range t.lines {
		for e := l.first; e != nil; e = l.first {
			if wait := e.due.Sub(now); wait > 0 && !t.closed {
				pause = min(pause, wait)
				break
			}
			if left--; left < 0 {
				return 0
			}
			e.leave()
			t.settleLocked(e)
		}
	}
	return pause
}

// background attempts to send the waiting state. last marks the final attempt.
func (t *Coalescer[M, P]) background(e *entry[M, P], last bool) {
	defer t.sends.Done()
	ctx, cancel := context.WithTimeout(t.ctx, t.cfg.Patience)
	defer cancel()
	err := t.flush(ctx, e)
	if err != nil {
		t.cfg.Failed(e.key, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.running--
	if err != nil {
		t.counts.Failed++
	}
	if err != nil && last && e.full {
		var none M
		e.slot, e.full = none, false
		t.counts.Waiting--
		t.unsent++
	}
	t.releaseLocked(e)
	t.nudge()
}
