package natsbroker

import (
	"context"
	"crypto/rand"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// newEpoch returns a name that no epoch has had.
func newEpoch() string { return strings.ToLower(rand.Text()[:16]) }

// validEpoch reports whether a name has the form of an epoch. Anybody may write to the stream.
func validEpoch(name string) bool {
	const longest = 64
	return name != "" && len(name) <= longest && !strings.ContainsFunc(name, badInStream)
}

// streamEpoch is the oldest message on streamEpochSubject. Its payload names the epoch of all channels that were not
// forgotten; a stream that is created again gets another one. As the server drops the oldest messages of the
// stream first, everything stored after this message is still there, save for the limit per subject.
type streamEpoch struct {
	name     string
	sequence uint64
}

// newStreamEpoch returns a name that no epoch of the stream has had. It ends with the stream's limit per subject, or 0
// without one: messages that were dropped because of a limit do not show under a higher one, which needs another epoch.
func newStreamEpoch(info *jetstream.StreamInfo) string {
	return newEpoch() + limitMark + strconv.FormatInt(max(info.Config.MaxMsgsPerSubject, 0), 10)
}

// limitMark precedes the limit in the name of an epoch of the stream.
const limitMark = "_"

// suits reports whether the epoch began with the limit that the stream has. unknown is the result for an epoch whose
// name tells no limit, as those of version 0.1.0.
func (e streamEpoch) suits(info *jetstream.StreamInfo, unknown bool) bool {
	_, limit, told := strings.Cut(e.name, limitMark)
	if !told {
		return unknown
	}
	return limit == strconv.FormatInt(max(info.Config.MaxMsgsPerSubject, 0), 10)
}

// start returns an offset after which nothing was dropped. 1 is the first sequence of a stream.
func (e streamEpoch) start() uint64 {
	if e.sequence <= 1 {
		return 0
	}
	return e.sequence
}

// epochs caches the epochs of the stream and of channels, so that Store need not read them, for one session after the
// other. The methods are safe for concurrent use. The cache is discarded when the connection is lost and when the
// stream has another epoch; a channel leaves it when it is forgotten.
type epochs struct {
	mu sync.Mutex
	// stream is the stream's epoch, "" while it has to be read.
	stream string
	// generation changes whenever something is discarded, so that a read that began before is not cached; discards
	// whenever that is everything.
	generation, discards uint64
	channels             map[string]channelEpoch
	// refreshed is when this node last refreshed the stream's epoch, or found it fresh.
	refreshed time.Time
	// era is the one of the last epoch that was read. It is replaced under mu.
	era atomic.Pointer[era]
}

func newEpochs() *epochs {
	e := new(epochs)
	e.era.Store(new(era))
	return e
}

// channelEpoch is the cached epoch of a channel.
type channelEpoch struct {
	name    string    // "" if the channel has the stream's epoch
	expires time.Time // when the record may be gone, zero if there was none
}

// maxCachedEpochs bounds the cache; when it is full, all of it is discarded.
const maxCachedEpochs = 1 << 16

// disconnected discards the cache, since the stream may be another one when the node is connected again.
func (e *epochs) disconnected() {
	e.era.Load().disconnected()
	e.invalidate()
}

func (e *epochs) invalidate() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.discardLocked()
	e.stream = ""
}

func (e *epochs) discardLocked() {
	e.channels = nil
	e.generation++
	e.discards++
}

// forget discards the epoch of a channel, given by its base subject.
func (e *epochs) forget(base string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.channels, base)
	e.generation++
}

// outdate discards the epochs that an announcement contradicts. It precedes the deliveries in the queue of the node,
// which may be long.
func (e *epochs) outdate(m *nats.Msg) {
	if m.Subject == forgottenSubject {
		e.forget(string(m.Data))
	} else if e.era.Load().epoch != string(m.Data) {
		e.invalidate()
	}
}

// setStream records the stream's epoch. It returns true if the stream had another one before.
func (e *epochs) setStream(found *streamEpoch) (changed bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stream = found.name
	known := e.era.Load().epoch
	if known == found.name {
		return false
	}
	e.discardLocked()
	next := &era{epoch: found.name, begin: found.sequence}
	next.settled.Store(known == "") // a node that starts has nothing queued
	e.era.Store(next)
	return known != ""
}

// current returns a number that changes whenever the whole cache is discarded.
func (e *epochs) current() uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.discards
}

// get returns the epoch of a channel, if it is cached, and the generation.
func (e *epochs) get(base string) (name string, generation uint64, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	c, ok := e.channels[base]
	if !ok || e.stream == "" || !c.expires.IsZero() && time.Now().After(c.expires) {
		return "", e.generation, false
	}
	if c.name == "" {
		return e.stream, e.generation, true
	}
	return c.name, e.generation, true
}

// set caches the epoch of a channel, unless something was discarded since the generation.
func (e *epochs) set(base string, c channelEpoch, generation uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.generation != generation {
		return
	}
	if e.channels == nil || len(e.channels) >= maxCachedEpochs {
		e.channels = make(map[string]channelEpoch)
	}
	e.channels[base] = c
}

// due reports whether the stream's epoch has to be refreshed, and counts as having seen to it.
func (e *epochs) due(interval time.Duration) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if time.Since(e.refreshed) < interval {
		return false
	}
	e.refreshed = time.Now()
	return true
}

// fork returns a name for the epoch of a channel that differs from the stream's.
func (e streamEpoch) fork(suffix string) string { return e.name + "-" + suffix }

// owns reports whether an epoch is the stream's or a fork of it. Any other one ended when the stream lost messages.
func (e streamEpoch) owns(epoch string) bool {
	rest, ok := strings.CutPrefix(epoch, e.name)
	return ok && (rest == "" || rest[0] == '-')
}

// channelEpoch returns the epoch of a channel. It reads the channel's record only if that is not cached.
func (s *session) channelEpoch(ctx context.Context, base string) (string, error) {
	name, generation, ok := s.epochs.get(base)
	if ok {
		return name, nil
	}
	stream, err := s.loadEpoch(ctx)
	if err != nil {
		return "", err
	}
	m, err := s.readLast(ctx, epochPrefix+base)
	if err != nil {
		return "", err
	}
	r := readRecord(m)
	if r == nil || r.epoch == stream.name || !stream.owns(r.epoch) {
		s.epochs.set(base, channelEpoch{}, generation)
		return stream.name, nil
	}
	s.epochs.set(base, channelEpoch{name: r.epoch, expires: s.localTime(r.at).Add(s.opt.TTL)}, generation)
	return r.epoch, nil
}

// loadEpoch reads the stream's epoch, and stores one if it is missing.
func (s *session) loadEpoch(ctx context.Context) (streamEpoch, error) {
	for {
		m, err := s.calls.request(ctx, &nats.Msg{Subject: s.directGet(), Data: firstRequest(streamEpochSubject)})
		if err != nil {
			return streamEpoch{}, err
		}
		if e := parseEpoch(m); e != nil {
			present, err := s.confirmEpoch(ctx, e)
			if present {
				s.noteEpoch(e)
				return *e, nil
			}
			if err != nil {
				return streamEpoch{}, err
			}
		} else if err := s.storeMissingEpoch(ctx, m); err != nil {
			return streamEpoch{}, err
		}
		if err := pause(ctx); err != nil { // another node was first, or the responding server lags behind
			return streamEpoch{}, err
		}
	}
}

// confirmEpoch reports whether an epoch that was read is the stream's. The server that responds may lag behind, with an
// epoch that has ended, so the leader and a majority have to confirm each epoch that differs from the one before.
func (s *session) confirmEpoch(ctx context.Context, e *streamEpoch) (bool, error) {
	if s.isPresent(e) {
		return true, nil
	}
	m, err := s.calls.request(ctx, &nats.Msg{Subject: s.lastOf(streamEpochSubject)})
	switch {
	case err != nil:
		return false, err
	case header(m, statusHeader) == "" && parseEpoch(m) == nil:
		return false, s.replaceForeignEpochs(ctx)
	case string(m.Data) != e.name:
		return false, nil
	}
	return s.confirm(ctx, streamEpochSubject, number(m, sequenceHeader))
}

// isPresent reports whether an epoch needs no confirmation.
func (s *session) isPresent(e *streamEpoch) bool {
	return !s.replicated.Load() || s.epochs.era.Load().epoch == e.name
}

// storeMissingEpoch stores an epoch of the stream unless it has one. found is the response to a read of the oldest: a
// status, or a message of another program.
func (s *session) storeMissingEpoch(ctx context.Context, found *nats.Msg) error {
	if header(found, statusHeader) == "" {
		return s.replaceForeignEpochs(ctx)
	}
	name, err := s.missingEpoch(ctx)
	if err != nil {
		return err
	}
	_, err = s.publish(ctx, &nats.Msg{
		Subject: streamEpochSubject, Data: []byte(name), Header: nats.Header{expectedHeader: {"0"}},
	})
	if err != nil && !isConflict(err) {
		return fmt.Errorf("begin an epoch of the stream: %w", err)
	}
	return nil
}

// replaceForeignEpochs stores the newest epoch of the stream, or else a missing one, in place of all messages on its
// subject, after another program has stored one there.
func (s *session) replaceForeignEpochs(ctx context.Context) error {
	m, err := s.calls.request(ctx, &nats.Msg{Subject: s.lastOf(streamEpochSubject)})
	if err != nil || header(m, statusHeader) != "" {
		return err
	}
	name := string(m.Data)
	if parseEpoch(m) == nil {
		if name, err = s.missingEpoch(ctx); err != nil {
			return err
		}
	}
	_, err = s.publish(ctx, &nats.Msg{
		Subject: streamEpochSubject, Data: []byte(name), Header: nats.Header{
			rollupHeader: {rollupSubject}, expectedHeader: {header(m, sequenceHeader)},
		},
	})
	switch {
	case isConflict(err): // another node was first
		return nil
	case err != nil:
		return fmt.Errorf("replace a foreign message on %s: %w", streamEpochSubject, err)
	}
	s.opt.Logger.Warn("NATS stream had a message of another program on the subject of its epoch",
		"stream", s.opt.Stream, "subject", streamEpochSubject)
	return nil
}

// parseEpoch returns the stream's epoch in a message, or nil.
func parseEpoch(m *nats.Msg) *streamEpoch {
	e := &streamEpoch{name: string(m.Data), sequence: number(m, sequenceHeader)}
	if header(m, statusHeader) != "" || !validEpoch(e.name) {
		return nil
	}
	return e
}

// noteEpoch records the stream's epoch.
func (s *session) noteEpoch(e *streamEpoch) {
	if s.epochs.setStream(e) {
		s.subscriptions.resetEpochs(e.name)
		s.opt.Logger.Warn("stream has another epoch", "stream", s.opt.Stream)
		s.recreated.Store(true)
		s.wake()
	}
}
