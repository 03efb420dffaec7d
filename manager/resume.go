package manager

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/shoal-go/shoal/internal/frame"
	"github.com/shoal-go/shoal/internal/history"
)

// Resume subscribes a registered connection to many uploads at once, each from the position up to which the
// client has seen it: one `resumed` with all positions, then what was missed, then what follows. What came of
// these uploads before that answer, because another connection of the user follows them, does not count: it
// may come again.
//
// It blocks as SubscribeConn does. It returns the uploads that could not be subscribed, each with its reason:
// ErrTooManySubscriptions, or ErrNotConnected if the connection is gone. The error is an *InvalidError, ErrNotConnected,
// ErrTooManySubscriptions if there are more than a user may follow, ErrClosed, that of ctx, or with a broker
// one that wraps ErrUnavailable, and then nothing has happened.
func (m *Manager) Resume(
	ctx context.Context, userID string, c Conn, since map[string]Position,
) (refused map[string]error, err error) {
	for uploadID := range since {
		if err := m.checkSubscription(ctx, userID, uploadID); err != nil {
			return nil, err
		}
	}
	if most := m.opt.MaxSubscriptionsPerUser; most > 0 && len(since) > most {
		return nil, ErrTooManySubscriptions
	}
	if !m.connected(userID, c) {
		return nil, ErrNotConnected
	}
	release, err := m.follow(ctx, slices.Collect(maps.Keys(since))...)
	if err != nil {
		return nil, err
	}
	defer release()
	m.overtake(ctx, since)
	// The answer comes first and names every upload, so their positions are read before any of them is
	// subscribed: otherwise one upload's new messages could come ahead of the answer.
	answer := make([]resumption, 0, len(since))
	for uploadID, from := range since {
		answer = append(answer, m.lookBack(uploadID, from))
	}
	slices.SortFunc(answer, func(a, b resumption) int { return cmp.Compare(a.uploadID, b.uploadID) })
	c.Send(resumedFrame(answer))
	for i := range answer {
		if err := m.resume(userID, c, &answer[i]); err != nil {
			if refused == nil {
				refused = map[string]error{}
			}
			refused[answer[i].uploadID] = err
		}
	}
	return refused, nil
}

// resumption is one upload of a Resume, as the client is told of it.
type resumption struct {
	uploadID  string
	from, now Position
	recovered bool
	// missed are the messages between from and now. They are kept, lest the history drop them meanwhile.
	missed []history.Entry[*frame.Frame]
}

// lookBack reads an upload's position and the messages since a client's.
func (m *Manager) lookBack(uploadID string, from Position) resumption {
	a := resumption{uploadID: uploadID, from: from}
	m.registry.With(uploadID, func(u *upload) {
		now := time.Now()
		m.expire(u, now)
		log := m.log(u, now)
		a.now = position(log)
		a.missed, a.recovered = log.Since(from.Epoch, from.Offset)
	})
	return a
}

// resume subscribes the connection to one upload and sends what it missed, which continues the position that
// it was told. If that is no longer possible, because in between the upload was forgotten or had more
// messages than its history holds, the connection is closed for the client to recover once more.
func (m *Manager) resume(userID string, c Conn, a *resumption) error {
	limit := m.opt.MaxSubscriptionsPerUser
	return refusal(m.registry.SubscribeConn(userID, c, a.uploadID, limit, func(u *upload, _ bool) {
		added, ok := m.log(u, time.Now()).Since(a.now.Epoch, a.now.Offset)
		switch {
		case !ok:
			c.Close(SlowConsumer)
		case !a.recovered:
			m.sendNewest(u, c)
		default:
			sendAll(c, a.missed)
			sendAll(c, added)
		}
	}))
}

// connected reports whether the connection is registered for the user.
func (m *Manager) connected(userID string, c Conn) (found bool) {
	m.registry.WithConnections(userID, func(conns []Conn) { found = slices.Contains(conns, c) })
	return found
}
