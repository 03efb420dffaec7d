package natsbroker

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// newEpoch returns a name that no epoch has had.
func newEpoch() string { return strings.ToLower(rand.Text()[:16]) }

// retryPause is how long to wait before reading again what was read too early.
const retryPause = 2 * time.Millisecond

// history returns what is known of a channel, and sees to it that its epoch is written down, anew if the record
// is getting old. known, if not 0, is the sequence of a record that is.
func (s *session) history(ctx context.Context, base string, known uint64) (history, error) {
	for {
		h, r, err := s.look(ctx, base)
		if err != nil {
			return h, err
		}
		if r != nil {
			s.follows.saw(base, r.sequence)
			if old := r.sequence == known || time.Since(r.at).Abs() > s.refreshAfter(); !old && !h.stale {
				return h, nil
			}
		}
		begun := h.Epoch != ""
		if !begun {
			h.Epoch = newEpoch()
		}
		sequence, err := s.write(ctx, base, h, begun)
		if err == nil {
			s.follows.saw(base, sequence)
		}
		if err == nil || begun {
			return h, nil // an epoch not written down this time is still in its mark, or in the record before
		}
		var refused *refusal
		if !errors.As(err, &refused) {
			return h, err
		}
		if err := pause(ctx); err != nil { // another node was first
			return h, err
		}
	}
}

// look reads what the stream holds of a channel. Everything that was stored before is in it.
func (s *session) look(ctx context.Context, base string) (history, *record, error) {
	select {
	case s.calls.reads <- struct{}{}:
		defer func() { <-s.calls.reads }()
	case <-ctx.Done():
		return history{}, nil, ctx.Err()
	}
	for {
		entries, r, newest, err := s.read(ctx, base)
		if err != nil && !errors.Is(err, errBusy) {
			return history{}, nil, err
		}
		if h := newHistory(entries, r, s.opt.Messages); err == nil && h.last >= newest {
			return h, r, nil
		}
		if err := pause(ctx); err != nil { // the server that answered has not yet got what the leader has
			return history{}, nil, err
		}
	}
}

// read reads entries and record, and asks the leader for the sequence of the newest entry, where another server
// may answer for it: all at once. The record is asked for after the entries, so that its presence tells
// that none of them was missing. (Were two servers asked whose clocks differ, the one could be ahead of the other
// with dropping what is too old by that difference.)
func (s *session) read(ctx context.Context, base string) (entries []entry, r *record, newest uint64, err error) {
	var leader *call
	if s.replicated {
		if leader, err = s.calls.ask(impossible(base), false); err != nil {
			return nil, nil, 0, err
		}
	}
	for from, more := uint64(1), true; more; {
		if entries, r, more, err = s.page(ctx, base, from, entries); err != nil {
			break
		}
		if more {
			from = entries[len(entries)-1].sequence + 1
		}
	}
	if leader != nil {
		answer, failed := s.calls.only(ctx, leader)
		if err = errors.Join(err, failed); err == nil {
			newest, err = refusedSequence(answer)
		}
	}
	return entries, r, newest, err
}

// page reads the entries from a sequence on, and then the record.
func (s *session) page(ctx context.Context, base string, from uint64, entries []entry) ([]entry, *record, bool, error) {
	api := "$JS.API.DIRECT.GET." + s.opt.Stream
	batch, err := s.calls.ask(&nats.Msg{Subject: api, Data: batchRequest(base, from, s.opt.Messages+1)}, true)
	if err != nil {
		return nil, nil, false, err
	}
	last, err := s.calls.ask(&nats.Msg{Subject: api + "." + epochPrefix + base}, false)
	if err != nil {
		s.calls.end(batch)
		return nil, nil, false, err
	}
	answers, err := s.calls.await(ctx, batch)
	m, failed := s.calls.only(ctx, last)
	if err := errors.Join(err, failed); err != nil {
		return nil, nil, false, err
	}
	entries, more, err := collect(entries, answers)
	return entries, readRecord(m), more, err
}

// batchRequest asks for messages of a subject. A subject that we make holds no character that JSON would have
// escaped but these two.
func batchRequest(base string, from uint64, most int) []byte {
	escape := strings.NewReplacer(`\`, `\\`, `"`, `\"`)
	return fmt.Appendf(nil, `{"seq":%d,"next_by_subj":"%s","batch":%d}`,
		from, escape.Replace(base), min(most, messagesAsked))
}

// collect appends the entries among the answers to a batch, and tells whether the stream holds more.
func collect(entries []entry, answers []*nats.Msg) ([]entry, bool, error) {
	end := answers[len(answers)-1]
	for _, m := range answers[:len(answers)-1] {
		at, err := time.Parse(time.RFC3339Nano, header(m, timeHeader))
		if err != nil {
			return nil, false, errors.New("a kept message does not say when it was stored")
		}
		e := entry{sequence: number(m, sequenceHeader), at: at, payload: m.Data, rolled: header(m, rollupHeader) != ""}
		if epoch := header(m, epochHeader); validEpoch(epoch) {
			e.epoch = epoch
		}
		entries = append(entries, e)
	}
	switch status := header(end, statusHeader); status {
	case statusEnd:
		return entries, len(answers) > 1 && number(end, pendingHeader) > 0, nil
	case statusNotFound:
		return entries, false, nil
	default:
		return nil, false, errors.New("the stream refuses to be read, with status " + status)
	}
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

// write writes down a channel's epoch. A first record is refused if there is another; one that follows, if the
// channel's newest message is not the one that the history ends with, so that it is exact.
func (s *session) write(ctx context.Context, base string, h history, begun bool) (uint64, error) {
	m := &nats.Msg{Subject: epochPrefix + base, Data: []byte(h.record().String()), Header: nats.Header{
		rollupHeader:   {rollupSubject},
		expectedHeader: {"0"},
	}}
	if begun {
		m.Header[expectedHeader] = []string{strconv.FormatUint(h.last, 10)}
		m.Header[expectedSubjectHeader] = []string{base}
	}
	return s.store(ctx, m)
}

// pause waits shortly.
func pause(ctx context.Context) error {
	select {
	case <-time.After(retryPause):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
