package client

// cursor is the place in an upload's messages up to which one receiver has got them. Client.mu protects it.
//
// A cursor is live between the answer to its subscription and the end of the connection: only then the next message of
// the upload is its next one. Messages before that answer may belong to the claim of another connection of the user.
type cursor struct {
	live    bool
	waiting bool // for the answer to its subscription

	known bool // the position is valid
	epoch string
	// covered is the offset up to which no message is missing.
	covered uint64
	// newest: the newest message is expected, which may have any offset up to covered. The position is before it.
	newest bool
}

// position returns the position to continue from.
func (c *cursor) position() Position {
	if c.newest && c.covered > 0 {
		return Position{c.epoch, c.covered - 1}
	}
	return Position{c.epoch, c.covered}
}

// stop ends the subscription.
func (c *cursor) stop() { c.live, c.waiting = false, false }

// wants reports whether the cursor needs a subscription.
func (c *cursor) wants() bool { return !c.live && !c.waiting }

// apply applies the answer to a subscription, or a notice, and reports whether messages were lost: the position before
// it is then void.
func (c *cursor) apply(a answer) (lost bool) {
	c.live = c.live || c.waiting
	c.waiting = false
	switch {
	case !c.known && c.live:
		c.restart(a)
	case !c.known, a.recovered:
	case a.Epoch != c.epoch, c.live && (a.Offset > c.covered || a.expired && c.newest):
		lost = true
		c.restart(a)
	}
	return lost
}

// restart expects the newest message, if the server has it, and then the messages after the answer's position.
func (c *cursor) restart(a answer) {
	c.known, c.epoch, c.covered, c.newest = true, a.Epoch, a.Offset, !a.expired
}

// accept advances the cursor by a message and reports whether the receiver has not got it yet. A message without an
// offset is always new.
func (c *cursor) accept(offset uint64) bool {
	switch {
	case !c.live:
		return false
	case offset == 0:
	case c.newest:
		c.newest = false
		c.covered = max(c.covered, offset)
	case offset <= c.covered:
		return false
	default:
		c.covered = offset
	}
	return true
}
