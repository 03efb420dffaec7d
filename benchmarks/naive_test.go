package benchmarks

import "sync"

// naive is the manager that this module replaces, line for line: three maps, here with the mutex that it
// would need with threads. It is the yardstick of the registry.
type naive struct {
	mu            sync.Mutex
	connections   map[string]map[*sink]struct{}
	subscribers   map[string]map[string]struct{}
	subscriptions map[string]map[string]struct{}
}

func newNaive() *naive {
	return &naive{
		connections:   map[string]map[*sink]struct{}{},
		subscribers:   map[string]map[string]struct{}{},
		subscriptions: map[string]map[string]struct{}{},
	}
}

func add[V comparable](m map[string]map[V]struct{}, k string, v V) {
	if m[k] == nil {
		m[k] = map[V]struct{}{}
	}
	m[k][v] = struct{}{}
}

func remove[V comparable](m map[string]map[V]struct{}, k string, v V) {
	delete(m[k], v)
	if len(m[k]) == 0 {
		delete(m, k)
	}
}

func (n *naive) connect(user string, c *sink) {
	n.mu.Lock()
	defer n.mu.Unlock()
	add(n.connections, user, c)
}

func (n *naive) subscribe(user string, _ *sink, upload string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	add(n.subscribers, upload, user)
	add(n.subscriptions, user, upload)
}

func (n *naive) unsubscribe(user string, _ *sink, upload string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	remove(n.subscribers, upload, user)
	remove(n.subscriptions, user, upload)
}

func (n *naive) lookup(upload string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	receivers := 0
	for user := range n.subscribers[upload] {
		receivers += len(n.connections[user])
	}
	return receivers
}
