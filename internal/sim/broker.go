package sim

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/shoal-go/shoal/broker"
)

// hub is the engine of the broker: it orders and stores messages, and can lose its data. All methods may be called from
// any number of goroutines.
type hub struct {
	account *account
	// stored: the newest messages of a channel are kept. bare: as with NATS, messages carry the epoch only after the node
	// has read the channel, and offsets are those of one log for all channels, which never begins again.
	stored, bare bool
	limit        int

	mu       sync.Mutex // protects the fields below and those of the links; handlers are called under it
	channels map[string]*channel
	keys     map[string]kept // by channel and key
	epochs   int
	offsets  uint64
	started  int           // the number of links made so far
	calls    time.Duration // the number of late calls so far, in nanoseconds
	// ahead is the time by which the clock of the engine is ahead of the nodes' clock.
	ahead time.Duration
	// setBack: the clock was set back at least once, so that messages may look newer than they are.
	setBack bool
	links   []*link // in the order in which their nodes came, as the seed has it
}

// channel is one channel of the engine. marker is the offset of the message that began its epoch, if the hub is bare
// and the channel was forgotten.
type channel struct {
	kept   broker.Snapshot
	marker uint64
}

func newHub(a *account, stored, bare bool, limit int) *hub {
	return &hub{
		account: a, stored: stored, bare: bare, limit: limit, channels: map[string]*channel{},
		keys: map[string]kept{},
	}
}

// link is one node's connection to the hub, with its faults. It is a broker.HistoryBroker.
type link struct {
	hub    *hub
	number int // of the nodes that were started
	// The fields below belong to the hub's lock.
	handler  broker.Handler
	channels map[string]bool
	epochs   map[string]string // that the node has read, if the hub is bare
	// down counts the reasons for which nothing passes.
	down int
	// loses: one message in loses is lost; 0: no loss. late delays the calls or their answers. mute
	// executes calls and fails them.
	loses int
	late  time.Duration
	mute  bool
	// refuses are the reasons for which the hub refuses to read a channel, by channel; refused: it has refused a read.
	refuses map[string]int
	refused bool
	dice    *rand.Rand
	// disturbed: a fault may have cost messages or answers.
	disturbed bool
}

var _ broker.HistoryBroker = (*link)(nil)

func (h *hub) link(seed uint64) *link {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.started++
	return &link{
		hub: h, number: h.started, channels: map[string]bool{}, epochs: map[string]string{}, refuses: map[string]int{},
		dice: rand.New(rand.NewPCG(seed, 5)),
	}
}

// insert adds a link; the hub's lock is held.
func (h *hub) insert(l *link) {
	h.links = append(h.links, l)
	slices.SortStableFunc(h.links, func(a, b *link) int { return a.number - b.number })
}

// change changes the link with the hub's lock held.
func (l *link) change(fn func()) {
	l.hub.mu.Lock()
	defer l.hub.mu.Unlock()
	fn()
}

// cut lets nothing pass any more, for one more reason.
func (l *link) cut() {
	l.change(func() {
		l.disturbed = true
		if l.down++; l.down == 1 && l.handler != nil {
			l.handler.Health(broker.ErrUnavailable)
		}
	})
}

// mend reverts cut.
func (l *link) mend() {
	l.change(func() {
		if l.down--; l.down == 0 && l.handler != nil {
			clear(l.epochs)
			l.handler.Interrupted()
			l.handler.Health(nil)
		}
	})
}

// Run delivers messages to h until ctx ends.
func (l *link) Run(ctx context.Context, h broker.Handler) error {
	l.change(func() {
		l.handler = h
		l.hub.insert(l)
		if l.down == 0 {
			h.Health(nil)
		}
	})
	<-ctx.Done()
	l.change(func() {
		l.handler = nil
		l.hub.links = slices.DeleteFunc(l.hub.links, func(other *link) bool { return other == l })
	})
	return nil
}

// call executes a call of the hub, with the faults of the link.
func (l *link) call(ctx context.Context, execute func(h *hub)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	var before, after time.Duration
	l.change(func() {
		if l.late == 0 {
			return
		}
		// No two calls end at the same instant: their order would be the scheduler's.
		l.hub.calls++
		if late := l.late + l.hub.calls; l.dice.IntN(2) == 0 {
			before = late
		} else {
			after = late
		}
	})
	if err := pause(ctx, before); err != nil {
		return err
	}
	failed := false
	l.change(func() {
		if failed = l.down > 0 || l.handler == nil; !failed {
			execute(l.hub)
			failed = l.mute
		}
	})
	if err := pause(ctx, after); err != nil {
		return err
	}
	if failed {
		return broker.ErrUnavailable
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	if d == 0 {
		return nil
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Subscribe subscribes to channels.
func (l *link) Subscribe(ctx context.Context, channels ...string) error {
	return l.call(ctx, func(*hub) {
		for _, name := range channels {
			l.channels[name] = true
		}
	})
}

// Unsubscribe reverts Subscribe.
func (l *link) Unsubscribe(ctx context.Context, channels ...string) error {
	return l.call(ctx, func(*hub) {
		for _, name := range channels {
			delete(l.channels, name)
		}
	})
}

// Publish sends a message without storing it.
func (l *link) Publish(ctx context.Context, name string, payload []byte) error {
	return l.call(ctx, func(h *hub) {
		if upload, ok := uploadOf(name); ok {
			h.account.accept(upload, bodyOf(payload), broker.Position{})
		}
		h.send(broker.Message{Channel: name, Payload: payload})
	})
}

// Store sends a message and stores it.
func (l *link) Store(ctx context.Context, name string, payload []byte) (pos broker.Position, err error) {
	err = l.call(ctx, func(h *hub) { pos = h.store(name, payload) })
	return pos, err
}

// store is Store with the lock held.
func (h *hub) store(name string, payload []byte) broker.Position {
	c := h.channel(name)
	previous := max(c.kept.Offset, c.marker)
	h.offsets++
	if c.kept.Offset++; h.bare {
		c.kept.Offset = h.offsets
	}
	pos := c.kept.Position
	payload = slices.Clone(payload)
	c.kept.Messages = append(c.kept.Messages, broker.Stored{Offset: pos.Offset, Payload: payload, At: h.now()})
	if drop := len(c.kept.Messages) - h.limit; drop > 0 {
		c.kept.Floor = c.kept.Messages[drop-1].Offset
		c.kept.Messages = slices.Delete(c.kept.Messages, 0, drop)
	}
	if upload, ok := uploadOf(name); ok {
		h.account.accept(upload, bodyOf(payload), pos)
	}
	h.send(broker.Message{Channel: name, Payload: payload, Position: pos, Prev: previous})
	return pos
}

// Forget drops the stored messages of a channel.
func (l *link) Forget(ctx context.Context, name string) error {
	return l.call(ctx, func(h *hub) {
		if upload, ok := uploadOf(name); ok {
			h.account.lose(upload, nil)
		}
		c := h.channel(name)
		c.kept = broker.Snapshot{Position: broker.Position{Epoch: h.epoch()}}
		if h.bare { // the marker has an offset, so that the next message shows its loss
			h.offsets++
			c.marker = h.offsets
		}
		h.send(broker.Message{Channel: name, Position: broker.Position{Epoch: c.kept.Epoch}})
	})
}

// read returns a channel whose epoch the node knows from now on; the hub's lock is held.
func (l *link) read(name string) *channel {
	c := l.hub.channel(name)
	l.epochs[name] = c.kept.Epoch
	return c
}

// channel returns a channel with an epoch; the hub's lock is held.
func (h *hub) channel(name string) *channel {
	c := h.channels[name]
	if c == nil {
		c = &channel{kept: broker.Snapshot{Position: broker.Position{Epoch: h.epoch()}}}
		h.channels[name] = c
	}
	return c
}

// now returns the time by the clock of the engine; the hub's lock is held.
func (h *hub) now() time.Time { return time.Now().Add(h.ahead) }

// step sets the clock of the engine.
func (h *hub) step(by time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ahead += by
	h.setBack = h.setBack || by < 0
}

// byNodes returns a copy of a snapshot with the times at which the messages were stored by the nodes' clock, computed,
// as by a real broker, from their ages by the engine's clock; the hub's lock is held.
func (h *hub) byNodes(s broker.Snapshot) broker.Snapshot {
	s.Messages = slices.Clone(s.Messages)
	for i := range s.Messages {
		s.Messages[i].At = s.Messages[i].At.Add(-h.ahead)
	}
	return s
}

func (h *hub) epoch() string {
	h.epochs++
	return "e" + strconv.Itoa(h.epochs)
}

// send delivers a message to the subscribed nodes that it reaches; the hub's lock is held.
func (h *hub) send(m broker.Message) {
	payload := m.Payload
	_, aboutUpload := uploadOf(m.Channel)
	for _, l := range h.links {
		lost := aboutUpload && h.stored && l.loses > 0 && l.dice.IntN(l.loses) == 0
		if l.down > 0 || lost || !l.channels[m.Channel] {
			continue
		}
		m.Payload = slices.Clone(payload)
		to := m
		switch {
		case !h.bare:
		case payload == nil:
			l.epochs[m.Channel] = m.Epoch
		case m.Offset > 0 && l.epochs[m.Channel] != m.Epoch:
			to.Epoch = ""
		case m.Offset > 0 && m.Prev == h.channel(m.Channel).marker:
			to.Prev = 0 // the node has had the marker
		}
		l.handler.Receive(to)
	}
}

// liveBroker hides the methods of a link that store messages.
type liveBroker struct{ broker.Broker }

// uploadOf returns the upload of a channel; others are for commands between nodes.
func uploadOf(channel string) (upload int, ok bool) {
	digits, ok := strings.CutPrefix(channel, "upload:"+uploadPrefix)
	if !ok {
		return 0, false
	}
	upload, err := strconv.Atoi(digits)
	return upload, err == nil
}

// errRefused is the refusal to read a channel.
var errRefused = errors.New("sim: the stored messages cannot be read")

// reads executes a read of channels, unless the hub refuses one of them.
func (l *link) reads(ctx context.Context, execute func(), names ...string) error {
	refused := false
	err := l.call(ctx, func(*hub) {
		refused = slices.ContainsFunc(names, func(name string) bool { return l.refuses[name] > 0 })
		if l.refused = l.refused || refused; !refused {
			execute()
		}
	})
	if err == nil && refused {
		return errRefused
	}
	return err
}

// refuse adds to the reasons for which the hub refuses to read an upload.
func (l *link) refuse(upload, reasons int) {
	l.change(func() { l.refuses["upload:"+uploadID(upload)] += reasons })
}

// History returns the stored messages after a position.
func (l *link) History(ctx context.Context, name string, since broker.Position) (s broker.Snapshot, err error) {
	err = l.reads(ctx, func() {
		s = l.hub.byNodes(l.read(name).kept.Since(since))
	}, name)
	return s, err
}

// Newest returns the newest stored message.
func (l *link) Newest(ctx context.Context, name string) (s broker.Snapshot, err error) {
	err = l.reads(ctx, func() {
		s = l.hub.byNodes(l.read(name).kept.Newest())
	}, name)
	return s, err
}

// Positions returns the positions of channels.
func (l *link) Positions(ctx context.Context, names ...string) (all []broker.Position, err error) {
	err = l.reads(ctx, func() {
		for _, name := range names {
			all = append(all, l.read(name).kept.Position)
		}
	}, names...)
	return all, err
}
