package brokertest

import (
	"fmt"
	"strconv"
	"sync"
)

// ledger accounts for the messages of one channel. Their payloads are the numbers from 0. All methods may be called
// from any number of goroutines.
type ledger struct {
	mu    sync.Mutex
	acked []bool // by number: whether Store returned nil
}

// next returns the next message's number.
func (l *ledger) next() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acked = append(l.acked, false)
	return len(l.acked) - 1
}

// ack notes that a message was stored.
func (l *ledger) ack(number int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acked[number] = true
}

// check returns the faults in a follower's observations so far, or nil: each acknowledged message is
// there once and in order, or its loss was announced just where it is missing. One that was not acknowledged may
// be there, also late, as it may have stood before a socket that a paused engine read later; but not before one
// that was acknowledged before its Store began.
func (l *ledger) check(sights []Sight, mayLose bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	seen := make(map[int]bool)
	due := 0 // all acknowledged ones below are accounted for
	announced := false
	var offset uint64
	for _, sight := range sights {
		if sight.Lost != "" {
			if !mayLose {
				return fmt.Errorf("a loss is announced that need not be: %s", sight.Lost)
			}
			announced, offset = true, 0
			continue
		}
		number, err := strconv.Atoi(string(sight.Payload))
		switch {
		case err != nil || number < 0 || number >= len(l.acked):
			return fmt.Errorf("%q was seen, which was never stored", sight.Payload)
		case seen[number]:
			return fmt.Errorf("message %d was seen twice", number)
		case l.acked[number] && number < due:
			return fmt.Errorf("message %d was seen after %d, out of order", number, due-1)
		case sight.Offset <= offset:
			return fmt.Errorf("message %d is at offset %d, not above %d", number, sight.Offset, offset)
		}
		if missing := l.firstAcked(due, number); missing >= 0 && !announced {
			return fmt.Errorf("message %d is missing before %d, and nothing was said of it", missing, number)
		}
		seen[number], due, announced, offset = true, max(due, number+1), false, sight.Offset
	}
	if missing := l.firstAcked(due, len(l.acked)); missing >= 0 && !announced {
		return fmt.Errorf("message %d is missing at the end, and nothing was said of it", missing)
	}
	return nil
}

// firstAcked returns the first acknowledged message from a number up to below another, or -1.
func (l *ledger) firstAcked(from, to int) int {
	for number := from; number < to; number++ {
		if l.acked[number] {
			return number
		}
	}
	return -1
}
