package natsbroker

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/shoal-go/shoal/broker"
)

// oncePrefix precedes the subjects of bindings.
const oncePrefix = epochPrefix + "once."

// keyBinding is the first message on a key's subject: it binds the key to a digest. Only then is the channel's message
// stored, with an id made of key and digest, so that the server itself recognises every repetition, concurrent ones
// too, even when a full stream has dropped the binding. The binding is older than the message, so it expires first.
type keyBinding struct {
	digest string
	// epoch is the channel's epoch when the key was bound.
	epoch string
}

func (b keyBinding) String() string { return b.digest + " " + b.epoch }

// bindingSubject returns the subject of a key, whose length does not depend on the channel.
func bindingSubject(base, key string) string { return oncePrefix + hashed(base, key) }

// hashed returns a hash of words without spaces.
func hashed(words ...string) string {
	digest := sha256.Sum256([]byte(strings.Join(words, " ")))
	return base64.RawURLEncoding.EncodeToString(digest[:])
}

// StoreOnce is Store, unless a message with the key was stored on the channel within Options.TTL. The error wraps
// broker.ErrKeysUnsupported if the server limits the stream's duplicate window to less than that.
//
// A restart of all servers of a stream in memory loses the keys with the messages. A stream in files keeps them, except
// those of messages that it does not hold any more.
func (b *Broker) StoreOnce(
	ctx context.Context, channel string, payload []byte, once broker.Once,
) (at broker.Position, replayed bool, err error) {
	err = b.call(ctx, "store once", []string{channel}, func(ctx context.Context, s *session) error {
		at, replayed, err = s.storeOnce(ctx, baseSubject(channel), payload, once)
		return err
	})
	return at, replayed, err
}

// CheckOnce returns broker.ErrKeyReused if the key was used with another digest.
func (b *Broker) CheckOnce(ctx context.Context, channel string, once broker.Once) error {
	return b.call(ctx, "check a key", []string{channel}, func(ctx context.Context, s *session) error {
		subject := bindingSubject(baseSubject(channel), once.Key)
		c, err := s.findBinding(ctx, subject)
		if err == nil && c != nil && c.digest != once.Digest {
			err = broker.ErrKeyReused
		}
		return err
	})
}

func (s *session) storeOnce(
	ctx context.Context, base string, payload []byte, once broker.Once,
) (at broker.Position, replayed bool, err error) {
	if window := time.Duration(s.duplicates.Load()); window < s.opt.TTL {
		return at, false, fmt.Errorf("%w: the duplicate window of stream %s is %v, want at least the TTL of %v; raise "+
			"the limit of the NATS server or let an operator update the stream", broker.ErrKeysUnsupported,
			s.opt.Stream, window, s.opt.TTL)
	}
	epoch, err := s.channelEpoch(ctx, base)
	if err != nil {
		return at, false, err
	}
	c, err := s.bindKey(ctx, bindingSubject(base, once.Key), keyBinding{digest: once.Digest, epoch: epoch})
	if err != nil {
		return at, false, err
	}
	if c.digest != once.Digest {
		return at, false, broker.ErrKeyReused
	}
	id := "shoal-" + hashed(base, once.Key, once.Digest)
	for {
		at, replayed, err = s.storeMessage(ctx, base, withTrace(ctx, &nats.Msg{
			Subject: base, Data: payload, Header: nats.Header{idHeader: {id}},
		}))
		if replayed {
			if at.Epoch = c.epoch; !(streamEpoch{name: s.epochs.era.Load().epoch}).owns(c.epoch) {
				at.Epoch = epoch
			}
		}
		var refused *storeError
		if !errors.As(err, &refused) || refused.code != duplicateInFlight {
			return at, replayed, err
		}
		if err := pause(ctx); err != nil {
			return at, false, err
		}
	}
}

// bindKey stores a binding unless the subject has one, and returns the one that it has then.
func (s *session) bindKey(ctx context.Context, subject string, b keyBinding) (*keyBinding, error) {
	for {
		_, err := s.publish(ctx, &nats.Msg{
			Subject: subject, Data: []byte(b.String()), Header: nats.Header{expectedHeader: {"0"}},
		})
		switch {
		case err == nil:
			return &b, nil
		case !isConflict(err):
			return nil, err
		}
		if found, err := s.readBinding(ctx, subject); found != nil || err != nil {
			return found, err
		}
		if err := pause(ctx); err != nil { // another call is binding it, or the responding server lags behind
			return nil, err
		}
	}
}

// findBinding returns the binding of a subject, or nil, including one that was stored before the call.
func (s *session) findBinding(ctx context.Context, subject string) (*keyBinding, error) {
	for {
		c, err := s.readBinding(ctx, subject)
		if c != nil || err != nil || !s.replicated.Load() {
			return c, err
		}
		m, err := s.calls.request(ctx, refusedPublish(subject))
		if err != nil {
			return nil, err
		}
		switch last, err := refusedSequence(m); {
		case err == nil && last == 0:
			return nil, nil
		case err != nil && !errors.Is(err, errBusy):
			return nil, err
		}
		if err := pause(ctx); err != nil { // the server that responded to the read lags behind the leader
			return nil, err
		}
	}
}

// readBinding returns the binding of a subject as far as the responding server knows, else nil.
func (s *session) readBinding(ctx context.Context, subject string) (*keyBinding, error) {
	m, err := s.calls.request(ctx, &nats.Msg{Subject: s.lastOf(subject)})
	if err != nil || header(m, statusHeader) != "" {
		return nil, err
	}
	digest, epoch, _ := strings.Cut(string(m.Data), " ")
	if !validEpoch(epoch) {
		return nil, errors.New("the binding of a key is malformed")
	}
	return &keyBinding{digest: digest, epoch: epoch}, nil
}
