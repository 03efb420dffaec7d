package embedded

import (
	"slices"

	"github.com/nats-io/nats-server/v2/server"
)

// missing returns the addresses of the members in the options that are not connected.
func (s *Server) missing() []string {
	connected := map[string]bool{s.server.Name(): true}
	if routes, err := s.server.Routez(new(server.RoutezOptions)); err == nil {
		for _, r := range routes.Routes {
			connected[r.RemoteName] = true
		}
	}
	var missing []string
	for _, address := range s.members {
		if !connected[routeName(address)] {
			missing = append(missing, address)
		}
	}
	return missing
}

// metaGroup returns the state of the group of all members, the zero value if it is unknown.
func (s *Server) metaGroup() server.MetaClusterInfo {
	info, err := s.server.Jsz(nil)
	if err != nil || info.Meta == nil {
		return server.MetaClusterInfo{}
	}
	return *info.Meta
}

// quorum returns how many members are needed for a majority.
func (s *Server) quorum() int { return max(len(s.members)/2+1, s.metaGroup().QuorumNeeded) }

// formerMembers returns how many members of the cluster are offline and not among those of the options. They count for
// a majority. Members that have not been connected since this server started are taken for such.
func (s *Server) formerMembers() (count int) {
	names := []string{s.server.Name()}
	for _, address := range s.members {
		names = append(names, routeName(address))
	}
	for _, peer := range s.metaGroup().Replicas {
		if peer.Offline && !slices.Contains(names, peer.Name) {
			count++
		}
	}
	return count
}

// warnOfFormerMembers logs that the cluster counts members that are not among those of the options.
func (s *Server) warnOfFormerMembers() {
	if len(s.missing()) > 0 {
		return
	}
	if count := s.formerMembers(); count > 0 {
		s.log.Warn("NATS server: the cluster counts members that are not among the routes", "members", count,
			"consequence", "fewer of the others may fail, as the majority is of all members",
			"remedy", "start a server at the former address again, or stop all servers and start them with empty folders")
	}
}
