package manager

import (
	"context"
	"time"

	"github.com/shoal-go/shoal/internal/frame"
)

// Publish brings a message to all subscribers of an upload and returns its position. When it returns nil the
// message has its offset and is in the queue of every connection that is to get it, or that connection is
// being closed. It does not wait for any client.
//
// The error is an *InvalidError, ErrClosed or that of ctx, and then nothing was published.
func (m *Manager) Publish(ctx context.Context, uploadID string, msg Message) (Position, error) {
	if err := ctx.Err(); err != nil {
		return Position{}, err
	}
	pos, _, err := m.publish(uploadID, msg)
	return pos, err
}

// SendToUploadSubscribers is Publish for this node's subscribers alone. It returns what became of the message
// at each of their connections.
func (m *Manager) SendToUploadSubscribers(uploadID string, msg Message) (Delivery, error) {
	_, d, err := m.publish(uploadID, msg)
	return d, err
}

// SendToUser sends a message to all connections of a user. It has no offset and no history: who is not
// connected does not get it. It does not wait for any client. The error is an *InvalidError or ErrClosed.
func (m *Manager) SendToUser(userID string, msg Message) (Delivery, error) {
	if m.closed.Load() {
		return Delivery{}, ErrClosed
	}
	if err := CheckID("user_id", userID); err != nil {
		return Delivery{}, err
	}
	e, err := m.encode("", msg)
	if err != nil {
		return Delivery{}, err
	}
	f := frame.ForUpload(e.uploadID, e.class, 0, e.payload)
	var d Delivery
	m.registry.WithConnections(userID, func(conns []Conn) {
		for _, c := range conns {
			d.count(c.Send(f))
		}
	})
	m.counters.sent(d)
	return d, nil
}

// publish validates, encodes and delivers a message of an upload.
func (m *Manager) publish(uploadID string, msg Message) (Position, Delivery, error) {
	if m.closed.Load() {
		return Position{}, Delivery{}, ErrClosed
	}
	if err := CheckID("upload_id", uploadID); err != nil {
		return Position{}, Delivery{}, err
	}
	e, err := m.encode(uploadID, msg)
	if err != nil {
		return Position{}, Delivery{}, err
	}
	pos, d := m.deliver(uploadID, e)
	return pos, d, nil
}

// deliver gives a message its offset and brings it to everyone here who follows the upload. History, offset
// and receivers belong to one critical section, so that order, snapshots and subscribers agree.
func (m *Manager) deliver(uploadID string, e Encoded) (pos Position, d Delivery) {
	now := time.Now()
	m.registry.With(uploadID, func(u *upload) {
		log := m.log(u, now)
		offset := log.Offset() + 1
		f := frame.ForUpload(u.ID(), e.class, offset, e.payload)
		log.Append(offset, f, f.Size(), now, m.limits)
		pos = position(log)
		d = m.fans.send(u.Receivers(), f)
	})
	m.counters.published.Add(1)
	m.counters.sent(d)
	return pos, d
}

func (m *Manager) encode(uploadID string, msg Message) (Encoded, error) {
	if msg == nil {
		return Encoded{}, &InvalidError{"", "must not be nil"}
	}
	e, err := msg.encode(uploadID, time.Now())
	if err != nil {
		return Encoded{}, err
	}
	if len(e.payload) > m.opt.MaxMessageBytes {
		return Encoded{}, tooLarge(len(e.payload), m.opt.MaxMessageBytes)
	}
	return e, nil
}

// count adds one outcome.
func (d *Delivery) count(o Outcome) {
	switch o {
	case Queued:
		d.Queued++
	case Conflated:
		d.Conflated++
	default:
		d.Dropped++
	}
}

// add adds another delivery's counts.
func (d *Delivery) add(o Delivery) {
	d.Queued += o.Queued
	d.Conflated += o.Conflated
	d.Dropped += o.Dropped
}
