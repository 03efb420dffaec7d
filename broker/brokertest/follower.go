package brokertest

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/shoal-go/shoal/broker"
)

// Follower follows stored channels so that it misses nothing, or knows that it did, as a node must with a
// HistoryBroker. Its methods may be called from any number of goroutines. Those of broker.Handler are for the
// broker, and block only on a lock.
//
// It accepts a live message only if it directly follows the previous one. Otherwise, or when the broker reports an
// interruption, the follower reads the history. Messages that arrive during the read are buffered until its
// result, which includes all earlier ones, is merged. It records everything that it has seen, for tests.
type Follower struct {
	broker broker.HistoryBroker
	wakeUp chan struct{} // holds a token if the history of a channel has to be read

	observable
	channels map[string]*followed
	health   error
}

// followed is one channel. It is complete when all requested reads of its history are completed.
type followed struct {
	at        broker.Position
	requested int // reads of the history that were requested so far
	completed int // the requested reads before the last read began
	reading   bool
	buffered  []broker.Message
	seen      []Observation
}

// Observation is an observation of a Follower: a message, or a loss.
type Observation struct {
	// Lost is "" for a message. Otherwise it says why messages may be missing here.
	Lost    string
	Offset  uint64
	Payload []byte
}

// NewFollower returns a Follower that is to be run.
func NewFollower(b broker.HistoryBroker) *Follower {
	return &Follower{
		broker:     b,
		wakeUp:     make(chan struct{}, 1),
		observable: newObservable(),
		channels:   make(map[string]*followed),
		health:     broker.ErrUnavailable,
	}
}

// Run runs the broker and follows until ctx ends. It returns the error of the broker's Run.
func (f *Follower) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var catchingUp sync.WaitGroup
	catchingUp.Go(func() { f.catchUp(ctx) })
	err := f.broker.Run(ctx, f)
	cancel()
	catchingUp.Wait()
	return err
}

// Follow begins to follow a channel, from its history on. It blocks until the subscription is confirmed, at most
// until ctx ends, and returns the error of the broker's Subscribe.
func (f *Follower) Follow(ctx context.Context, channel string) error {
	f.update(func() {
		if f.channels[channel] == nil {
			f.channels[channel] = &followed{requested: 1} // nothing is complete before the first read
		}
	})
	if err := f.broker.Subscribe(ctx, channel); err != nil {
		return err
	}
	// Only a history that was read after Subscribe had returned joins the live messages without a gap.
	f.requestRead(channel)
	return nil
}

// Seen returns the observations of a channel so far.
func (f *Follower) Seen(channel string) (seen []Observation) {
	f.read(func() {
		if c := f.channels[channel]; c != nil {
			seen = append(seen, c.seen...)
		}
	})
	return seen
}

// currentHealth returns the newest health.
func (f *Follower) currentHealth() (err error) {
	f.read(func() { err = f.health })
	return err
}

// Receive accepts a live message, or requests a read if one before it is missing.
func (f *Follower) Receive(m broker.Message) {
	f.update(func() {
		c := f.channels[m.Channel]
		switch {
		case c == nil:
		case m.Payload == nil:
			c.requested++
		case m.Offset == 0: // not stored, and so no part of the history
		case c.requested == c.completed:
			c.accept(m)
		case c.reading:
			c.buffered = append(c.buffered, m)
		}
		f.wake()
	})
}

// Interrupted requests a read of the history.
func (f *Follower) Interrupted(channels ...string) { f.requestRead(channels...) }

// Health records the health. Nothing else is needed: Interrupted names the channels with possible losses.
func (f *Follower) Health(err error) {
	f.update(func() { f.health = err })
}

// requestRead requests a read of the history of channels, or of all if the list is empty.
func (f *Follower) requestRead(channels ...string) {
	f.update(func() {
		if len(channels) == 0 {
			for _, c := range f.channels {
				c.requested++
			}
		}
		for _, channel := range channels {
			if c := f.channels[channel]; c != nil {
				c.requested++
			}
		}
		f.wake()
	})
}

// wake makes catchUp look for requested reads.
func (f *Follower) wake() {
	select {
	case f.wakeUp <- struct{}{}:
	default:
	}
}

// catchUp carries out the requested reads until ctx ends.
func (f *Follower) catchUp(ctx context.Context) {
	const pause = 50 * time.Millisecond
	for {
		select {
		case <-f.wakeUp:
		case <-ctx.Done():
			return
		}
		if f.catchUpAll(ctx) == nil {
			continue
		}
		select {
		case <-time.After(pause):
			f.wake()
		case <-ctx.Done():
			return
		}
	}
}

// catchUpAll reads the history of each channel for which that was requested, up to the first error.
func (f *Follower) catchUpAll(ctx context.Context) error {
	const patience = 2 * time.Second
	var stale []string
	f.read(func() {
		for name, c := range f.channels {
			if c.requested != c.completed {
				stale = append(stale, name)
			}
		}
	})
	for _, name := range stale {
		requests := f.beginRead(name)
		reading, cancel := context.WithTimeout(ctx, patience)
		k, err := f.broker.History(reading, name, broker.Position{})
		cancel()
		if err != nil {
			return err
		}
		f.finishRead(name, requests, k)
	}
	return nil
}

// beginRead buffers live messages from now on, and returns the number of requests that the read completes.
func (f *Follower) beginRead(channel string) (requests int) {
	f.read(func() {
		c := f.channels[channel]
		c.reading, c.buffered = true, nil
		requests = c.requested
	})
	return requests
}

// finishRead merges the history with the buffered messages.
func (f *Follower) finishRead(channel string, requests int, k broker.Snapshot) {
	f.update(func() {
		c := f.channels[channel]
		c.merge(k)
		c.completed = requests
		for _, m := range c.buffered {
			if c.requested == c.completed {
				c.accept(m)
			}
		}
		c.reading, c.buffered = false, nil
		f.wake()
	})
}

// merge adds the stored messages that have not been seen.
func (c *followed) merge(k broker.Snapshot) {
	switch {
	case c.at.Epoch == "":
	case c.at.Epoch != k.Epoch:
		c.seen = append(c.seen, Observation{Lost: fmt.Sprintf("epoch %q ended, %q began", c.at.Epoch, k.Epoch)})
		c.at.Offset = 0
	case c.at.Offset < k.Floor:
		c.seen = append(c.seen, Observation{Lost: fmt.Sprintf("at %d, below the floor %d", c.at.Offset, k.Floor)})
	}
	c.at.Epoch = k.Epoch
	for _, m := range k.Messages {
		c.add(m.Offset, m.Payload)
	}
	c.at.Offset = max(c.at.Offset, k.Offset, k.Floor)
}

// accept records a live message if it is the next one. One that comes after a gap is dropped: it is stored as well.
func (c *followed) accept(m broker.Message) {
	if m.Epoch != "" && m.Epoch != c.at.Epoch || m.Prev > c.at.Offset {
		c.requested++
		return
	}
	c.add(m.Offset, m.Payload)
}

// add records a message unless it has been seen.
func (c *followed) add(offset uint64, payload []byte) {
	if offset <= c.at.Offset {
		return
	}
	c.at.Offset = offset
	c.seen = append(c.seen, Observation{Offset: offset, Payload: payload})
}
