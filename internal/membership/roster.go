package membership

import "slices"

const (
	// silentBeats is the number of own hellos that a node receives before it considers a silent node lost: three whole
	// intervals of silence, and up to one more.
	silentBeats = 4
	// maxNodes bounds how many nodes are known at a time.
	maxNodes = 1024
)

// roster is this node's knowledge of the other nodes. It is not safe for concurrent use.
type roster struct {
	nodes map[string]*node
	// beats counts the own hellos received.
	beats uint64
}

type node struct {
	run string
	// heard is the value of the roster's beats when the node's last message arrived.
	heard uint64
	// gone is set after a bye. The entry is kept for a while, because a welcome that the node sent earlier may arrive
	// later, on another channel.
	gone bool
}

// hello notes that a node is there, and reports whether that is news. full: it is one too many to be noted.
func (r *roster) hello(name, run string) (joined, full bool) {
	n, ok := r.nodes[name]
	switch {
	case !ok && len(r.nodes) >= maxNodes:
		return false, true
	case !ok || n.run != run:
		r.nodes[name] = &node{run: run, heard: r.beats}
		return true, false
	case !n.gone:
		n.heard = r.beats
	}
	return false, false
}

// bye notes that a node has left, and reports whether that is news.
func (r *roster) bye(name, run string) bool {
	n, ok := r.nodes[name]
	if !ok || n.run != run || n.gone {
		return false
	}
	n.gone = true
	return true
}

// beat records that an own hello arrived and returns the nodes that have been silent for too long.
func (r *roster) beat() (lost []string) {
	r.beats++
	for name, n := range r.nodes {
		if r.beats-n.heard < silentBeats {
			continue
		}
		delete(r.nodes, name)
		if !n.gone {
			lost = append(lost, name)
		}
	}
	return lost
}

// names returns those of the nodes that are there, sorted.
func (r *roster) names() []string {
	names := make([]string, 0, len(r.nodes)+1)
	for name, n := range r.nodes {
		if !n.gone {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
