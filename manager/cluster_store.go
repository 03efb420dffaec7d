package manager

import (
	"bytes"
	"context"
	"errors"
	"time"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/internal/coalesce"
	"github.com/shoal-go/shoal/internal/frame"
	"github.com/shoal-go/shoal/internal/history"
)

// outgoing is a message that goes to the broker, with its key if it has one, and the trace context of its publication
// if that is traced.
type outgoing struct {
	Encoded
	*keyed
	trace string
}

// keyed is the key of a message that is published once.
type keyed struct {
	broker.Once
	// replayed is set if the message was published before.
	replayed bool
}

// throttle limits the number of state messages of one upload that this node publishes per second; 0 means no limit.
func (c *cluster) throttle(rate float64) {
	if rate == 0 {
		return
	}
	c.outgoing = coalesce.New(coalesce.Config[outgoing, Position]{
		Interval: time.Duration(float64(time.Second) / rate),
		Send:     c.store,
		Resend:   c.storeAgain,
		Failed: func(uploadID string, err error) {
			c.manager.opt.Logger.Warn("publishing a delayed state failed, retrying", "upload", uploadID, "error", err)
		},
	})
}

// publish gives a message of an upload to the broker.
func (c *cluster) publish(ctx context.Context, uploadID string, out outgoing) (pos Position, err error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	if c.outgoing != nil {
		// A message with a key is not delayed: its caller has to learn whether it was published before.
		pos, err = c.outgoing.Send(ctx, uploadID, out, out.action == actionProgress && out.keyed == nil)
	} else {
		pos, err = c.store(ctx, uploadID, out)
	}
	switch {
	case errors.Is(err, coalesce.ErrClosed):
		return Position{}, ErrClosed
	case errors.Is(err, broker.ErrKeyReused):
		return Position{}, ErrKeyReused
	case err != nil:
		c.publishFailed(err)
		return Position{}, uncertain(err)
	}
	if out.keyed == nil || !out.replayed {
		c.manager.counters.published.Add(1)
	}
	return pos, nil
}

// store sends a message of an upload to all nodes, and stores it if the broker has a history.
func (c *cluster) store(ctx context.Context, uploadID string, out outgoing) (pos Position, err error) {
	ctx, span := c.manager.tracing.broker(ctx, out.trace, uploadID)
	if span != nil {
		defer func() { c.manager.tracing.end(span, pos, err) }()
	}
	channel := uploadChannel + uploadID
	if out.keyed != nil {
		once, err := c.idempotent()
		if err != nil {
			return Position{}, err
		}
		at, replayed, err := once.StoreOnce(ctx, channel, out.payload, out.Once)
		out.replayed = replayed
		return at, err
	}
	if c.history == nil {
		return Position{}, c.broker.Publish(ctx, channel, out.payload)
	}
	return c.history.Store(ctx, channel, out.payload)
}

// storeAgain is store for a delayed state of which an earlier attempt failed. If it is the newest stored message, that
// attempt has stored it and only its confirmation was lost, or an equal state precedes it, which it does not change. A
// key for each delayed state would show more, but the broker would have to hold all keys for as long as messages.
func (c *cluster) storeAgain(ctx context.Context, uploadID string, out outgoing) (Position, error) {
	if c.history == nil {
		return c.store(ctx, uploadID, out)
	}
	s, err := c.history.Newest(ctx, uploadChannel+uploadID)
	switch n := len(s.Messages); {
	case err != nil && isPassing(err):
		c.readFailed(err)
		return Position{}, err
	case err == nil && n > 0 && bytes.Equal(s.Messages[n-1].Payload, out.payload):
		return s.Position, nil
	}
	return c.store(ctx, uploadID, out)
}

// idempotent returns the broker, if it can recognise repetitions.
func (c *cluster) idempotent() (broker.IdempotentBroker, error) {
	if once, ok := c.broker.(broker.IdempotentBroker); ok {
		return once, nil
	}
	return nil, broker.ErrKeysUnsupported
}

// checkOnce asks the broker whether a key was used for something else.
func (c *cluster) checkOnce(ctx context.Context, uploadID string, once broker.Once) error {
	idempotent, err := c.idempotent()
	if err == nil {
		ctx, cancel := bounded(ctx)
		defer cancel()
		err = idempotent.CheckOnce(ctx, uploadChannel+uploadID, once)
	}
	switch {
	case errors.Is(err, broker.ErrKeyReused):
		return ErrKeyReused
	case err != nil:
		c.readFailed(err)
	}
	return c.readFailure(err)
}

// deliverHere delivers a message to this node's subscribers only.
func (c *cluster) deliverHere(uploadID string, e Encoded) (d Delivery) {
	f := e.frame(uploadID, Position{})
	c.manager.registry.WithKnown(uploadID, func(u *upload) {
		c.manager.bursts.flush(u)
		d = c.manager.fans.send(u.Receivers(), f)
	})
	c.manager.counters.published.Add(1)
	c.manager.counters.sent(d)
	return d
}

// forget deletes the stored messages of an upload at the broker, which notifies all nodes. If the broker stores none,
// each node forgets the newest message that it has itself.
func (c *cluster) forget(ctx context.Context, uploadID string) error {
	if c.history == nil {
		_, err := c.askAll(ctx, forgetUpload, []byte(uploadID))
		return err
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	return uncertain(c.history.Forget(ctx, uploadChannel+uploadID))
}

// storedLog returns the broker's stored messages of an upload as a log, nil if it stores none. If the broker stores no
// histories, the log is this node's.
func (c *cluster) storedLog(ctx context.Context, uploadID string) (log *history.Log[*frame.Frame], err error) {
	if c.history == nil {
		c.manager.registry.WithKnown(uploadID, func(u *upload) {
			c.manager.expire(u, time.Now())
			if u.State.log != nil {
				log = u.State.log.Clone()
			}
		})
		return log, nil
	}
	kept, messages, err := c.readStored(ctx, uploadID, Position{}, false)
	if err != nil || kept.Offset == 0 {
		return nil, c.readFailure(err)
	}
	return c.begin(uploadID, kept, messages, time.Now()), nil
}

// newest returns an upload's newest valid message and its position, as the broker has stored them.
func (c *cluster) newest(ctx context.Context, uploadID string) (newest Stored, pos Position, err error) {
	if err := CheckID("upload_id", uploadID); err != nil {
		return Stored{}, Position{}, err
	}
	kept, messages, err := c.readStored(ctx, uploadID, Position{}, true)
	switch {
	case err != nil:
		return Stored{}, Position{}, c.readFailure(err)
	case kept.Offset == 0:
		return Stored{}, Position{}, ErrUnknownUpload
	}
	for i, m := range messages {
		if m.payload != nil {
			newest = Stored{Offset: kept.Messages[i].Offset, Payload: m.payload}
		}
	}
	return newest, kept.Position, nil
}

// readFailure is failure for a call that only reads: ErrClosed once the manager is closed, because the broker ends
// with it.
func (c *cluster) readFailure(err error) error {
	if err != nil && c.manager.closed.Load() {
		return ErrClosed
	}
	return failure(err)
}

// readStored reads the stored messages of an upload from the broker: the ones after a position, or at first the newest
// one alone, since new clients need no other (readOlder reads the others). If the broker stores no messages, this node
// begins its own epoch.
func (c *cluster) readStored(
	ctx context.Context, id string, since Position, first bool,
) (kept broker.Snapshot, messages []Encoded, err error) {
	if c.history == nil {
		return broker.Snapshot{Position: Position{Epoch: c.manager.newEpoch()}}, nil, nil
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	if first {
		kept, err = c.history.Newest(ctx, uploadChannel+id)
		if messages = c.parseStored(id, kept); err != nil || len(messages) == 0 || messages[0].payload != nil {
			return kept, messages, err
		} // else the newest valid message is an earlier one
	}
	kept, err = c.history.History(ctx, uploadChannel+id, since)
	return kept, c.parseStored(id, kept), err
}

// parseStored validates the messages, in their order.
func (c *cluster) parseStored(id string, kept broker.Snapshot) []Encoded {
	messages := make([]Encoded, len(kept.Messages))
	for i, s := range kept.Messages {
		messages[i], _ = c.parseRemote(id, s.Payload) // the zero value if the message is invalid
	}
	return messages
}

// begin returns a log with the stored messages of an upload.
func (c *cluster) begin(
	id string, kept broker.Snapshot, messages []Encoded, now time.Time,
) *history.Log[*frame.Frame] {
	log := history.Begin[*frame.Frame](kept.Epoch, kept.Floor, now)
	for i, s := range kept.Messages {
		if messages[i].payload != nil && s.Offset > log.Offset() {
			f := messages[i].frame(id, Position{Epoch: kept.Epoch, Offset: s.Offset})
			log.Append(s.Offset, f, f.Size(), storedAt(s, now), c.manager.limits)
		}
	}
	log.Advance(kept.Offset)
	return log
}

// storedAt returns when a message was stored, at the latest now: the clock of the broker may be ahead.
func storedAt(s broker.Stored, now time.Time) time.Time {
	if s.At.IsZero() || s.At.After(now) {
		return now
	}
	return s.At
}
