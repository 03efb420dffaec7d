package server

import (
	"io"
	"sync/atomic"
)

// maxBodiesBytes bounds the request bodies that are handled at a time, all together.
const maxBodiesBytes = 256 << 20

// messageOverhead is about the memory that a message of a body takes beside its bytes.
const messageOverhead = 256

// bodyBudget bounds the bytes of all request bodies that are being handled, and of the messages that are made of them.
// Its methods may be called from any number of goroutines.
type bodyBudget struct {
	limit int64
	used  atomic.Int64
}

// share returns the part of one request, which must be released.
func (b *bodyBudget) share() *bodyShare { return &bodyShare{budget: b} }

// bodyShare is the part that one request has in the budget. It belongs to the goroutine of the request.
type bodyShare struct {
	budget *bodyBudget
	bytes  int64
}

// take adds bytes to the share, and returns an error if the budget is exceeded.
func (s *bodyShare) take(bytes int) error {
	s.bytes += int64(bytes)
	if s.budget.used.Add(int64(bytes)) > s.budget.limit {
		return unavailable("the bodies of all requests together take too much memory; try again, with smaller bodies or " +
			"fewer requests at a time")
	}
	return nil
}

// takeMessage is take for a message.
func (s *bodyShare) takeMessage(m bodyMessage) error {
	return s.take(len(m.Payload()) + messageOverhead)
}

// release ends the request.
func (s *bodyShare) release() { s.budget.used.Add(-s.bytes) }

// sharedBody is a request body whose bytes are taken from the budget as they come.
type sharedBody struct {
	io.ReadCloser
	share *bodyShare
}

// Read reads from the body.
func (b sharedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if exceeded := b.share.take(n); exceeded != nil {
		return 0, exceeded
	}
	return n, err
}
