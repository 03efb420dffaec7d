package systems

import (
	"slices"
	"sync"
)

// topics knows which connections follow which channel, for the libraries that leave this to the application.
// All methods may be called from any number of goroutines.
type topics[C comparable] struct {
	mu sync.RWMutex // protects the fields below; held for reading while a message is sent to the followers
	of map[string][]C
	n  int
}

func newTopics[C comparable]() *topics[C] { return &topics[C]{of: map[string][]C{}} }

// join makes a connection follow a channel.
func (t *topics[C]) join(channel string, c C) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.of[channel] = append(t.of[channel], c)
	t.n++
}

// leave takes a connection out of the channel that it follows. Calling it again is allowed.
func (t *topics[C]) leave(channel string, c C) {
	t.mu.Lock()
	defer t.mu.Unlock()
	followers := t.of[channel]
	at := slices.Index(followers, c)
	if at < 0 {
		return
	}
	last := len(followers) - 1
	followers[at] = followers[last]
	clear(followers[last:])
	t.of[channel] = followers[:last]
	t.n--
}

// with calls f with the followers of a channel, which f must not change or keep.
func (t *topics[C]) with(channel string, f func([]C)) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	f(t.of[channel])
}

// Subscriptions returns the number of connections that follow a channel.
func (t *topics[C]) Subscriptions() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.n
}
