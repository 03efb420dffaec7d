// Package intake stands between whoever hands over messages and must not wait, and those who handle them: a
// few bounded queues. What does not fit is dropped, and its channel is named afterwards, so that it can be
// brought up to date in another way.
package dispatch

import (
	"hash/maphash"
	"sync"
)

// Config configures an Intake.
type Config[M any] struct {
	// Lanes is the number of queues, each with a goroutine of its own. Messages of one channel share one.
	Lanes int
	// Messages and Bytes bound one queue.
	Messages, Bytes int
	// Channel returns what a message belongs to, Size what it counts for in bytes.
	Channel func(M) string
	Size    func(M) int
	// Handle takes a message. Those of one channel come one after the other, in order.
	Handle func(M)
	// Lost says that messages of a channel were dropped, after those that came before them were handled;
	// "" stands for all channels.
	Lost func(channel string)
}

// Intake is a handover at work. Its methods may be called from any number of goroutines; only Close blocks.
type Queue[M any] struct {
	cfg     Config[M]
	lanes   []*lane[M]
	seed    maphash.Seed
	running sync.WaitGroup
}

// New returns an intake whose goroutines work until Close.
func New[M any](cfg Config[M]) *Queue[M] {
	k := &Queue[M]{cfg: cfg, seed: maphash.MakeSeed()}
	for range cfg.Lanes {
		l := new(lane[M])
		l.filled.L = &l.mu
		k.lanes = append(k.lanes, l)
		k.running.Go(func() { k.work(l) })
	}
	return k
}

// Put hands a message over, or drops it.
func (k *Queue[M]) Put(m M) {
	channel := k.cfg.Channel(m)
	l := k.lanes[maphash.String(k.seed, channel)%uint64(len(k.lanes))]
	l.put(m, channel, k.cfg.Size(m), k.cfg.Messages, k.cfg.Bytes)
}

// Close has what was handed over handled, and ends the goroutines.
func (k *Queue[M]) Close() {
	for _, l := range k.lanes {
		l.close()
	}
	k.running.Wait()
}

func (k *Queue[M]) work(l *lane[M]) {
	for {
		messages, lost, ok := l.take()
		if !ok {
			return
		}
		for i, m := range messages {
			k.cfg.Handle(m)
			var none M
			messages[i] = none // the slice is used again
		}
		for _, channel := range lost {
			k.cfg.Lost(channel)
		}
	}
}
