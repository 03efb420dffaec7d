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
	return s.leaderSequence(ctx, subject)
}

// leaderSequence returns the last sequence on a subject by the leader.
func (s *session) leaderSequence(ctx context.Context, subject string) (uint64, error) {
	m, err := s.calls.request(ctx, refusedPublish(subject))
	if err != nil {
		return 0, err
	}
	return refusedSequence(m)
}

// presentQuestion asks the leader for the last sequence on storeProbeSubject. As each check of the stream stores a
// message there, which takes a majority, a leader of the past knows a lower one; it responds first if it is nearer
// than the present leader.
type presentQuestion struct {
	*call
	// probed is the sequence of the newest message that this node has stored there.
	probed uint64
}

func (s *session) askPresent() (q presentQuestion, err error) {
	q.probed = s.epochs.era.Load().probed.Load()
	q.call, err = s.calls.start(refusedPublish(storeProbeSubject), false)
	return q, err
}

// awaitPresent returns nil if a leader has responded that is not of the past, and so has responded to all requests
// before the question. Otherwise the error is errBusy. A read that follows an interruption thus is not of the past.
func (s *session) awaitPresent(ctx context.Context, q presentQuestion) error {
	m, err := s.calls.awaitOne(ctx, q.call)
	if err != nil {
		return err
	}
	last, err := refusedSequence(m)
	if err == nil && last < q.probed {
		err = errBusy
	}
	return err
}

// untilPresent repeats the question until awaitPresent returns nil.
func (s *session) untilPresent(ctx context.Context) error {
	for {
		q, err := s.askPresent()
		if err == nil {
			err = s.awaitPresent(ctx, q)
		}
		if !errors.Is(err, errBusy) {
			return err
		}
		if _, err := s.loadEpoch(ctx); err != nil { // a stream that was created again has lower sequences
			return err
		}
		if err := pause(ctx); err != nil {
			return err
		}
	}
}

// lastSequences asks the leader for the last sequences on subjects, all at once.
func (s *session) lastSequences(ctx context.Context, bases []string) ([]uint64, error) {
	sequences := make([]uint64, len(bases))
	for {
		started := make([]*call, len(bases))
		var failed error
		for i := range bases {
			if sequences[i] == 0 && failed == nil {
				started[i], failed = s.calls.startAll(refusedPublish(bases[i]))
			}
		}
		if failed == nil {
			failed = s.untilPresent(ctx)
		}
		busy := false
		for i, c := range started {
			if c == nil {
				continue
			}
			last, err := highestRefused(s.calls.collect(c))
			if errors.Is(err, errBusy) {
				busy, err = true, nil
			}
			sequences[i], failed = last, errors.Join(failed, err)
		}
		if failed != nil || !busy {
			return sequences, failed
		}
		if err := pause(ctx); err != nil {
			return nil, err
		}
	}
}

// highestRefused returns the highest of the last sequences in the responses to a refusedPublish: a leader of the past
// knows a lower one. The error is errBusy if a leader cannot name it, or if none has responded.
func highestRefused(responses []*nats.Msg, err error) (highest uint64, _ error) {
	if err == nil && len(responses) == 0 {
		err = errBusy
	}
	for _, m := range responses {
		last, failed := refusedSequence(m)
		highest, err = max(highest, last), errors.Join(err, failed)
	}
	if err != nil {
		return 0, err
	}
	return highest, nil
}
