package natsbroker

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/shoal-go/shoal/broker"
)

// retryPause is how long to wait before another read when the responding server lags behind the leader.
const retryPause = 2 * time.Millisecond

func (s *session) directGet() string { return "$JS.API.DIRECT.GET." + s.opt.Stream }

// lastOf returns the subject that requests the last message on a subject.
func (s *session) lastOf(subject string) string { return s.directGet() + "." + subject }

// escapeJSON escapes a subject; the subjects made here hold no other characters that JSON would escape.
var escapeJSON = strings.NewReplacer(`\`, `\\`, `"`, `\"`)

// firstRequest requests the oldest message on a subject.
func firstRequest(subject string) []byte { return nextRequest(subject, 1) }

// nextRequest requests the first message on a subject from a sequence on.
func nextRequest(subject string, from uint64) []byte {
	return fmt.Appendf(nil, `{"seq":%d,"next_by_subj":"%s"}`, from, escapeJSON.Replace(subject))
}

// batchRequest requests messages on a subject from a sequence on.
func batchRequest(base string, from uint64, limit int) []byte {
	return fmt.Appendf(nil, `{"seq":%d,"next_by_subj":"%s","batch":%d,"max_bytes":%d}`,
		from, escapeJSON.Replace(base), min(limit, batchSize), batchBytes)
}

// reading is the response to one read of a channel.
type reading struct {
	messages []message
	record   *record
	// stream is nil if the stream has no epoch, or one that has to be confirmed.
	stream *streamEpoch
	// leader is the last sequence on the channel's subject by the stream's leader, 0 where it alone responds anyway.
	leader uint64
}

// complete reports whether the responding server had all that the leader had, and the stream's epoch is known.
func (r *reading) complete() bool {
	last := uint64(0)
	if len(r.messages) > 0 {
		last = r.messages[len(r.messages)-1].sequence
	}
	return r.stream != nil && last >= r.leader
}

// history returns a channel's history after a position, or all of it if the position is zero or not continued. It
// includes everything that was stored before the call.
func (s *session) history(ctx context.Context, base string, since broker.Position) (history, error) {
	release, err := s.acquireRead(ctx)
	if err != nil {
		return history{}, err
	}
	defer release()
	if since.Epoch != "" && since.Offset > 0 {
		rd, err := s.readAll(ctx, base, since.Offset)
		if err != nil {
			return history{}, err
		}
		if h, ok := continuation(rd.messages, rd.record, *rd.stream, since); ok {
			return h, nil
		}
	}
	rd, err := s.readAll(ctx, base, 1)
	if err != nil {
		return history{}, err
	}
	h := newHistory(rd.messages, rd.record, *rd.stream, s.opt.Messages)
	if h.unrecorded { // the node that forgot the channel failed before it wrote the record
		_, _ = s.writeRecord(ctx, base, h, "") // the marker names the epoch too, so an error loses nothing yet
	}
	return h, nil
}

func (s *session) acquireRead(ctx context.Context) (release func(), err error) {
	select {
	case s.calls.reads <- struct{}{}:
		return func() { <-s.calls.reads }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// newest returns a channel's history reduced to its newest message, at a cost that does not depend on the others.
func (s *session) newest(ctx context.Context, base string) (history, error) {
	release, err := s.acquireRead(ctx)
	if err != nil {
		return history{}, err
	}
	defer release()
	rd, err := s.untilComplete(ctx, func() (reading, error) {
		return s.read(ctx, base, func(rd *reading) error {
			m, err := s.calls.start(&nats.Msg{Subject: s.lastOf(base)}, false)
			return s.readPage(ctx, base, rd, m, err, func(responses []*nats.Msg) error {
				if header(responses[0], statusHeader) != "" {
					return nil
				}
				one, err := parseMessage(responses[0])
				rd.messages = append(rd.messages, one)
				return err
			})
		})
	})
	if err != nil {
		return history{}, err
	}
	h := newHistory(rd.messages, rd.record, *rd.stream, 1)
	if len(h.Messages) > 0 {
		h.Floor = h.Offset - 1
	}
	return h, nil
}

// readAll reads a channel's messages from a sequence on.
func (s *session) readAll(ctx context.Context, base string, from uint64) (reading, error) {
	return s.untilComplete(ctx, func() (reading, error) {
		return s.read(ctx, base, func(rd *reading) error {
			for next, more := from, true; more; {
				request := &nats.Msg{Subject: s.directGet(), Data: batchRequest(base, next, s.opt.Messages+1)}
				batch, err := s.calls.start(request, true)
				err = s.readPage(ctx, base, rd, batch, err, func(responses []*nats.Msg) (err error) {
					more, err = rd.collect(responses)
					dropPayloads(rd.messages, s.opt.HistoryBytes)
					return err
				})
				if err != nil {
					return err
				}
				if more {
					next = rd.messages[len(rd.messages)-1].sequence + 1
				}
			}
			return nil
		})
	})
}

// untilComplete repeats a read until it is complete.
func (s *session) untilComplete(ctx context.Context, read func() (reading, error)) (reading, error) {
	for {
		rd, err := read()
		if err != nil && !errors.Is(err, errBusy) {
			return rd, err
		}
		if err == nil && rd.complete() {
			return rd, nil
		}
		if rd.stream == nil {
			if _, err := s.loadEpoch(ctx); err != nil {
				return rd, err
			}
			continue
		}
		if err := pause(ctx); err != nil {
			return rd, err
		}
	}
}

// read runs fn, and asks the leader for the channel's last sequence at the same time if another server may respond. The
// error is errBusy if the response may not be the present leader's.
func (s *session) read(ctx context.Context, base string, fn func(*reading) error) (rd reading, err error) {
	if !s.replicated.Load() {
		return rd, fn(&rd)
	}
	leader, err := s.calls.startAll(refusedPublish(base))
	if err != nil {
		return rd, err
	}
	question, err := s.askPresent()
	if err == nil {
		err = fn(&rd)
		if failed := s.awaitPresent(ctx, question); err == nil {
			err = failed
		}
	}
	last, failed := highestRefused(s.calls.collect(leader))
	if err == nil {
		rd.leader, err = last, failed
	}
	return rd, err
}

// readPage awaits a request for messages and reads record and stream epoch behind it: that these are still there
// then shows that none of the messages was missing. (If several servers respond whose clocks differ, one may
// drop expired messages earlier than another by that difference.)
func (s *session) readPage(ctx context.Context, base string, rd *reading, messages *call, err error,
	collect func([]*nats.Msg) error,
) error {
	if err != nil {
		return err
	}
	last, err := s.calls.start(&nats.Msg{Subject: s.lastOf(epochPrefix + base)}, false)
	if err != nil {
		s.calls.end(messages)
		return err
	}
	first, err := s.calls.start(&nats.Msg{Subject: s.directGet(), Data: firstRequest(streamEpochSubject)}, false)
	if err != nil {
		s.calls.end(messages)
		s.calls.end(last)
		return err
	}
	responses, err := s.calls.await(ctx, messages)
	recorded, failed := s.calls.awaitOne(ctx, last)
	stream, alsoFailed := s.calls.awaitOne(ctx, first)
	if err := errors.Join(err, failed, alsoFailed); err != nil {
		return err
	}
	if e := parseEpoch(stream); e != nil && s.isPresent(e) {
		s.noteEpoch(e)
		rd.stream = e
	}
	rd.record = readRecord(recorded)
	return collect(responses)
}

// collect appends the messages of a batch, and reports whether the stream holds more.
func (r *reading) collect(responses []*nats.Msg) (more bool, err error) {
	end := responses[len(responses)-1]
	for _, m := range responses[:len(responses)-1] {
		one, err := parseMessage(m)
		if err != nil {
			return false, err
		}
		r.messages = append(r.messages, one)
	}
	switch status := header(end, statusHeader); status {
	case statusEnd:
		return len(responses) > 1 && number(end, pendingHeader) > 0, nil
	case statusNotFound:
		return false, nil
	default:
		return false, errors.New("reading the stream failed with status " + status)
	}
}

func parseMessage(m *nats.Msg) (message, error) {
	at, err := time.Parse(time.RFC3339Nano, header(m, timeHeader))
	if err != nil {
		return message{}, fmt.Errorf("the time of a stored message is malformed: %w", err)
	}
	one := message{sequence: number(m, sequenceHeader), at: at, payload: m.Data, rolledUp: header(m, rollupHeader) != ""}
	if one.payload == nil {
		one.payload = []byte{}
	}
	if epoch := header(m, epochHeader); validEpoch(epoch) {
		one.epoch = epoch
	}
	return one, nil
}

func readRecord(m *nats.Msg) *record {
	if header(m, statusHeader) != "" {
		return nil
	}
	r := parseRecord(string(m.Data))
	if r == nil {
		return nil
	}
	r.sequence = number(m, sequenceHeader)
	if at, err := time.Parse(time.RFC3339Nano, header(m, timeHeader)); err == nil {
		r.at = at
	}
	return r
}

// keepPosition returns what read reads of a channel. If nothing of the channel is stored although this node is
// subscribed to it, it writes the first record, without which the position would move with the oldest message of
// the stream. Nodes that do so at once agree, as the record has an id: one writes it, and the others read again.
func (s *session) keepPosition(ctx context.Context, base string, read func() (history, error)) (history, error) {
	for id := "shoal-record-" + base; ; {
		h, err := read()
		if err != nil || !s.subscriptions.includes(base) {
			return h, err
		}
		if !h.unknown {
			return h, s.prolong(ctx, base, h)
		}
		sequence, err := s.writeRecord(ctx, base, h, id)
		switch {
		case errors.Is(err, errDuplicate):
			id = "" // if there still is no record, it has been dropped
		case isConflict(err): // a message was stored in between
		case isFull(err):
			return h, nil
		case err != nil:
			return h, err
		default:
			s.subscriptions.setRecord(base, sequence)
			h.recorded = sequence
			return h, s.announceEpoch(base, h.record(sequence)) // the channel may have had another epoch
		}
		if err := pause(ctx); err != nil {
			return h, err
		}
	}
}

// prolong writes the record of a channel if what keeps its position may not last until the first refresh.
func (s *session) prolong(ctx context.Context, base string, h history) error {
	if time.Since(s.localTime(h.keptAt)) < s.opt.TTL/2 {
		return nil
	}
	sequence, err := s.writeRecord(ctx, base, h, "")
	switch {
	case isConflict(err), isFull(err): // there is a newer message, or no room for a record
		return nil
	case err == nil:
		s.subscriptions.setRecord(base, sequence)
	}
	return err
}

// writeRecord writes a channel's record, on the condition that no message was stored since the history was read. With
// an id the error is errDuplicate if a record was written with the same one.
func (s *session) writeRecord(ctx context.Context, base string, h history, id string) (uint64, error) {
	m := &nats.Msg{
		Subject: epochPrefix + base, Data: []byte(h.record(0).String()), Header: nats.Header{
			rollupHeader:          {rollupSubject},
			expectedHeader:        {strconv.FormatUint(h.last, 10)},
			expectedSubjectHeader: {base},
		},
	}
	if id != "" {
		m.Header[idHeader] = []string{id}
	}
	return s.publish(ctx, m)
}

// announceEpoch makes all nodes read the epoch of a channel again. If the record is not nil, nodes that are subscribed
// compare their epoch with it.
func (s *session) announceEpoch(base string, r *record) error {
	s.epochs.forget(base)
	m := &nats.Msg{Subject: forgottenSubject, Data: []byte(base)}
	if r != nil {
		m.Header = nats.Header{recordHeader: {r.String()}, sequenceHeader: {strconv.FormatUint(r.sequence, 10)}}
	}
	return s.conn.PublishMsg(m)
}

// announced handles a message of announceEpoch.
func (s *session) announced(m *nats.Msg) {
	base := string(m.Data)
	s.epochs.forget(base)
	if r := parseRecord(header(m, recordHeader)); r != nil {
		r.sequence = number(m, sequenceHeader)
		s.adopt(base, r)
	}
}

// adopt gives the channel of a subscription the epoch of its record, and reports whether it had another one. A channel
// without messages has another one after its record was dropped: by a full stream, or by an operator who has purged it.
// Nothing was stored in between, so that no message tells the followers: they have to compare their positions.
func (s *session) adopt(base string, r *record) bool {
	stream := streamEpoch{name: s.epochs.era.Load().epoch}
	if !stream.owns(r.epoch) {
		return false
	}
	channel, changed := s.subscriptions.replaceEpoch(base, r)
	if changed {
		s.handler.Interrupted(channel)
	}
	return changed
}

// pause waits for retryPause.
func pause(ctx context.Context) error {
	select {
	case <-time.After(retryPause):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
