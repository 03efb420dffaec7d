package embedded

import "github.com/nats-io/nats-server/v2/server"

// LastSequences returns the last sequences of a server's replicas by the streams' names.
func LastSequences(s *Server) (map[string]uint64, error) { return s.lastSequences() }

// Leads reports whether a server is the leader of a stream.
func Leads(s *Server, stream string) bool {
	return s.server.JetStreamIsStreamLeader(server.DEFAULT_GLOBAL_ACCOUNT, stream)
}
