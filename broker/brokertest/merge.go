package brokertest

import (
	"context"
	"math/rand/v2"
	"strconv"
)

// mergeLosesNothing: a node that subscribes at any moment, asks what is kept and adds what arrives has it all, once
// and in order, even if it has to ask again at any other moment.
func mergeLosesNothing(s *trial) {
	const rounds, channels = 6, 8
	writer := s.join()
	f := NewFollower(s.Node(s.TB))
	s.follow(f)
	for range rounds {
		s.each(channels, func(int) { s.mergeOnce(writer, f) })
	}
}

// follow runs a follower and returns when it is connected.
func (s *trial) follow(f *Follower) {
	s.Helper()
	s.runs(f.Run)
	s.await(&f.board, "Health(nil), the sign that Run has connected", func() bool { return f.health == nil })
}

// mergeOnce fills a channel while a follower joins it after some message and loses its thread after another.
func (s *trial) mergeOnce(writer *node, f *Follower) {
	channel := s.channel("c" + strconv.FormatUint(rand.Uint64(), 36))
	joins, stumbles := rand.IntN(s.Messages), rand.IntN(s.Messages)
	join, joined := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(joined)
		<-join
		s.call("Subscribe", func(ctx context.Context) error { return f.Follow(ctx, channel) })
	}()
	l := new(ledger)
	for i := range s.Messages {
		if i == joins {
			close(join)
		}
		if i == stumbles {
			f.Interrupted(channel)
		}
		number := l.next()
		s.store(writer, channel, strconv.Itoa(number))
		l.ack(number)
	}
	<-joined
	s.awaitSeen(f, channel, s.Messages-1)
	if err := l.check(f.Seen(channel), false); err != nil {
		s.Errorf("a follower that joined at message %d and stumbled at %d: %v", joins, stumbles, err)
	}
}

// awaitSeen waits until a follower has seen the message of a number.
func (s *trial) awaitSeen(f *Follower, channel string, number int) {
	s.Helper()
	s.await(&f.board, "the last message of a channel that is followed", func() bool {
		c := f.channels[channel]
		return len(c.seen) > 0 && string(c.seen[len(c.seen)-1].Payload) == strconv.Itoa(number)
	})
}
