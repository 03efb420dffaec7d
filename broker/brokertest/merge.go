package brokertest

import (
	"context"
	"math/rand/v2"
	"slices"
	"strconv"
)

// mergeLosesNothing: a node that subscribes at any moment, reads the history and adds live messages has all of them, once
// and in order, even if it has to ask again at any other moment.
func mergeLosesNothing(s *trial) {
	const rounds, size = 8, 8
	writer := s.join()
	f := NewFollower(s.Node(s.TB))
	s.follow(f)
	all := s.channels("c", rounds*size)
	for some := range slices.Chunk(all, size) {
		joins := make([]joining, size)
		s.each(size, func(i int) { joins[i] = s.joinSomewhere(writer, f, some[i]) })
		for i, j := range joins {
			s.awaitSeen(f, some[i], s.Messages-1)
			if err := j.ledger.check(f.Seen(some[i]), false); err != nil {
				s.Errorf("a follower that joined at message %d and stumbled at %d: %v", j.joined, j.stumbled, err)
			}
		}
	}
}

// joining is a channel that a follower has joined while it was being filled.
type joining struct {
	ledger           *ledger
	joined, stumbled int // the number of the message at which that happened
}

// joinSomewhere fills a channel, while a follower joins it and is made to ask again.
func (s *trial) joinSomewhere(writer *node, f *Follower, channel string) joining {
	j := joining{ledger: new(ledger), joined: rand.IntN(s.Messages), stumbled: rand.IntN(s.Messages)}
	join, joined := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(joined)
		<-join
		s.call("Subscribe", func(ctx context.Context) error { return f.Follow(ctx, channel) })
	}()
	for i := range s.Messages {
		if i == j.joined {
			close(join)
		}
		if i == j.stumbled {
			f.Interrupted(channel)
		}
		number := j.ledger.next()
		s.store(writer, channel, strconv.Itoa(number))
		j.ledger.ack(number)
	}
	<-joined
	return j
}

// follow runs a follower and returns when it is connected.
func (s *trial) follow(f *Follower) {
	s.Helper()
	s.runs(f.Run)
	s.awaitWell(f, "a follower's")
}

// awaitSeen waits until a follower has seen the message of a number.
func (s *trial) awaitSeen(f *Follower, channel string, number int) {
	s.Helper()
	s.await(&f.board, "the last message of a channel that is followed", func() bool {
		return slices.ContainsFunc(f.channels[channel].seen, func(sight Sight) bool {
			return string(sight.Payload) == strconv.Itoa(number)
		})
	})
}
