package natsbroker

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// refreshes is how many times within the time for which messages stay a record is rewritten while a node is subscribed.
const refreshes = 4

func (s *session) refreshAfter() time.Duration { return s.opt.TTL / refreshes }

// refresh rewrites records before they expire, or are dropped by a full stream, until stop is closed.
func (s *session) refresh() {
	ctx, cancel := s.untilStop()
	defer cancel()
	tick := time.NewTicker(min(s.refreshAfter()/refreshes, time.Second))
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := s.refreshDue(ctx); err != nil && !errors.Is(err, context.Canceled) {
				s.opt.Logger.Warn("refreshing the records of positions failed", "error", err)
			}
		case <-s.stop:
			return
		}
	}
}

// mostHurry bounds how much more often a full stream makes a node refresh the records of channels.
const mostHurry = 16

// refreshDue rewrites the records that are due, one at a time, so that it never delays other requests.
func (s *session) refreshDue(ctx context.Context) error {
	if !s.conn.IsConnected() {
		return nil
	}
	after, err := s.refreshInterval(ctx)
	if err != nil {
		return err
	}
	if err := s.refreshStreamEpoch(ctx, after); err != nil {
		return err
	}
	due := time.Now().Add(-max(after, s.refreshAfter()/mostHurry))
	for s.conn.IsConnected() {
		base, record, ok := s.subscriptions.nextDue(due)
		if !ok {
			return nil
		}
		if err := s.refreshRecord(ctx, base, record, after); err != nil {
			return err
		}
	}
	return nil
}

// refreshInterval returns after which time a record has to be rewritten: a part of the time for which a stream keeps
// messages at present.
func refreshInterval(info *jetstream.StreamInfo, ttl time.Duration) time.Duration {
	if isNearlyFull(info) {
		ttl = min(ttl, info.TimeStamp.Sub(info.State.FirstTime))
	}
	return ttl / refreshes
}

// refreshInterval returns refreshInterval of the stream.
func (s *session) refreshInterval(ctx context.Context) (time.Duration, error) {
	if !s.bounded.Load() {
		return s.refreshAfter(), nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.opt.CallTimeout)
	defer cancel()
	info, err := s.streamInfo(ctx)
	if err != nil {
		return 0, err
	}
	return refreshInterval(info, s.opt.TTL), nil
}

// isBounded reports whether a stream drops its oldest messages when it is full.
func isBounded(c jetstream.StreamConfig) bool { return c.MaxBytes > 0 || c.MaxMsgs > 0 }

// isNearlyFull reports whether a stream is about to drop its oldest messages for want of room.
func isNearlyFull(info *jetstream.StreamInfo) bool {
	bytes, messages := float64(info.State.Bytes), float64(info.State.Msgs)
	const nearly = 0.75
	return info.Config.MaxBytes > 0 && bytes > nearly*float64(info.Config.MaxBytes) ||
		info.Config.MaxMsgs > 0 && messages > nearly*float64(info.Config.MaxMsgs)
}

// refreshStreamEpoch stores the stream's epoch again once per refresh interval, so that the oldest message on its
// subject is always nearly as old as messages get. Of several nodes that do so at once, one succeeds.
func (s *session) refreshStreamEpoch(ctx context.Context, after time.Duration) error {
	if !s.epochs.due(after) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.opt.CallTimeout)
	defer cancel()
	if _, err := s.loadEpoch(ctx); err != nil {
		return err
	}
	m, err := s.calls.request(ctx, &nats.Msg{Subject: s.lastOf(streamEpochSubject)})
	if err != nil || header(m, statusHeader) != "" {
		return err
	}
	if parseEpoch(m) == nil {
		return s.replaceForeignEpochs(ctx)
	}
	at, err := time.Parse(time.RFC3339Nano, header(m, timeHeader))
	if err == nil && time.Since(s.localTime(at)) < after/2 {
		return nil // another node was first
	}
	_, err = s.publish(ctx, &nats.Msg{
		Subject: streamEpochSubject, Data: m.Data, Header: nats.Header{expectedHeader: {header(m, sequenceHeader)}},
	})
	if errors.As(err, new(*storeError)) {
		return nil
	}
	return err
}

// refreshRecord writes the record of a channel unless another node has written it since it was known.
func (s *session) refreshRecord(
	ctx context.Context, base string, known uint64, after time.Duration,
) error {
	ctx, cancel := context.WithTimeout(ctx, s.opt.CallTimeout)
	defer cancel()
	m, err := s.calls.request(ctx, &nats.Msg{Subject: s.lastOf(epochPrefix + base)})
	if err != nil {
		return err
	}
	r := readRecord(m)
	if r != nil && r.sequence != known && time.Since(s.localTime(r.at)) < after {
		s.subscriptions.setRecord(base, r.sequence)
		s.adopt(base, r)
		return nil
	}
	h, err := s.keepPosition(ctx, base, func() (history, error) { return s.newest(ctx, base) })
	if err != nil || h.unknown {
		return err
	}
	sequence, err := s.writeRecord(ctx, base, h, "")
	if errors.As(err, new(*storeError)) {
		return nil // a message was stored in between: the next refresh is soon enough
	}
	if err != nil {
		return err
	}
	s.subscriptions.setRecord(base, sequence)
	if written := h.record(sequence); s.adopt(base, written) {
		return s.announceEpoch(base, written)
	}
	return nil
}
