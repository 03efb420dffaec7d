package natsbroker

import "slices"

// watchRoutes reports whether a connection of the server in this process to another one of its cluster has ended
// since the last call: messages that were on it are lost, although the node's own connection is whole and the leader
// the same.
func (v *supervisor) watchRoutes() (lost bool) {
	server, ok := v.opt.Server.(interface{ Routes() []uint64 })
	if !ok {
		return false
	}
	now := server.Routes()
	lost = slices.ContainsFunc(v.routes, func(id uint64) bool { return !slices.Contains(now, id) })
	v.routes = now
	return lost
}
