package server

import (
	"bytes"
	"errors"
	"io"
	"sync/atomic"
)

// maxBodiesBytes is the default of Options.MaxBodiesBytes.
const maxBodiesBytes = 256 << 20

// leastBudget returns the budget that the largest request needs: for its body, and for its messages or the growth of
// its buffer, or for one message to each of many uploads.
func leastBudget(maxBodyBytes int) int {
	return maxBodyBytes + max(2*maxBodyBytes, maxManyBytes) + maxManyMessages*messageOverhead
}

// messageOverhead is about the memory that a message of a body takes beside its bytes.
const messageOverhead = 256

// bodyBudget bounds the buffers of all request bodies that are being handled, and the messages that are made of them.
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

// take adds n bytes to the share, and returns an error if the budget is exceeded.
func (s *bodyShare) take(n int) error {
	s.bytes += int64(n)
	if s.budget.used.Add(int64(n)) > s.budget.limit {
		return unavailable("the bodies of all requests together take too much memory; try again, with smaller bodies or " +
			"fewer requests at a time")
	}
	return nil
}

// takeMessage is take for a message.
func (s *bodyShare) takeMessage(m bodyMessage) error {
	return s.take(len(m.Payload()) + messageOverhead)
}

// give returns n bytes of an unused buffer to the budget.
func (s *bodyShare) give(n int) {
	s.bytes -= int64(n)
	s.budget.used.Add(-int64(n))
}

// release ends the request.
func (s *bodyShare) release() { s.budget.used.Add(-s.bytes) }

// read reads a body of at most most bytes. The announced length is -1 if it is unknown. The buffer is taken from the
// budget before it is allocated. It grows as bytes arrive, up to the announced length: a client may announce more than
// it sends.
func (s *bodyShare) read(body io.Reader, announced int64, most int) ([]byte, error) {
	length := int(min(announced, int64(most)))
	var buffer []byte
	for size := firstBuffer(length); ; size = nextBuffer(size, length, most) {
		if err := s.take(size); err != nil {
			return nil, err
		}
		grown := make([]byte, len(buffer), size)
		copy(grown, buffer)
		s.give(cap(buffer))
		for buffer = grown; len(buffer) < size; {
			n, err := body.Read(buffer[len(buffer):size])
			buffer = buffer[:len(buffer)+n]
			if errors.Is(err, io.EOF) {
				return buffer, nil
			}
			if err != nil {
				return nil, err
			}
		}
	}
}

// firstBuffer and nextBuffer return the sizes of the buffers for a body. The last byte is for noticing its end.
func firstBuffer(length int) int {
	if length < 0 {
		return bytes.MinRead
	}
	return min(length, maxReservedBytes) + 1
}

func nextBuffer(size, length, most int) int {
	if size <= length {
		return min(2*size, length+1)
	}
	return min(2*size, most+1)
}
