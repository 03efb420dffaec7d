package membership

import "slices"

const (
	// silentBeats is the number of own hellos that a node receives before it considers a silent node lost: three whole
	// intervals of silence, and up to one more.
	silentBeats = 4
	// maxNodes bounds how many nodes are known at a time.
	maxNodes = 1024
	// maxEarlier bounds how many earlier processes of a node's name are remembered for silentBeats.
	maxEarlier = 8
)

// roster is this node's knowledge of the other nodes. It is not safe for concurrent use.
type roster struct {
	nodes map[string]*node
	// beats counts the own hellos received.
	beats uint64
	// lost counts the nodes that fell silent without a bye.
	lost uint64
}

type node struct {
	run string
	// heard is the value of the roster's beats when the node's last message arrived.
	heard uint64
	// gone is set after a bye. The entry is kept for a while, because a welcome that the node sent earlier may arrive
	// later, on another channel.
	gone bool
	// earlier are the processes that used the name before run and have not said bye, with the beat when they were last
	// heard. After a restart the earlier process stays silent. If it is heard again, two processes use the name.
	earlier map[string]uint64
	// clash is set while that is so.
	clash bool
	// differs: the node's settings are not those of this node.
	differs bool
}

// hello records a sign of life of a node. joined reports that the node was unknown, clash that several processes turn
// out to use its name, and full that the roster has no room for it.
func (r *roster) hello(name, run string) (joined, clash, full bool) {
	n, ok := r.nodes[name]
	switch {
	case !ok && len(r.nodes) >= maxNodes:
		return false, false, true
	case !ok:
		r.nodes[name] = &node{run: run, heard: r.beats}
		return true, false, false
	case n.run == run:
		if !n.gone {
			n.heard = r.beats
		}
		return false, false, false
	}
	_, returned := n.earlier[run]
	clash = returned && !n.clash
	n.replace(run, r.beats)
	n.clash = n.clash || returned
	return !returned, clash, false
}

// replace makes run the process that has the node's name, and remembers the previous one unless it has left.
func (n *node) replace(run string, beat uint64) {
	if !n.gone {
		if n.earlier == nil {
			n.earlier = make(map[string]uint64)
		}
		if len(n.earlier) < maxEarlier {
			n.earlier[n.run] = n.heard
		}
	}
	delete(n.earlier, run)
	n.run, n.heard, n.gone = run, beat, false
}

// bye records that a node has left, and reports whether it was present before.
func (r *roster) bye(name, run string) bool {
	n, ok := r.nodes[name]
	switch {
	case !ok:
		return false
	case n.run != run:
		n.forget(run)
		return false
	case n.gone:
		return false
	}
	for other, heard := range n.earlier { // the name is still in use
		n.run, n.heard = other, heard
		n.forget(other)
		return false
	}
	n.gone = true
	return true
}

// forget removes an earlier process of the node's name.
func (n *node) forget(run string) {
	delete(n.earlier, run)
	n.clash = n.clash && len(n.earlier) > 0
}

// beat records that an own hello arrived and returns the nodes that have been silent for too long.
func (r *roster) beat() (lost []string) {
	r.beats++
	for name, n := range r.nodes {
		for run, heard := range n.earlier {
			if r.beats-heard >= silentBeats {
				n.forget(run)
			}
		}
		if r.beats-n.heard < silentBeats {
			continue
		}
		delete(r.nodes, name)
		if !n.gone {
			lost = append(lost, name)
		}
	}
	r.lost += uint64(len(lost))
	return lost
}

// names returns the sorted names of the nodes that have not left.
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

// compare records whether a node has the same settings as this one, and reports whether a difference is new.
func (r *roster) compare(name string, same bool) (news bool) {
	n := r.nodes[name]
	if n == nil {
		return false
	}
	news = !same && !n.differs
	n.differs = !same
	return news
}

// different returns the names of the nodes with other settings, sorted.
func (r *roster) different() (names []string) {
	for name, n := range r.nodes {
		if n.differs && !n.gone {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// clashes returns the names of nodes that several processes use.
func (r *roster) clashes() (names []string) {
	for name, n := range r.nodes {
		if n.clash {
			names = append(names, name)
		}
	}
	return names
}
