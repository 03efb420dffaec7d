package natsbroker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// era is this node's view of the stream since the stream has its epoch. It outlives connections, so that a stream that
// returns without its newest messages, such as an older copy of a store, is recognised: it uses their sequences again,
// and so needs another epoch. A node that starts has seen nothing.
type era struct {
	epoch string
	// begin is the sequence of the epoch. settled means that no message arrives any more that was stored before it.
	begin   uint64
	settled atomic.Bool
	// created is when the stream was created, in nanoseconds since 1970, 0 while unknown.
	created atomic.Int64
	// highest is the highest sequence that the stream has acknowledged or sent to this node.
	highest atomic.Uint64
	// probed is the highest sequence at which this node has stored a message on storeProbeSubject; see awaitPresent.
	probed atomic.Uint64
	// newest is the newest republished message, witness the one when the connection was lost or the stream got another
	// leader, until it is compared.
	newest, witness atomic.Pointer[nats.Msg]
}

// raise records that the stream has reached a sequence.
func (e *era) raise(sequence uint64) { raise(&e.highest, sequence) }

// raise sets a number unless it is higher.
func raise(number *atomic.Uint64, to uint64) {
	for is := number.Load(); to > is; is = number.Load() {
		if number.CompareAndSwap(is, to) {
			return
		}
	}
}

// disconnected keeps the newest message as a witness of what the stream held: messages that arrive afterwards, on
// another connection or from another leader, may belong to a stream that has lost it.
func (e *era) disconnected() { e.witness.CompareAndSwap(nil, e.newest.Load()) }

// sighting is the view of a node at some moment.
type sighting struct {
	*era
	highest uint64
}

// sighting returns this node's view at present. The stream must be asked afterwards.
func (e *epochs) sighting() sighting {
	now := e.era.Load()
	return sighting{now, now.highest.Load()}
}

// verify begins another epoch of the stream if it has lost messages that this node had seen, although it still names
// the same epoch. last is the stream's last sequence, by any of its servers.
func (s *session) verify(ctx context.Context, seen sighting, last uint64) error {
	if s.epochs.era.Load() != seen.era {
		return nil
	}
	last, err := s.confirmLast(ctx, seen, last)
	if err != nil {
		return err
	}
	return s.verifyStored(ctx, seen, last)
}

// confirmLast returns the stream's last sequence if this node has seen no higher one; else the sequence before a
// message that the stream stores now, which takes a majority of its replicas. A lower sequence alone proves no loss:
// without a leader any replica responds, and a leader that was stopped or cut off responds until it learns of the next
// one.
func (s *session) confirmLast(ctx context.Context, seen sighting, last uint64) (uint64, error) {
	if last >= seen.highest || !s.replicated.Load() {
		return last, nil
	}
	seen.disconnected() // others may have stored as many messages as were lost
	stored, err := s.publish(ctx, &nats.Msg{
		Subject: storeProbeSubject, Header: nats.Header{rollupHeader: {rollupSubject}},
	})
	if err != nil {
		return 0, err
	}
	return stored - 1, nil
}

// verifyStored is verify with a last sequence that a majority of the stream's replicas has confirmed.
func (s *session) verifyStored(ctx context.Context, seen sighting, last uint64) error {
	lost := last < seen.highest
	if witness := seen.witness.Load(); witness != nil && !lost {
		var err error
		if lost, err = s.replaced(ctx, witness); err != nil {
			return err
		}
		seen.witness.CompareAndSwap(witness, nil)
	}
	if lost {
		return s.renewEpoch(ctx, seen.epoch, "stream lost messages, its uploads begin a new epoch")
	}
	seen.raise(last)
	return nil
}

// replaced reports whether the stream has another message with the sequence of one that was received.
func (s *session) replaced(ctx context.Context, received *nats.Msg) (bool, error) {
	m, err := s.calls.request(ctx, &nats.Msg{
		Subject: s.directGet(), Data: fmt.Appendf(nil, `{"seq":%d}`, number(received, sequenceHeader)),
	})
	if err != nil || header(m, statusHeader) != "" { // dropped by now
		return false, err
	}
	same, told := sameTime(m, received)
	return told && !same, nil
}

// sameTime reports whether two messages were stored at the same time. told is false if one of them tells none, like a
// forged message. The times identify messages; their order tells nothing, as servers with different clocks set them.
func sameTime(a, b *nats.Msg) (same, told bool) {
	one, err := time.Parse(time.RFC3339Nano, header(a, timeHeader))
	if err != nil {
		return false, false
	}
	other, err := time.Parse(time.RFC3339Nano, header(b, timeHeader))
	return err == nil && one.Equal(other), err == nil
}

// holds reports whether the stream holds a message that has arrived. One that was queued in this node when the stream
// was lost is not there, or another one has its sequence. Neither has one that was dropped by now.
func (s *session) holds(ctx context.Context, received *nats.Msg) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, s.opt.CallTimeout)
	defer cancel()
	base, sequence := received.Subject[len(livePrefix):], number(received, sequenceHeader)
	for {
		m, err := s.calls.request(ctx, &nats.Msg{Subject: s.directGet(), Data: nextRequest(base, sequence)})
		if err != nil {
			return false, err
		}
		if header(m, statusHeader) == "" {
			same, _ := sameTime(m, received)
			return same && number(m, sequenceHeader) == sequence, nil
		}
		last, err := s.lastSequence(ctx, base)
		switch {
		case err == nil && last < sequence:
			return false, nil
		case err != nil && !errors.Is(err, errBusy):
			return false, err
		}
		if err := pause(ctx); err != nil { // the server that responded lags behind the leader
			return false, err
		}
	}
}

// matchLimit begins another epoch of the stream if the present one began with another limit per subject. A node that
// raises the limit calls it before with unknown false, so that the epoch tells the limit: if that node fails then, the
// next one notices.
func (s *session) matchLimit(ctx context.Context, unknown bool) error {
	ctx, cancel := context.WithTimeout(ctx, s.opt.CallTimeout)
	defer cancel()
	for {
		e, err := s.loadEpoch(ctx)
		if err != nil {
			return err
		}
		info, err := s.streamInfo(ctx) // after the epoch, so that a limit which was changed before it is noticed
		if err != nil || e.suits(info, unknown) {
			return err
		}
		const reason = "stream holds another number of messages, its uploads begin a new epoch"
		if err := s.renewEpoch(ctx, e.name, reason); err != nil {
			return err
		}
	}
}

// renewEpoch begins another epoch of the stream in place of one, for a reason that is logged. Of several nodes that do
// so at once, one succeeds, and the others find its epoch.
func (s *session) renewEpoch(ctx context.Context, ended, reason string) error {
	for {
		m, err := s.calls.request(ctx, &nats.Msg{Subject: s.lastOf(streamEpochSubject)})
		if err != nil {
			return err
		}
		expected := uint64(0)
		if header(m, statusHeader) == "" {
			if string(m.Data) != ended {
				_, err := s.loadEpoch(ctx)
				return err
			}
			expected = number(m, sequenceHeader)
		}
		info, err := s.streamInfo(ctx)
		if err != nil {
			return err
		}
		_, err = s.publish(ctx, &nats.Msg{
			Subject: streamEpochSubject, Data: []byte(newStreamEpoch(info)), Header: nats.Header{
				rollupHeader: {rollupSubject}, expectedHeader: {strconv.FormatUint(expected, 10)},
			},
		})
		if err != nil && !isConflict(err) {
			return fmt.Errorf("begin another epoch of the stream: %w", err)
		}
		if err == nil {
			s.opt.Logger.Warn(reason, "stream", s.opt.Stream)
		}
		if err := pause(ctx); err != nil { // the responding server may lag behind
			return err
		}
	}
}

// isConflict reports whether a message was refused because another one was first.
func isConflict(err error) bool {
	var refused *storeError
	return errors.As(err, &refused) &&
		slices.Contains([]int{wrongSequence, wrongSequenceUnknown, duplicateInFlight}, refused.code)
}

// missingEpoch returns the epoch to store in a stream that holds none: the one before if a full stream has dropped it,
// else a new one.
func (s *session) missingEpoch(ctx context.Context) (string, error) {
	seen := s.epochs.sighting()
	info, err := s.streamInfo(ctx)
	if err != nil {
		return "", err
	}
	last, err := s.confirmLast(ctx, seen, info.State.LastSeq)
	if err != nil {
		return "", err
	}
	created := seen.created.Load()
	if created == 0 || seen.epoch == "" || info.Created.UnixNano() != created || last < seen.highest {
		return newStreamEpoch(info), nil
	}
	return seen.epoch, nil
}

// streamInfo returns the state of the stream by its leader.
func (s *session) streamInfo(ctx context.Context) (*jetstream.StreamInfo, error) {
	m, err := s.calls.request(ctx, &nats.Msg{Subject: "$JS.API.STREAM.INFO." + s.opt.Stream})
	if err != nil {
		return nil, err
	}
	var response struct {
		jetstream.StreamInfo
		Error *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(m.Data, &response); err != nil {
		return nil, fmt.Errorf("the state of the stream is malformed: %w", err)
	}
	if response.Error != nil {
		return nil, response.Error
	}
	return &response.StreamInfo, nil
}
