// Package health holds the parts of the brokers that explain to an operator why an engine does not serve a node.
package health

// Storage decides whether an engine's storage counts as full. Near its limit an engine refuses one message and accepts
// the next one because another has expired, so storage that was full counts as full until it clearly has room again.
// The zero value has room. It is not safe for concurrent use.
type Storage struct {
	refusal  error
	accepted int // consecutive probes that the engine has accepted since the last refusal
}

// ProbesToRecover is the number of consecutive accepted probes after which storage has room again.
const ProbesToRecover = 10

// Probe records that the engine refused a message for want of room, or accepted one if refusal is nil. roomy means that
// the engine's usage is known to be clearly below its limit. It returns the reason why the storage counts as full, or
// nil.
func (s *Storage) Probe(refusal error, roomy bool) error {
	s.accepted++
	switch {
	case refusal != nil:
		s.refusal, s.accepted = refusal, 0
	case roomy || s.accepted >= ProbesToRecover:
		s.refusal = nil
	}
	return s.refusal
}

// Full reports whether the storage counts as full.
func (s *Storage) Full() bool { return s.refusal != nil }
