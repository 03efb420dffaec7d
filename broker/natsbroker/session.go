package natsbroker

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/shoal-go/shoal/broker"
)

// session is a connection that nats.go has not closed for good; reconnections happen within it. Its methods are safe
// for concurrent use, except methods that name the goroutine they belong to.
type session struct {
	opt           Options
	handler       broker.Handler
	conn          *nats.Conn
	calls         *calls
	subscriptions *subscriptions
	epochs        *epochs
	// arrivals receives the messages of all subscriptions, queue holds them until receive delivers them.
	arrivals chan *nats.Msg
	queue    *queue
	// clocks is the newest comparison with the server's clock, nil without any.
	clocks atomic.Pointer[clockReading]
	// created is when the stream was created that the session found at its start.
	created time.Time
	// duplicates is the stream's duplicate window, in nanoseconds.
	duplicates atomic.Int64
	// bounded means that the stream drops its oldest messages when it is full.
	bounded atomic.Bool
	// replicated means that servers other than the stream's leader may respond to reads.
	replicated atomic.Bool

	// woken holds a token when the supervisor should check the session at once.
	woken chan struct{}
	// disconnected holds a token when the connection was lost, and with it the responses in flight.
	disconnected chan struct{}
	// disconnects counts losses of the connection, overflows messages that were dropped for want of room.
	disconnects, overflows atomic.Uint64
	// suspect means that a call found the stream missing or was refused by it; recreated, that the stream's epoch
	// changed; so the supervisor checks at once.
	suspect, recreated atomic.Bool
	// leaderless holds a token when a call found nobody that stores messages in the stream.
	leaderless chan struct{}
	// forbidden means that the server refused a publication since the supervisor last tried the permissions.
	forbidden atomic.Bool
	// lastErr is the connection's latest error, refused the refusal of a subscription that had been confirmed.
	lastErr, refused atomic.Pointer[error]
	refusals         refusals
	// permissionName ends the subjects by which checkPermissions tries the permissions.
	permissionName string
	// full is the refusal of a call for want of room since the supervisor last checked the stream.
	full atomic.Pointer[error]
	// suspected is when suspectStream last logged, in nanoseconds since 1970.
	suspected atomic.Int64
	// received is the sequence of the newest republished message. It belongs to receive.
	received uint64
	// probe is the subject of the loopback probe, lastProbe the number of the newest that came back.
	probe     string
	lastProbe atomic.Uint64

	running sync.WaitGroup
	stop    chan struct{}
	closed  chan struct{}
}

// open starts the goroutines of a session and restores the subscriptions of the one before.
func (s *session) open(ctx context.Context) (err error) {
	if s.calls, err = newCalls(s.conn, s.opt.InFlight, s.opt.CallTimeout); err != nil {
		return err
	}
	mark := s.markRefusals()
	for _, subject := range s.ownSubjects() {
		if _, err = s.conn.ChanSubscribe(subject, s.arrivals); err != nil {
			return err
		}
	}
	s.running.Go(func() { s.calls.run(s.epochs.outdate, s.disconnected, s.stop) })
	if err := s.checkPermissions(ctx, mark); err != nil {
		return err
	}
	if err := s.loadFirstEpoch(ctx); err != nil {
		return err
	}
	if err := s.subscriptions.move(s.conn, s.arrivals); err != nil {
		return err
	}
	s.running.Go(s.enqueue)
	s.running.Go(s.receive)
	s.running.Go(s.refresh)
	return nil
}

// loadFirstEpoch is loadEpoch within the time for a call.
func (s *session) loadFirstEpoch(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.opt.CallTimeout)
	defer cancel()
	_, err := s.loadEpoch(ctx)
	return err
}

// noteSettings records the settings of the stream that calls depend on. Operators and other nodes may change them.
func (s *session) noteSettings(info *jetstream.StreamInfo) {
	s.bounded.Store(isBounded(info.Config))
	s.duplicates.Store(int64(info.Config.Duplicates))
	// A stream in a cluster may get more replicas, which respond to reads before the next check of the stream.
	clustered := info.Cluster != nil && info.Cluster.Name != ""
	s.replicated.Store(clustered || info.Config.Replicas > 1)
}

// ownSubjects returns the subjects that every session is subscribed to.
func (s *session) ownSubjects() []string {
	return []string{s.probe, livePrefix + streamEpochSubject, forgottenSubject}
}

// close closes the connection and returns when no goroutine is left.
func (s *session) close() {
	close(s.stop)
	s.conn.Close()
	<-s.closed
	s.running.Wait()
}

// wake makes the supervisor check the session.
func (s *session) wake() {
	select {
	case s.woken <- struct{}{}:
	default:
	}
}

// suspectStream makes the supervisor check the stream after it was missing or refused an operation. The reason is
// logged at most every ten seconds.
func (s *session) suspectStream(operation string, err error) {
	const interval = 10 * time.Second
	s.suspect.Store(true)
	if errors.Is(err, errNoAnswer) {
		select {
		case s.leaderless <- struct{}{}:
		default:
		}
	}
	s.wake()
	last, now := s.suspected.Load(), time.Now().UnixNano()
	if now-last > int64(interval) && s.suspected.CompareAndSwap(last, now) {
		s.opt.Logger.Warn("NATS stream refused an operation", "operation", operation, "error", err)
	}
}

// receive delivers messages to the handler until stop is closed.
func (s *session) receive() {
	ctx, cancel := s.untilStop()
	defer cancel()
	tick := time.NewTicker(s.opt.ProbeInterval)
	defer tick.Stop()
	var reported uint64
	for {
		select {
		case m := <-s.queue.messages:
			s.queue.taken(m)
			s.deliver(ctx, m)
			if overflows := s.overflows.Load(); overflows != reported && len(s.queue.messages) == 0 {
				reported = overflows
				s.reportDropped()
			}
		case <-tick.C:
			s.reportDropped()
		case <-s.stop:
			return
		}
	}
}

// untilStop returns a context that ends when stop is closed.
func (s *session) untilStop() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	s.running.Go(func() {
		<-s.stop
		cancel()
	})
	return ctx, cancel
}

func (s *session) reportDropped() {
	if channels := s.subscriptions.dropped(); len(channels) > 0 {
		s.opt.Logger.Warn("messages dropped", "channels", len(channels), "pending_messages", s.opt.PendingMessages,
			"pending_bytes", s.opt.PendingBytes)
		s.handler.Interrupted(channels...)
	}
}

// deliver passes one message to the handler. It belongs to receive.
func (s *session) deliver(ctx context.Context, m *nats.Msg) {
	if m.Subject == s.probe {
		if n, err := strconv.ParseUint(string(m.Data), 10, 64); err == nil {
			s.lastProbe.Store(n)
		}
		return
	}
	if m.Subject == forgottenSubject {
		s.announced(m)
		return
	}
	stored := m.Header != nil && header(m, streamHeader) == s.opt.Stream
	present := true
	if stored {
		var follows bool
		if follows, present = s.follows(ctx, m); !follows {
			return
		}
	}
	if m.Subject == livePrefix+streamEpochSubject {
		if e := parseEpoch(m); e != nil && present {
			s.noteEpoch(e)
		}
		return
	}
	known, ok := s.subscriptions.find(m.Subject)
	if !ok {
		return
	}
	out := broker.Message{Channel: known.channel, Payload: m.Data}
	if out.Payload == nil {
		out.Payload = []byte{}
	}
	if m.Header != nil {
		out.Trace = broker.BoundTrace(header(m, traceHeader))
	}
	if stored && !s.locate(m, present, known, &out) {
		return
	}
	s.handler.Receive(out)
}

// locate sets the position of a stored message. It reports false for one that is not to be delivered: it was stored
// before the epoch of its channel began, and was in this node's queue when a read has found that epoch.
func (s *session) locate(m *nats.Msg, present bool, known subscription, out *broker.Message) bool {
	sequence, previous := number(m, sequenceHeader), number(m, previousHeader)
	epoch := header(m, epochHeader)
	begins := validEpoch(epoch)
	switch {
	case !present && begins, present && sequence < known.from:
		return false
	case !present && sequence > s.epochs.era.Load().begin:
		return true // the stream does not hold it any more, so that its sequence may be another message's
	case begins:
		base := m.Subject[len(livePrefix):]
		s.subscriptions.setEpoch(base, epoch, sequence, sequence)
		s.epochs.forget(base)
		*out = broker.Message{Channel: known.channel, Position: broker.Position{Epoch: epoch}}
		return true
	}
	out.Offset = sequence
	if present {
		out.Epoch = known.epoch
		known.newest.Store(sequence)
	}
	if previous > known.begin {
		out.Prev = previous
	}
	return true
}

// follows reports whether a republished message may be delivered. The stream republishes in the order of its sequences:
// one that does not increase comes from a new stream, from one that has lost messages, or from a new leader. So the
// epoch is read before the message is delivered; if that fails, the message is dropped, and the supervisor reports
// an interruption later. present is whether it is of that epoch: messages that were queued in this node when the stream
// was lost are not, and precede those of the present stream.
func (s *session) follows(ctx context.Context, m *nats.Msg) (ok, present bool) {
	last, sequence := s.received, number(m, sequenceHeader)
	s.received = sequence
	if sequence <= last {
		if err := s.reexamine(ctx); err != nil {
			return s.suspectLoss()
		}
		s.epochs.era.Load().settled.Store(true)
	}
	now := s.epochs.era.Load()
	if !now.settled.Load() {
		held, err := s.holds(ctx, m)
		if err != nil {
			return s.suspectLoss()
		}
		if !held {
			return true, false
		}
		now.settled.Store(true)
	}
	now.raise(sequence)
	now.newest.Store(m)
	return true, true
}

// suspectLoss makes the supervisor report an interruption, for a message that follows cannot identify.
func (s *session) suspectLoss() (ok, present bool) {
	s.recreated.Store(true)
	s.wake()
	return false, false
}

// reexamine reads the stream's epoch and compares its messages with those that this node has seen.
func (s *session) reexamine(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.opt.CallTimeout)
	defer cancel()
	seen := s.epochs.sighting()
	seen.disconnected()
	if _, err := s.loadEpoch(ctx); err != nil {
		return err
	}
	info, err := s.streamInfo(ctx)
	if err != nil {
		return err
	}
	return s.verify(ctx, seen, info.State.LastSeq)
}

// clockReading is the time of the server's clock and of this machine's at one moment. local has a monotonic reading, so
// that steps of this machine's clock do not count.
type clockReading struct{ server, local time.Time }

// compareClocks notes the time that the server has stated in a response that has just arrived. Without a statement the
// clocks count as equal.
func (s *session) compareClocks(server time.Time) {
	if !server.IsZero() {
		s.clocks.Store(&clockReading{server, time.Now()})
	}
}

// localTime converts a time of the server's clock to this machine's, with a monotonic reading. It is not in the future.
func (s *session) localTime(at time.Time) time.Time {
	now := time.Now()
	server := now
	if c := s.clocks.Load(); c != nil {
		server = c.server.Add(now.Sub(c.local))
	}
	return now.Add(-max(server.Sub(at), 0))
}

// setLocalTimes converts the times of messages.
func (s *session) setLocalTimes(messages []broker.Stored) {
	for i := range messages {
		messages[i].At = s.localTime(messages[i].At)
	}
}
