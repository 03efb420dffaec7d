package manager

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
)

const (
	// positionBatch is the number of uploads whose positions are asked for at once.
	positionBatch = 1024
	// maxRefused is the number of uploads that the broker may refuse before it has answered for any other one. Beyond
	// it the refusal does not concern single uploads, and asking for each of them would be in vain.
	maxRefused = 8
)

// compareAll finds all uploads that are behind.
func (c *cluster) compareAll(ctx context.Context, _ int, keys []string) (again []string) {
	if !c.findBehind(ctx) {
		return keys
	}
	return nil
}

// findBehind compares the position of every followed upload with the broker's and schedules a catch-up for uploads that
// differ. The cost of an interruption thus depends on the number of changed uploads; live messages of all others are
// delivered immediately. It returns false if the broker did not answer.
func (c *cluster) findBehind(ctx context.Context) (done bool) {
	if c.history == nil {
		c.manager.registry.EachUpload(c.fallBehind)
		return true
	}
	var followed []comparand
	c.manager.registry.EachUpload(func(u *upload) {
		switch f := u.State.follow; {
		case f == nil:
		case f.behind: // a reading that has begun may have come too early
			c.fallBehind(u)
		case u.State.log != nil:
			followed = append(followed, comparand{f.id, u.State.log.Offset()})
		}
	})
	// The order varies: if the first ones are refused before any answer, the next pass begins with others.
	rand.Shuffle(len(followed), func(i, j int) { followed[i], followed[j] = followed[j], followed[i] })
	pass := comparison{cluster: c}
	for batch := range slices.Chunk(followed, positionBatch) {
		if !pass.compare(ctx, batch) {
			return false
		}
	}
	// Each of them catches up or fails alone.
	for _, id := range pass.refused {
		c.manager.registry.WithKnown(id, c.fallBehind)
	}
	return true
}

// comparand is an upload with the offset that this node had reached before it asked for the broker's.
type comparand struct {
	id     string
	offset uint64
}

// comparison is a pass over all followed uploads.
type comparison struct {
	cluster *cluster
	// answered is set once the broker has returned positions. refused are the uploads that it refuses to read.
	answered bool
	refused  []string
}

// compare compares the positions of some uploads. If the broker refuses the read, it bisects the uploads to find the
// ones that the refusal concerns. It returns false if the broker does not answer, or refuses everything.
func (p *comparison) compare(ctx context.Context, uploads []comparand) (ok bool) {
	c := p.cluster
	ids := make([]string, len(uploads))
	for i, one := range uploads {
		ids[i] = one.id
	}
	outages := c.outages.Load()
	asking, cancel := bounded(ctx)
	positions, err := c.history.Positions(asking, channelsOf(ids)...)
	cancel()
	switch {
	case err == nil && len(positions) == len(ids):
		p.answered = true
		for i, one := range uploads {
			c.compareOne(one, positions[i], outages)
		}
		return true
	case err == nil:
		c.readFailed(fmt.Errorf("manager: Options.Broker: Positions returned %d positions of %d", len(positions), len(ids)))
		return false
	case isPassing(err):
		c.readFailed(err)
		return false
	case len(ids) == 1:
		c.readFailed(fmt.Errorf("upload %q: %w", ids[0], err))
		p.refused = append(p.refused, ids[0])
		return p.answered || len(p.refused) < maxRefused
	}
	half := len(uploads) / 2
	return p.compare(ctx, uploads[:half]) && p.compare(ctx, uploads[half:])
}

// compareOne compares an upload with the broker's position, which was asked for when outages was the number of outages.
func (c *cluster) compareOne(one comparand, pos Position, outages uint64) {
	c.manager.registry.WithKnown(one.id, func(u *upload) {
		log := u.State.log
		f := u.State.follow
		switch {
		case f == nil || !f.live || f.behind || log == nil:
		case pos.Epoch != log.Epoch(), pos.Offset > log.Offset(), pos.Offset < one.offset: // see lostTail
			c.fallBehind(u)
		default:
			f.confirmed = max(f.confirmed, outages)
		}
	})
}
