package manager

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/shoal-go/shoal/broker"
)

// Once identifies a publication, so that repeating it has no effect.
type Once struct {
	// Key is the caller's name of the publication: 1 to 255 visible ASCII characters. See CheckKey.
	Key string
	// Part distinguishes the messages of one publication that consists of several to the same upload.
	Part int
	// Content identifies the content, for example the digest of a request that has all parts. "": the message's JSON,
	// in which a missing timestamp does not count, nor one that Parse has inserted.
	Content string
}

// PublishOnce is like Publish, unless a message with the key and the part was published to the upload within
// Options.HistoryTTL: then it publishes nothing, and returns the position of that message, with replayed set. If the
// content was another one the error is ErrKeyReused. Of concurrent calls one publishes.
//
// With a broker that is a broker.IdempotentBroker this holds on all nodes; with another one the error wraps
// ErrKeysUnsupported. A state message is not delayed by Options.StateRate. After an error that wraps ErrUnavailable the
// call may be repeated without publishing twice. It blocks as Publish does, and the other errors are those of Publish.
func (m *Manager) PublishOnce(
	ctx context.Context, uploadID string, msg Message, once Once,
) (pos Position, replayed bool, err error) {
	if err := ctx.Err(); err != nil {
		return Position{}, false, err
	}
	e, err := m.accept(uploadID, msg)
	if err != nil {
		return Position{}, false, err
	}
	if once.Content == "" {
		if once.Content, err = m.contentOf(uploadID, msg); err != nil {
			return Position{}, false, err
		}
	}
	key := &keyed{}
	if key.Once, err = once.forBroker(); err != nil {
		return Position{}, false, err
	}
	span := m.tracing.publish(ctx, uploadID)
	if m.cluster != nil {
		pos, err = m.cluster.publish(ctx, uploadID, outgoing{e, key, m.tracing.context(span)})
	} else {
		pos, err = m.publishOnceHere(uploadID, e, key, m.tracing.context(span))
		m.enforceBounds()
	}
	m.tracing.end(span, pos, err)
	if err == nil && !key.replayed {
		m.counters.byPublish.add(e.class)
	}
	return pos, key.replayed, err
}

// CheckOnce returns ErrKeyReused if PublishOnce would, for a publication with its Content given, and publishes nothing.
// With a broker it blocks on that. The other errors are those of PublishOnce.
func (m *Manager) CheckOnce(ctx context.Context, uploadID string, once Once) error {
	if err := m.check(); err != nil {
		return err
	}
	if err := CheckID("upload_id", uploadID); err != nil {
		return err
	}
	key, err := once.forBroker()
	if err != nil {
		return err
	}
	if m.cluster != nil {
		return m.cluster.checkOnce(ctx, uploadID, key)
	}
	_, _, err = m.keys.Find(uploadID, key)
	return keyError(err)
}

// publishOnceHere is publishHere for a message with a key.
func (m *Manager) publishOnceHere(uploadID string, e Encoded, key *keyed, trace string) (pos Position, err error) {
	var own deferred
	defer m.fans.flush(&own)
	m.withRoom(uploadID, e, func(u *upload) { // with its lock held, from Find to Add
		if pos, key.replayed, err = m.keys.Find(uploadID, key.Once); key.replayed || err != nil {
			err = keyError(err)
			return
		}
		f := m.record(u, e, trace)
		pos = position(u.State.log)
		m.keys.Add(uploadID, key.Once, pos)
		m.bursts.send(u, f, &own)
	})
	return pos, err
}

// keyError returns this package's error for one of broker.Keys.
func keyError(err error) error {
	if errors.Is(err, broker.ErrKeyReused) {
		return ErrKeyReused
	}
	return err
}

// contentOf returns a message's JSON with the same timestamp at any time, if it has none of its own.
func (m *Manager) contentOf(uploadID string, msg Message) (string, error) {
	e, err := msg.encode(&m.vocabulary, uploadID, time.Unix(0, 0))
	return e.content(), err
}

// maxKeyBytes is the length of the longest key.
const maxKeyBytes = 255

// CheckKey returns an *InvalidError unless key is 1 to 255 visible ASCII characters.
func CheckKey(key string) error {
	const field = "key"
	switch {
	case key == "":
		return &InvalidError{field, "must not be empty"}
	case len(key) > maxKeyBytes:
		return &InvalidError{field, fmt.Sprintf("has %d bytes, at most %d are allowed", len(key), maxKeyBytes)}
	case strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' }):
		return &InvalidError{field, "must consist of visible ASCII characters, without spaces"}
	}
	return nil
}

// forBroker returns the key and the content in the form that brokers take.
func (o Once) forBroker() (broker.Once, error) {
	if err := CheckKey(o.Key); err != nil {
		return broker.Once{}, err
	}
	return broker.Once{
		Key:    shortDigest(o.Key + " " + strconv.Itoa(o.Part)), // a key has no space
		Digest: shortDigest(o.Content),
	}, nil
}

// shortDigest returns 128 bits of a digest, as 22 letters, digits, "-" and "_".
func shortDigest(text string) string {
	const bytes = 16
	digest := sha256.Sum256([]byte(text))
	return base64.RawURLEncoding.EncodeToString(digest[:bytes])
}
