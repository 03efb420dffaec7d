package manager

import (
	"context"
	"time"
)

// Publish sends a message to all subscribers of an upload, on every node, and returns its position. It does not wait
// for any client.
//
// Without a broker, a nil error means that the message has its offset and will be queued at every receiving connection
// ahead of all messages published to the upload later, unless that connection is being closed. With a broker, Publish
// blocks until the broker has accepted the message and will deliver it to all nodes; the position is the zero value if
// the broker assigns none, and the previous message's position if Options.StateRate delays a state message.
//
// With many subscribers, a message sent to one of them concurrently for another upload, or by SendToUser, may overtake
// this one.
//
// If the error is an *InvalidError, ErrClosed, wraps ErrRefused, or is ctx's error without ErrUnavailable, nothing was
// published. Otherwise it wraps ErrUnavailable, and ctx's error if ctx ended after the broker was called: whether the
// message was published is then unknown.
func (m *Manager) Publish(ctx context.Context, uploadID string, msg Message) (Position, error) {
	if err := ctx.Err(); err != nil {
		return Position{}, err
	}
	e, err := m.accept(uploadID, msg)
	if err != nil {
		return Position{}, err
	}
	span := m.tracing.publish(ctx, uploadID)
	trace := m.tracing.context(span)
	if m.cluster != nil {
		pos, err := m.cluster.publish(ctx, uploadID, outgoing{Encoded: e, trace: trace})
		if err == nil {
			m.counters.byPublish.add(e.class)
		}
		m.tracing.end(span, pos, err)
		return pos, err
	}
	m.counters.byPublish.add(e.class)
	pos := m.publishHere(uploadID, e, trace)
	m.enforceBounds()
	m.tracing.end(span, pos, nil)
	return pos, nil
}

// publishHere publishes a message on a node without a broker. Until the deferred connections are flushed no other
// goroutine writes to them, so nothing that takes long may come before that.
func (m *Manager) publishHere(uploadID string, e Encoded, trace string) (pos Position) {
	var own deferred
	defer m.fans.flush(&own)
	m.withRoom(uploadID, e, func(u *upload) {
		f := m.record(u, e, trace)
		pos = position(u.State.log)
		m.bursts.send(u, f, &own)
	})
	return pos
}

// SendToUploadSubscribers is like Publish but for this node's subscribers only. It returns the outcomes of the message
// at their connections. With a broker the message has no offset, because the other nodes do not receive it. The error
// is an *InvalidError or ErrClosed.
func (m *Manager) SendToUploadSubscribers(uploadID string, msg Message) (Delivery, error) {
	e, err := m.accept(uploadID, msg)
	if err != nil {
		return Delivery{}, err
	}
	m.counters.byLocal.add(e.class)
	if m.cluster != nil {
		return m.cluster.deliverHere(uploadID, e), nil
	}
	var d Delivery
	m.withRoom(uploadID, e, func(u *upload) {
		m.bursts.flush(u)
		d = m.fans.send(u.Receivers(), m.record(u, e, ""))
	})
	m.counters.sent(d)
	m.enforceBounds()
	return d, nil
}

// SendToUser sends a message to all connections of a user, on every node, and returns the outcomes at the connections
// on all nodes that confirmed. The message has no offset and no history: a client that is not connected does not
// receive it. SendToUser does not wait for any client. With a broker it blocks until every node has confirmed, at most
// until ctx ends or for some seconds.
//
// The error is an *InvalidError, ErrClosed or ctx's error; with a broker it may wrap ErrUnavailable, and ctx's error
// too, or ErrRefused, or be a *MissingNodesError with the nodes that did not confirm. The outcomes are valid even then:
// this node's connections have the message, and sending it again may deliver it twice.
func (m *Manager) SendToUser(ctx context.Context, userID string, msg Message) (Delivery, error) {
	if err := ctx.Err(); err != nil {
		return Delivery{}, err
	}
	if err := m.check(); err != nil {
		return Delivery{}, err
	}
	if err := CheckID("user_id", userID); err != nil {
		return Delivery{}, err
	}
	e, err := m.encode("", msg)
	if err != nil {
		return Delivery{}, err
	}
	m.counters.byUser.add(e.class)
	if m.cluster != nil {
		return m.cluster.sendToUser(ctx, userID, e)
	}
	return m.sendHere(userID, e), nil
}

// stateOfUser begins the state keys of messages to users: they replace each other in a queue, but no state that was
// published to the upload, whose key begins with an action or is empty.
const stateOfUser = keySeparator

// sendHere sends a message to the connections of a user that this node has.
func (m *Manager) sendHere(userID string, e Encoded) (d Delivery) {
	e.stateKey = stateOfUser + e.stateKey
	f := e.frame(e.uploadID, Position{})
	m.registry.WithConnections(userID, func(conns []Conn) {
		for _, c := range conns {
			d.count(m.guard.send(c, f))
		}
	})
	m.counters.sent(d)
	return d
}

// accept validates and encodes a message of an upload.
func (m *Manager) accept(uploadID string, msg Message) (Encoded, error) {
	if err := m.check(); err != nil {
		return Encoded{}, err
	}
	if err := CheckID("upload_id", uploadID); err != nil {
		return Encoded{}, err
	}
	return m.encode(uploadID, msg)
}

// record gives a message its offset in an upload, which is locked. History, offset and receivers belong to one
// critical section, so that order, snapshots and subscribers agree. trace is the message's trace context, or "".
func (m *Manager) record(u *upload, e Encoded, trace string) *Frame {
	now := time.Now()
	f := m.keep(u, e, m.log(u, now).Offset()+1, now, trace)
	m.counters.published.Add(1)
	return f
}

// keep adds a message to the log of an upload, which is locked.
func (m *Manager) keep(u *upload, e Encoded, offset uint64, at time.Time, trace string) *Frame {
	before := logSizeOf(u)
	f := m.tracing.follow(e.frame(u.ID(), Position{Epoch: u.State.log.Epoch(), Offset: offset}), trace)
	u.State.log.Append(offset, f, f.Size(), at, m.limits)
	m.account(u, before)
	return f
}

func (m *Manager) encode(uploadID string, msg Message) (Encoded, error) {
	if isNil(msg) {
		return Encoded{}, &InvalidError{"", "must not be nil"}
	}
	e, err := msg.encode(&m.vocabulary, uploadID, time.Now())
	if err != nil {
		return Encoded{}, err
	}
	if len(e.payload) > m.opt.MaxMessageBytes {
		return Encoded{}, tooLarge(len(e.payload), m.opt.MaxMessageBytes)
	}
	return e, nil
}
