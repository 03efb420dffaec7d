package natsbroker

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
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

// start returns an offset after which nothing was dropped. 1 is the first sequence of a stream.
func (e streamEpoch) start() uint64 {
	if e.sequence <= 1 {
		return 0
	}
	return e.sequence
}

// epochs caches the epochs of the stream and of channels, so that Store need not read them. The methods are safe for
// concurrent use. The cache is discarded when the connection is lost and when the stream has another epoch; a
// channel leaves it when it is forgotten.
type epochs struct {
	mu sync.Mutex
	// stream is the stream's epoch, "" while it has to be read; known is the last one that was read.
	stream, known string
	// generation changes whenever something is discarded, so that a read that began before is not cached.
	generation uint64
	channels   map[string]channelEpoch
	// refreshed is when this node last saw to the stream's epoch.
	refreshed time.Time
}

// channelEpoch is the cached epoch of a channel.
type channelEpoch struct {
	name    string    // "" if the channel has the stream's epoch
	expires time.Time // when the record may be gone, zero if there was none
}

// maxCachedEpochs bounds the cache; when it is full, all of it is discarded.
const maxCachedEpochs = 1 << 16

func (e *epochs) invalidate() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.discardLocked()
	e.stream = ""
}

func (e *epochs) discardLocked() {
	e.channels = nil
	e.generation++
}

// forget discards the epoch of a channel, given by its base subject.
func (e *epochs) forget(base string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.channels, base)
	e.generation++
}

// setStream records the stream's epoch. It returns true if the stream had another one before.
func (e *epochs) setStream(name string) (changed bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	changed = e.known != "" && e.known != name
	if changed {
		e.discardLocked()
	}
	e.stream, e.known = name, name
	return changed
}

// current returns the generation.
func (e *epochs) current() uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.generation
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
	m, err := s.calls.request(ctx, &nats.Msg{Subject: s.lastOf(epochPrefix + base)})
	if err != nil {
		return "", err
	}
	r := readRecord(m)
	if r == nil || r.epoch == stream.name {
		s.epochs.set(base, channelEpoch{}, generation)
		return stream.name, nil
	}
	s.epochs.set(base, channelEpoch{name: r.epoch, expires: r.at.Add(s.opt.TTL)}, generation)
	return r.epoch, nil
}

// loadEpoch reads the stream's epoch, and begins one if it is missing.
func (s *session) loadEpoch(ctx context.Context) (streamEpoch, error) {
	for {
		e, err := s.readEpoch(ctx)
		if err != nil || e != nil {
			if e == nil {
				e = new(streamEpoch)
			}
			return *e, err
		}
		_, err = s.publish(ctx, &nats.Msg{
			Subject: streamEpochSubject, Data: []byte(newEpoch()), Header: nats.Header{expectedHeader: {"0"}},
		})
		if refused := new(storeError); err != nil && (!errors.As(err, &refused) || refused.code != wrongSequence &&
			refused.code != wrongSequenceUnknown) {
			return streamEpoch{}, fmt.Errorf("begin an epoch of the stream: %w", err)
		}
		if err := pause(ctx); err != nil { // another node was first, or the responding server lags behind
			return streamEpoch{}, err
		}
	}
}

// readEpoch reads the stream's epoch. It returns nil if it is missing.
func (s *session) readEpoch(ctx context.Context) (*streamEpoch, error) {
	m, err := s.calls.request(ctx, &nats.Msg{Subject: s.directGet(), Data: firstRequest(streamEpochSubject)})
	if err != nil {
		return nil, err
	}
	return s.parseEpoch(m), nil
}

// parseEpoch parses the response to a read of the stream's epoch and records it. It returns nil if it is missing.
func (s *session) parseEpoch(m *nats.Msg) *streamEpoch {
	e := &streamEpoch{name: string(m.Data), sequence: number(m, sequenceHeader)}
	if header(m, statusHeader) != "" || !validEpoch(e.name) {
		return nil
	}
	if s.epochs.setStream(e.name) {
		s.highest.Store(0)
		s.subscriptions.resetEpochs(e.name)
		s.opt.Logger.Warn("stream created again", "stream", s.opt.Stream)
		s.recreated.Store(true)
		s.wake()
	}
	return e
}

// refreshStreamEpoch stores the stream's epoch again once per refresh interval, so that the oldest message on its
// subject is always nearly as old as messages get. Of several nodes that do so at once, one succeeds.
func (s *session) refreshStreamEpoch(ctx context.Context) error {
	if !s.conn.IsConnected() || !s.epochs.due(s.refreshAfter()) {
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
	at, err := time.Parse(time.RFC3339Nano, header(m, timeHeader))
	if err == nil && time.Since(at).Abs() < s.refreshAfter()/2 {
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
