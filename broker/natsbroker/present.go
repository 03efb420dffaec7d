package natsbroker

import (
	"context"
	"errors"
	"strconv"

	"github.com/nats-io/nats.go"

	"github.com/shoal-go/shoal/broker"
)

// Some servers of a cluster respond with a state of the past: a replica that lags behind; any replica in the absence of
// a leader; and a leader that was stopped or cut off, until it learns of the next one. Such a response is believed
// where it goes on from the state that this node has seen. Where it goes back, a message is stored on the condition
// that it is true: that takes a majority of the replicas, which only the present leader has.

// confirm reports whether a sequence is the last one on a subject of the stream, 0 for none. A stream that has no room
// for the message that shows it counts as truthful.
func (s *session) confirm(ctx context.Context, subject string, last uint64) (bool, error) {
	_, err := s.publish(ctx, &nats.Msg{Subject: storeProbeSubject, Header: nats.Header{
		rollupHeader:          {rollupSubject},
		expectedHeader:        {strconv.FormatUint(last, 10)},
		expectedSubjectHeader: {subject},
	}})
	switch {
	case err == nil, isFull(err):
		return true, nil
	case isConflict(err):
		return false, nil
	}
	return false, err
}

// readPresent repeats a read of a channel that lacks the message at a position, or one that has arrived, until that is
// confirmed.
func (s *session) readPresent(
	ctx context.Context, base string, since broker.Position, read func() (history, error),
) (history, error) {
	for {
		arrived := s.subscriptions.newest(base)
		h, err := read()
		if err != nil || !s.replicated.Load() {
			return h, err
		}
		seen, last := arrived, max(h.last, h.Offset)
		if h.Epoch == since.Epoch {
			seen = max(seen, since.Offset)
		}
		if last >= seen {
			return h, nil
		}
		present, err := s.confirm(ctx, base, h.last)
		if present {
			s.subscriptions.lowerNewest(base, arrived, last)
		}
		if present || err != nil {
			return h, err
		}
		if err := pause(ctx); err != nil {
			return h, err
		}
	}
}

// readLast returns the last message on a subject, or a response with a status if there is none. The message is at least
// as new as the leader's at the time of the call.
func (s *session) readLast(ctx context.Context, subject string) (*nats.Msg, error) {
	for {
		last, err := s.lastSequence(ctx, subject)
		if err == nil {
			m, err := s.calls.request(ctx, &nats.Msg{Subject: s.lastOf(subject)})
			if err != nil || number(m, sequenceHeader) >= last {
				return m, err
			}
		} else if !errors.Is(err, errBusy) {
			return nil, err
		}
		if err := pause(ctx); err != nil {
			return nil, err
		}
	}
}

// lastSequence returns the last sequence on a subject by the leader, 0 where it alone responds anyway.
func (s *session) lastSequence(ctx context.Context, subject string) (uint64, error) {
	if !s.replicated.Load() {
		return 0, nil
	}
	m, err := s.calls.request(ctx, refusedPublish(subject))
	if err != nil {
		return 0, err
	}
	return refusedSequence(m)
}
