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
	*suite
	writer   broker.HistoryBroker
	channels []string
	logs     []publishLog
	// burst is how many messages a channel gets at once: so few that none of a whole test's is trimmed before a
	// follower that was away can read it.
	burst int
}

func (s *suite) newTraffic(writer broker.HistoryBroker, channels int) *traffic {
	return &traffic{
		suite:    s,
		writer:   writer,
		channels: s.channels("c", channels),
		logs:     make([]publishLog, channels),
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
	number = t.logs[i].add()
	if _, err := t.writer.Store(ctx, t.channels[i], []byte(strconv.Itoa(number))); err != nil {
		return number, false
	}
	t.logs[i].acknowledge(number)
	return number, true
}

// awaitDelivery returns when the follower has seen one more message of each channel.
func (t *traffic) awaitDelivery(f *Follower) {
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

// checkDelivery reports every channel on which the follower missed a message without an announced loss. In an
// epoch that began with all stored messages, it has to have seen all of them.
func (t *traffic) checkDelivery(f *Follower, after fault) {
	t.Helper()
	for i, channel := range t.channels {
		observations := f.Seen(channel)
		if after.renewsEpoch {
			observations = sinceLoss(observations)
		}
		if err := t.logs[i].check(observations, after.losesHistory); err != nil {
			t.Errorf("%s: %v", channel, err)
		}
	}
}

// sinceLoss returns the observations after the last announced loss.
func sinceLoss(observations []Observation) []Observation {
	for i, observation := range slices.Backward(observations) {
		if observation.Lost != "" {
			return observations[i+1:]
		}
	}
	return observations
}

// epochs returns the channels' epochs.
func (t *traffic) epochs() []string {
	var epochs []string
	for _, channel := range t.channels {
		k := t.suite.history(&node{HistoryBroker: t.writer}, channel)
		epochs = append(epochs, k.Epoch)
	}
	return epochs
}

// publishLog records the messages of one channel. Their payloads are the numbers from 0. All methods may be called
// from any number of goroutines.
type publishLog struct {
	mu    sync.Mutex
	acked []bool // by number: whether Store returned nil
}

// add records a message that is about to be stored, and returns its number.
func (l *publishLog) add() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acked = append(l.acked, false)
	return len(l.acked) - 1
}

// acknowledge records that a message was stored.
func (l *publishLog) acknowledge(number int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acked[number] = true
}

// check returns the faults in a follower's observations so far, or nil: each acknowledged message is
// there once and in order, or its loss was announced just where it is missing. One that was not acknowledged may
// be there, also late, as it may have stood before a socket that a paused engine read later; but not before one
// that was acknowledged before its Store began.
func (l *publishLog) check(observations []Observation, mayLose bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	seen := make(map[int]bool)
	due := 0 // all acknowledged ones below are accounted for
	announced := false
	var offset uint64
	for _, observation := range observations {
		if observation.Lost != "" {
			if !mayLose {
				return fmt.Errorf("a loss is announced that need not be: %s", observation.Lost)
			}
			announced, offset = true, 0
			continue
		}
		number, err := strconv.Atoi(string(observation.Payload))
		switch {
		case err != nil || number < 0 || number >= len(l.acked):
			return fmt.Errorf("%q was seen, which was never stored", observation.Payload)
		case seen[number]:
			return fmt.Errorf("message %d was seen twice", number)
		case l.acked[number] && number < due:
			return fmt.Errorf("message %d was seen after %d, out of order", number, due-1)
		case observation.Offset <= offset:
			return fmt.Errorf("message %d is at offset %d, not above %d", number, observation.Offset, offset)
		}
		if missing := l.firstAcked(due, number); missing >= 0 && !announced {
			return fmt.Errorf("message %d is missing before %d, and no loss was reported", missing, number)
		}
		seen[number], due, announced, offset = true, max(due, number+1), false, observation.Offset
	}
	if missing := l.firstAcked(due, len(l.acked)); missing >= 0 && !announced {
		return fmt.Errorf("message %d is missing at the end, and no loss was reported", missing)
	}
	return nil
}

// firstAcked returns the first acknowledged message from a number up to below another, or -1.
func (l *publishLog) firstAcked(from, to int) int {
	for number := from; number < to; number++ {
		if l.acked[number] {
			return number
		}
	}
	return -1
}

// mergeLosesNothing: a node that subscribes at any moment, reads the history and adds live messages has all of them,
// once and in order, even if it has to ask again at any other moment.
func mergeLosesNothing(s *suite) {
	const rounds, size = 8, 8
	writer := s.join()
	f := NewFollower(s.Node(s.TB))
	s.follow(f)
	all := s.channels("c", rounds*size)
	for some := range slices.Chunk(all, size) {
		joins := make([]concurrentJoin, size)
		s.each(size, func(i int) { joins[i] = s.joinDuringTraffic(writer, f, some[i]) })
		for i, j := range joins {
			s.awaitSeen(f, some[i], s.Messages-1)
			if err := j.log.check(f.Seen(some[i]), false); err != nil {
				s.Errorf("a follower that joined at message %d and interrupted at %d: %v", j.joined, j.interrupted, err)
			}
		}
	}
}

// concurrentJoin is a channel that a follower has joined while it was being filled.
type concurrentJoin struct {
	log                 *publishLog
	joined, interrupted int // the number of the message at which that happened
}

// joinDuringTraffic fills a channel, while a follower joins it and is made to ask again.
func (s *suite) joinDuringTraffic(writer *node, f *Follower, channel string) concurrentJoin {
	j := concurrentJoin{log: new(publishLog), joined: rand.IntN(s.Messages), interrupted: rand.IntN(s.Messages)}
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
		if i == j.interrupted {
			f.Interrupted(channel)
		}
		number := j.log.add()
		s.store(writer, channel, strconv.Itoa(number))
		j.log.acknowledge(number)
	}
	<-joined
	return j
}

// follow runs a follower and returns when it is connected.
func (s *suite) follow(f *Follower) {
	s.Helper()
	s.runs(f.Run)
	s.awaitHealthy(f, "a follower's")
}

// awaitSeen waits until a follower has seen the message of a number.
func (s *suite) awaitSeen(f *Follower, channel string, number int) {
	s.Helper()
	s.await(&f.observable, "the last message of a channel that is followed", func() bool {
		return slices.ContainsFunc(f.Seen(channel), func(observation Observation) bool {
			return string(observation.Payload) == strconv.Itoa(number)
		})
	})
}
