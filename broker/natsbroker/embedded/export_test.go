package embedded

// LastSequences returns the last sequences of a server's replicas by the streams' names.
func LastSequences(s *Server) (map[string]uint64, error) { return s.lastSequences() }
