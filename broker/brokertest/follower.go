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
// interruption, the follower reads the history. Messages that arrive during the read wait for its result, which
// includes all earlier ones. It records everything that it has seen, for tests.
type Follower struct {
	keeper broker.HistoryBroker
	behind chan struct{} // holds a token if some channel is to be caught up

	board
	channels map[string]*followed
	health   error
}

// followed is one channel. It is complete when each reason to read the history has been answered.
type followed struct {
	at       broker.Position
	reasons  int // to read the history, so far
	answered int // the reasons that came before the last read
	asking   bool
	waiting  []broker.Message
	seen     []Sight
}

// Sight is an observation of a Follower: a message, or a loss.
type Sight struct {
	// Lost is "" for a message. Otherwise it says why messages may be missing here.
	Lost    string
	Offset  uint64
	Payload []byte
}

// NewFollower returns a Follower that is to be run.
func NewFollower(k broker.HistoryBroker) *Follower {
	return &Follower{
		keeper:   k,
		behind:   make(chan struct{}, 1),
		board:    newBoard(),
		channels: make(map[string]*followed),
		health:   broker.ErrUnavailable,
	}
}

// Run runs the broker and follows until ctx ends. It returns the error of the broker's Run.
func (f *Follower) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var catchingUp sync.WaitGroup
	catchingUp.Go(func() { f.catchUp(ctx) })
	err := f.keeper.Run(ctx, f)
	cancel()
	catchingUp.Wait()
	return err
}

// Follow begins to follow a channel, from its history on. It blocks until the subscription is confirmed, at most
// until ctx ends, and returns the error of the broker's Subscribe.
func (f *Follower) Follow(ctx context.Context, channel string) error {
	f.change(func() {
		if f.channels[channel] == nil {
			f.channels[channel] = &followed{reasons: 1} // nothing is complete before the first answer
		}
	})
	if err := f.keeper.Subscribe(ctx, channel); err != nil {
		return err
	}
	// Only a history that was read after Subscribe had returned joins the live messages without a gap.
	f.ask(channel)
	return nil
}

// Seen returns the observations of a channel so far.
func (f *Follower) Seen(channel string) (seen []Sight) {
	f.look(func() {
		if c := f.channels[channel]; c != nil {
			seen = append(seen, c.seen...)
		}
	})
	return seen
}

// Receive takes a live message, or learns from it that something is missing.
func (f *Follower) Receive(m broker.Message) {
	f.change(func() {
		c := f.channels[m.Channel]
		switch {
		case c == nil:
		case m.Payload == nil:
			c.reasons++
		case m.Offset == 0: // not stored, and so no part of the history
		case c.reasons == c.answered:
			c.take(m)
		case c.asking:
			c.waiting = append(c.waiting, m)
		}
		f.wake()
	})
}

// Interrupted reads the history again.
func (f *Follower) Interrupted(channels ...string) { f.ask(channels...) }

// Health notes whether messages come through. There is nothing to do: Interrupted will name the channels with possible losses.
func (f *Follower) Health(err error) {
	f.change(func() { f.health = err })
}

// ask adds a reason to read the history of channels, or of all if there are none.
func (f *Follower) ask(channels ...string) {
	f.change(func() {
		if len(channels) == 0 {
			for _, c := range f.channels {
				c.reasons++
			}
		}
		for _, channel := range channels {
			if c := f.channels[channel]; c != nil {
				c.reasons++
			}
		}
		f.wake()
	})
}

// wake lets catchUp look for channels with unanswered reasons.
func (f *Follower) wake() {
	select {
	case f.behind <- struct{}{}:
	default:
	}
}

// catchUp reads the history of the channels that have a reason for it, until ctx ends.
func (f *Follower) catchUp(ctx context.Context) {
	const pause = 50 * time.Millisecond
	for {
		select {
		case <-f.behind:
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

// catchUpAll asks for each channel that has a reason, up to the first error.
func (f *Follower) catchUpAll(ctx context.Context) error {
	const patience = 2 * time.Second
	var stale []string
	f.look(func() {
		for name, c := range f.channels {
			if c.reasons != c.answered {
				stale = append(stale, name)
			}
		}
	})
	for _, name := range stale {
		answers := f.begin(name)
		asking, cancel := context.WithTimeout(ctx, patience)
		k, err := f.keeper.History(asking, name, broker.Position{})
		cancel()
		if err != nil {
			return err
		}
		f.answer(name, answers, k)
	}
	return nil
}

// begin lets live messages wait from now on, and returns how many reasons the answer will have answered.
func (f *Follower) begin(channel string) (answers int) {
	f.look(func() {
		c := f.channels[channel]
		c.asking, c.waiting = true, nil
		answers = c.reasons
	})
	return answers
}

// answer merges the history with the waiting messages.
func (f *Follower) answer(channel string, answers int, k broker.Snapshot) {
	f.change(func() {
		c := f.channels[channel]
		c.merge(k)
		c.answered = answers
		for _, m := range c.waiting {
			if c.reasons == c.answered {
				c.take(m)
			}
		}
		c.asking, c.waiting = false, nil
		f.wake()
	})
}

// merge adds the stored messages that have not been seen.
func (c *followed) merge(k broker.Snapshot) {
	switch {
	case c.at.Epoch == "":
	case c.at.Epoch != k.Epoch:
		c.seen = append(c.seen, Sight{Lost: fmt.Sprintf("epoch %q ended, %q began", c.at.Epoch, k.Epoch)})
		c.at.Offset = 0
	case c.at.Offset < k.Floor:
		c.seen = append(c.seen, Sight{Lost: fmt.Sprintf("at %d, below the floor %d", c.at.Offset, k.Floor)})
	}
	c.at.Epoch = k.Epoch
	for _, m := range k.Messages {
		c.see(m.Offset, m.Payload)
	}
	c.at.Offset = max(c.at.Offset, k.Offset, k.Floor)
}

// take adds a live message if it is the next one. One that comes after a gap is dropped: it is kept as well.
func (c *followed) take(m broker.Message) {
	if m.Epoch != "" && m.Epoch != c.at.Epoch || m.Prev > c.at.Offset {
		c.reasons++
		return
	}
	c.see(m.Offset, m.Payload)
}

// see adds a message unless it has been seen.
func (c *followed) see(offset uint64, payload []byte) {
	if offset <= c.at.Offset {
		return
	}
	c.at.Offset = offset
	c.seen = append(c.seen, Sight{Offset: offset, Payload: payload})
}
