package dispatch

import "sync"

// maxLost is the number of channels with losses that a lane records before it reports a loss of all channels.
const maxLost = 1024

// lane is one queue.
type lane[M any] struct {
	mu     sync.Mutex // mu protects the fields below
	filled sync.Cond
	queue  []M
	bytes  int
	lost   map[string]struct{}
	closed bool
	// spare is the slice that was handled last, reused for the next messages.
	spare []M
}

func (l *lane[M]) put(m M, channel string, size, maxMessages, maxBytes int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	if len(l.queue) >= maxMessages || l.bytes+size > maxBytes {
		l.lose(channel)
	} else {
		l.queue = append(l.queue, m)
		l.bytes += size
	}
	l.filled.Signal()
}

func (l *lane[M]) lose(channel string) {
	if l.lost == nil {
		l.lost = make(map[string]struct{})
	}
	if len(l.lost) >= maxLost {
		clear(l.lost)
		channel = ""
	}
	if _, all := l.lost[""]; !all {
		l.lost[channel] = struct{}{}
	}
}

// take blocks until there are messages or losses and dequeues all of them: the messages, and the channels of dropped
// messages. It returns false once the lane is closed and empty.
func (l *lane[M]) take() (messages []M, lost []string, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.queue) == 0 && len(l.lost) == 0 {
		if l.closed {
			return nil, nil, false
		}
		l.filled.Wait()
	}
	messages, l.queue, l.spare = l.queue, l.spare[:0], l.queue
	l.bytes = 0
	for channel := range l.lost {
		lost = append(lost, channel)
	}
	l.lost = nil
	return messages, lost, true
}

func (l *lane[M]) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.filled.Signal()
}
