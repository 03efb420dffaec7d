package brokertest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoal-go/shoal/broker"
)

// traffic is messages that one node stores on several channels at once, numbered by channel.
type traffic struct {
	*trial
	writer   broker.HistoryBroker
	channels []string
	ledgers  []ledger
	// burst is how many messages a channel gets at once: so few that none of a whole trial's is trimmed before a
	// follower that was away can read it.
	burst int
}

func (s *trial) newTraffic(writer broker.HistoryBroker, channels int) *traffic {
	return &traffic{
		trial:    s,
		writer:   writer,
		channels: s.channels("c", channels),
		ledgers:  make([]ledger, channels),
		burst:    min(s.Messages/4, 8),
	}
}

// send tries to store a number of messages on each channel, one after the other.
// In the middle of it, event happens, if there is one.
func (t *traffic) send(count int, event func()) {
	var tried atomic.Int64
	middle, atMiddle := make(chan struct{}), int64(count*len(t.channels)/2)
	var sending sync.WaitGroup
	for i := range t.channels {
		sending.Go(func() {
			for range count {
				t.store(i)
				if tried.Add(1) == atMiddle {
					close(middle)
				}
			}
		})
	}
	<-middle
	if event != nil {
		event()
	}
	sending.Wait()
}

// store tries to store one message. It reports whether that was acknowledged, and with which number.
func (t *traffic) store(i int) (number int, ok bool) {
	const patience = 300 * time.Millisecond
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	number = t.ledgers[i].next()
	if _, err := t.writer.Store(ctx, t.channels[i], []byte(strconv.Itoa(number))); err != nil {
		return number, false
	}
	t.ledgers[i].ack(number)
	return number, true
}

// settle returns when the follower has seen one more message of each channel.
func (t *traffic) settle(f *Follower) {
	t.Helper()
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	late := time.NewTimer(t.Patience)
	defer late.Stop()
	for i, channel := range t.channels {
		number, ok := t.store(i)
		for !ok {
			select {
			case <-again.C:
				number, ok = t.store(i)
			case <-late.C:
				t.Fatalf("nothing can be stored %v after all should be well", t.Patience)
			}
		}
		t.awaitSeen(f, channel, number)
	}
}

// account complains of every channel on which the follower missed something without being told. In an epoch that the
// fault has made begin with all that was kept, it has to have seen all of that.
func (t *traffic) account(f *Follower, after fault) {
	t.Helper()
	for i, channel := range t.channels {
		sights := f.Seen(channel)
		if after.renews {
			sights = sinceLoss(sights)
		}
		if err := t.ledgers[i].check(sights, after.wipes); err != nil {
			t.Errorf("%s: %v", channel, err)
		}
	}
}

// sinceLoss returns the observations after the last announced loss.
func sinceLoss(sights []Sight) []Sight {
	for i, sight := range slices.Backward(sights) {
		if sight.Lost != "" {
			return sights[i+1:]
		}
	}
	return sights
}

// epochs returns the channels' epochs.
func (t *traffic) epochs() []string {
	var epochs []string
	for _, channel := range t.channels {
		k := t.trial.kept(&node{HistoryBroker: t.writer}, channel)
		epochs = append(epochs, k.Epoch)
	}
	return epochs
}

// ledger accounts for the messages of one channel. Their payloads are the numbers from 0. All methods may be called
// from any number of goroutines.
type ledger struct {
	mu    sync.Mutex
	acked []bool // by number: whether Store returned nil
}

// next returns the next message's number.
func (l *ledger) next() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acked = append(l.acked, false)
	return len(l.acked) - 1
}

// ack notes that a message was stored.
func (l *ledger) ack(number int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acked[number] = true
}

// check returns the faults in a follower's observations so far, or nil: each acknowledged message is
// there once and in order, or its loss was announced just where it is missing. One that was not acknowledged may
// be there, also late, as it may have stood before a socket that a paused engine read later; but not before one
// that was acknowledged before its Store began.
func (l *ledger) check(sights []Sight, mayLose bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	seen := make(map[int]bool)
	due := 0 // all acknowledged ones below are accounted for
	announced := false
	var offset uint64
	for _, sight := range sights {
		if sight.Lost != "" {
			if !mayLose {
				return fmt.Errorf("a loss is announced that need not be: %s", sight.Lost)
			}
			announced, offset = true, 0
			continue
		}
		number, err := strconv.Atoi(string(sight.Payload))
		switch {
		case err != nil || number < 0 || number >= len(l.acked):
			return fmt.Errorf("%q was seen, which was never stored", sight.Payload)
		case seen[number]:
			return fmt.Errorf("message %d was seen twice", number)
		case l.acked[number] && number < due:
			return fmt.Errorf("message %d was seen after %d, out of order", number, due-1)
		case sight.Offset <= offset:
			return fmt.Errorf("message %d is at offset %d, not above %d", number, sight.Offset, offset)
		}
		if missing := l.firstAcked(due, number); missing >= 0 && !announced {
			return fmt.Errorf("message %d is missing before %d, and nothing was said of it", missing, number)
		}
		seen[number], due, announced, offset = true, max(due, number+1), false, sight.Offset
	}
	if missing := l.firstAcked(due, len(l.acked)); missing >= 0 && !announced {
		return fmt.Errorf("message %d is missing at the end, and nothing was said of it", missing)
	}
	return nil
}

// firstAcked returns the first acknowledged message from a number up to below another, or -1.
func (l *ledger) firstAcked(from, to int) int {
	for number := from; number < to; number++ {
		if l.acked[number] {
			return number
		}
	}
	return -1
}

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
