package brokertest

import (
	"context"
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
