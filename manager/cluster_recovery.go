package manager

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/internal/frame"
	"github.com/shoal-go/shoal/internal/history"
)

// The number of uploads whose older messages are read at a time: of one resume, and of all of them together.
const (
	olderReaders    = 32
	allOlderReaders = 256
)

// olderRead is a read of stored messages before the ones that this node holds. Clients that return at the same time
// share it.
type olderRead struct {
	since Position
	done  chan struct{}
	err   error // set before done is closed
}

// readOlder makes the logs of uploads reach back to the positions of returning clients, as far as the broker stores
// messages. A node that begins to follow an upload reads the newest message only, which is enough for new clients. The
// uploads must be followed. refused has the uploads whose messages the broker refuses, with errors that wrap
// ErrRefused; the error is ErrClosed, ctx's error, or wraps ErrUnavailable.
func (m *Manager) readOlder(ctx context.Context, since map[string]Position) (refused map[string]error, err error) {
	if m.cluster == nil || m.cluster.history == nil {
		return nil, nil
	}
	var ids []string
	for id, pos := range since {
		if m.cluster.lacks(id, pos) {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return nil, nil
	}
	return m.readAllOlder(ctx, ids, since)
}

// readAllOlder is readOlder for uploads whose older messages are missing.
func (m *Manager) readAllOlder(
	ctx context.Context, ids []string, since map[string]Position,
) (refused map[string]error, err error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	var failures readFailures
	var running sync.WaitGroup
	own := make(chan struct{}, olderReaders)
	for _, id := range ids {
		own <- struct{}{}
		if err := m.await(ctx, m.cluster.readers); err != nil {
			failures.add(id, err)
			break
		}
		running.Go(func() {
			failures.add(id, m.cluster.readOlder(ctx, id, since[id]))
			m.cluster.readers <- struct{}{}
			<-own
		})
	}
	running.Wait()
	return failures.refused, failures.err
}

// readFailures are the failures of readOlder. The zero value is ready for use, by any number of goroutines.
type readFailures struct {
	mu      sync.Mutex // protects the fields below
	refused map[string]error
	err     error
}

// add adds the result of the read for an upload.
func (f *readFailures) add(id string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case err == nil:
	case isPassing(err) || errors.Is(err, ErrClosed):
		f.err = failure(err)
	default:
		if f.refused == nil {
			f.refused = make(map[string]error)
		}
		f.refused[id] = failure(err)
	}
}

// lacks reports whether the broker may store messages after a position that this node does not hold.
func (c *cluster) lacks(id string, pos Position) (lacks bool) {
	c.manager.registry.WithKnown(id, func(u *upload) { lacks = lacking(u, pos) })
	return lacks
}

// lacking is lacks for an upload whose lock is held.
func lacking(u *upload, pos Position) bool {
	f, log := u.State.follow, u.State.log
	return f != nil && f.partial && log != nil && log.Epoch() == pos.Epoch && pos.Offset < log.Floor()
}

// readOlder makes the log of one upload reach back to a position.
func (c *cluster) readOlder(ctx context.Context, id string, pos Position) error {
	for {
		read, own := c.shareRead(id, pos)
		switch {
		case read == nil:
			return nil
		case own:
			c.fetchOlder(ctx, id, read)
		default:
			if err := c.manager.await(ctx, read.done); err != nil {
				return err
			}
		}
		// The context of another caller may have ended its read: then this one reads itself.
		if own || read.err != nil && !isPassing(read.err) {
			return read.err
		}
	}
}

// shareRead returns the read to wait for, nil if there is nothing to read. If own is true, the caller must carry it
// out.
func (c *cluster) shareRead(id string, pos Position) (read *olderRead, own bool) {
	c.manager.registry.WithKnown(id, func(u *upload) {
		if !lacking(u, pos) {
			return
		}
		f := u.State.follow
		if own = f.older == nil; own {
			f.older = &olderRead{since: pos, done: make(chan struct{})}
		}
		read = f.older
	})
	return read, own
}

// fetchOlder reads the stored messages after a position and puts the older ones in front of the log.
func (c *cluster) fetchOlder(ctx context.Context, id string, read *olderRead) {
	kept, err := c.history.History(ctx, uploadChannel+id, read.since)
	var messages []Encoded
	if err == nil {
		messages = c.parseStored(id, kept)
	}
	c.manager.registry.WithKnown(id, func(u *upload) {
		f := u.State.follow
		if f == nil || f.older != read {
			return
		}
		f.older = nil
		if err == nil && u.State.log != nil {
			c.prepend(u, kept, messages)
			// Above the position the log holds all that is stored, or all that its limits allow.
			f.partial = kept.Floor > 0 && u.State.log.Floor() <= read.since.Offset
		}
	})
	read.err = err
	close(read.done)
	c.manager.enforceBounds()
}

// prepend puts stored messages in front of the log, if they reach up to it. The upload's lock is held.
func (c *cluster) prepend(u *upload, kept broker.Snapshot, messages []Encoded) {
	old, now := u.State.log, time.Now()
	if old == nil || old.Epoch() != kept.Epoch || kept.Offset < old.Floor() || kept.Floor >= old.Floor() {
		return
	}
	log := history.Begin[*frame.Frame](kept.Epoch, kept.Floor, old.Touched())
	for i, s := range kept.Messages {
		if messages[i].payload != nil && s.Offset > log.Offset() && s.Offset <= old.Floor() {
			f := messages[i].frame(u.ID(), Position{Epoch: kept.Epoch, Offset: s.Offset})
			log.Append(s.Offset, f, f.Size(), storedAt(s, now), c.manager.limits)
		}
	}
	for _, e := range old.All() {
		log.Append(e.Offset, e.Message, e.Message.Size(), e.At(), c.manager.limits)
	}
	log.Advance(old.Offset())
	if newest, ok := old.Newest(); ok && newest.Offset == 0 {
		log.SetLatest(newest.Message, newest.Message.Size(), newest.At())
	}
	defer c.manager.account(u, logSizeOf(u))
	u.State.log = log
}

// The maximum wait of a client for a node that is behind it, and the pause before the first check. Each further pause
// is twice as long: a client that claims to be far ahead costs ten checks, not hundreds.
const (
	positionPatience = time.Second
	positionPause    = time.Millisecond
)

// waitForPosition blocks while this node is behind the positions that clients reached on another node: usually for some
// milliseconds, until the broker delivers the messages here too, and at most for a second. Without the wait, these
// clients would be answered that they have a gap, and would receive messages again.
func (m *Manager) waitForPosition(ctx context.Context, since map[string]Position) {
	if m.cluster == nil {
		return
	}
	var patience <-chan time.Time
	pause := positionPause
	for uploadID, pos := range since {
		for m.isBehind(uploadID, pos) {
			if patience == nil {
				patience = time.After(positionPatience)
			}
			select {
			case <-time.After(pause):
				pause *= 2
			case <-patience:
				return
			case <-ctx.Done():
				return
			}
		}
	}
}

// isBehind reports whether a position is ahead of this node's position of an upload, in the same epoch.
func (m *Manager) isBehind(uploadID string, pos Position) (behind bool) {
	m.registry.WithKnown(uploadID, func(u *upload) {
		log := u.State.log
		behind = log != nil && log.Epoch() == pos.Epoch && log.Offset() < pos.Offset
	})
	return behind
}
