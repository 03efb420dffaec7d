package natsbroker

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/broker/internal/health"
)

// Run connects and delivers to h until ctx ends; see broker.Broker. A connection that the client library has closed for
// good is replaced by a new one. The error of a node that never was connected names wrong credentials, missing
// permissions (see Permissions), a server that is too old or has no JetStream, or the unsuitable settings of an
// existing stream.
func (b *Broker) Run(ctx context.Context, h broker.Handler) error {
	v := &supervisor{
		opt: b.opt, streamManager: streamManager{Options: b.opt}, handler: h,
		subscriptions: newSubscriptions(), epochs: newEpochs(),
	}
	for {
		s, err := v.connect(ctx)
		if err != nil || s == nil {
			return err
		}
		b.session.Store(s)
		v.disconnects, v.unanswered, v.streamFault = 0, 0, nil
		v.interrupted = !v.created.IsZero() // on another connection before
		v.created = s.created
		v.check(ctx, s)
		again := v.watch(ctx, s)
		b.session.Store(nil)
		s.close()
		v.epochs.disconnected()
		if !again {
			return nil
		}
		b.opt.Logger.Warn("NATS connection closed, connecting again", "error", s.lastError())
		v.health(fmt.Errorf("%w: %w", broker.ErrUnavailable, s.lastError()))
	}
}

// supervisor keeps a session going and reports its health. It belongs to Run's goroutine.
type supervisor struct {
	opt           Options
	streamManager streamManager
	handler       broker.Handler
	subscriptions *subscriptions
	epochs        *epochs
	// reported is whether the handler was notified of any health, lastHealth the newest one.
	reported   bool
	lastHealth error

	disconnects uint64 // losses of the connection that were handled
	interrupted bool   // messages may have been lost, and the stream has to be checked
	streamFault error  // result of the last check of the stream
	storage     health.Storage
	created     time.Time // when the stream was created
	leader      leadership
	routes      []uint64 // see watchRoutes
	checks      uint64
	nextSuspect time.Time // the earliest moment at which a suspicion leads to a check between two intervals
	sent        uint64    // the number of the newest loopback probe
	answered    uint64    // the number of the newest that came back
	unanswered  int       // consecutive intervals in which none came back
}

// health notifies the handler of a change.
func (v *supervisor) health(err error) {
	if v.reported && health.Reason(err) == health.Reason(v.lastHealth) {
		return
	}
	v.reported, v.lastHealth = true, err
	v.handler.Health(err)
}

// Bounds of the delay between two attempts to connect.
const (
	minBackoff = 50 * time.Millisecond
	maxBackoff = 5 * time.Second
)

// backoff returns the delay before an attempt, with jitter, so that nodes do not reconnect all at once.
func backoff(attempt int) time.Duration {
	delay := maxBackoff
	if attempt < 16 {
		delay = min(delay, minBackoff<<attempt)
	}
	return delay/2 + rand.N(delay/2)
}

// connect tries until it succeeds, or the error of a node that never was connected is permanent: a server may get new
// credentials later than its nodes. It returns nil if ctx ends.
func (v *supervisor) connect(ctx context.Context) (*session, error) {
	for attempt := 0; ; attempt++ {
		s, err := v.attempt(ctx)
		if err == nil {
			return s, nil
		}
		if ctx.Err() != nil {
			return nil, nil
		}
		if errors.As(err, new(permanentError)) && v.created.IsZero() {
			return nil, err
		}
		v.health(fmt.Errorf("%w: %w", broker.ErrUnavailable, err))
		select {
		case <-time.After(backoff(attempt)):
		case <-ctx.Done():
			return nil, nil
		}
	}
}

func (v *supervisor) attempt(ctx context.Context) (*session, error) {
	v.watchRoutes()
	s, err := dial(ctx, v.opt, v.handler, v.subscriptions, v.epochs)
	if err != nil {
		return nil, err
	}
	if err := checkVersion(s.conn.ConnectedServerVersion()); err != nil {
		s.close()
		return nil, err
	}
	info, err := v.streamManager.findStream(ctx, s.conn)
	if err == nil {
		s.compareClocks(info.TimeStamp)
		v.leader = leadershipOf(info)
		s.created = info.Created
		s.noteSettings(info)
		if err = s.open(ctx); err == nil {
			s.epochs.era.Load().created.CompareAndSwap(0, s.created.UnixNano())
			info, err = v.enlargeStream(ctx, s, info)
		}
		if err == nil {
			s.noteSettings(info)
			err = s.matchLimit(ctx, true)
		}
	}
	if err == nil {
		return s, nil
	}
	if refused := permissionError(s.refusals.since(0)); refused != nil && !errors.As(err, new(permanentError)) {
		err = refused
	}
	s.close()
	return nil, err
}

// enlargeStream raises the limits of the stream, and returns its state.
func (v *supervisor) enlargeStream(
	ctx context.Context, s *session, info *jetstream.StreamInfo,
) (*jetstream.StreamInfo, error) {
	return v.streamManager.enlargeStream(ctx, s.conn, info, func() error { return s.matchLimit(ctx, false) })
}

// watch checks a session until ctx ends, or until the connection is closed for good, when it returns true.
func (v *supervisor) watch(ctx context.Context, s *session) (again bool) {
	tick := time.NewTicker(v.opt.ProbeInterval)
	defer tick.Stop()
	for {
		select {
		case <-s.closed:
			return true
		case <-s.woken:
			v.check(ctx, s)
		case <-tick.C:
			v.checks++
			v.probe(s)
			v.interrupted = v.watchRoutes() || v.interrupted
			v.check(ctx, s)
		case <-ctx.Done():
			return false
		}
	}
}

// checkEvery is the number of intervals from one check of the stream to the next.
const checkEvery = 5

// check determines the health of a session and notifies the handler.
func (v *supervisor) check(ctx context.Context, s *session) {
	if disconnects := s.disconnects.Load(); disconnects != v.disconnects {
		v.disconnects, v.interrupted, v.unanswered = disconnects, true, 0
		s.refused.Store(nil)
	}
	if !s.conn.IsConnected() {
		v.interrupted = true
		v.health(fmt.Errorf("%w: %w", broker.ErrUnavailable, s.lastError()))
		return
	}
	if s.recreated.Swap(false) {
		v.interrupted = true
	}
	if v.interrupted || v.suspects(s) || v.checks%checkEvery == 0 {
		if v.streamFault = v.checkStream(ctx, s); v.streamFault != nil {
			v.checks = checkEvery - 1 // so that the next interval checks again
		}
	}
	if v.streamFault != nil {
		v.health(fmt.Errorf("%w: %w", broker.ErrUnavailable, v.streamFault))
		return
	}
	if refused := s.refused.Load(); refused != nil {
		v.health(fmt.Errorf("%w: natsbroker: subscription refused: %w", broker.ErrUnavailable, *refused))
		return
	}
	if v.unanswered >= maxUnanswered {
		v.interrupted = true
		v.health(fmt.Errorf("%w: natsbroker: does not receive its own messages", broker.ErrUnavailable))
		return
	}
	if v.interrupted {
		v.interrupted = false
		v.handler.Interrupted()
	}
	v.health(nil)
}

// suspects reports whether an operation was refused, at most once per interval.
func (v *supervisor) suspects(s *session) bool {
	if time.Now().Before(v.nextSuspect) || !s.suspect.Swap(false) {
		return false
	}
	v.nextSuspect = time.Now().Add(v.opt.ProbeInterval)
	return true
}

// leadership identifies a term of office of the stream's leader. The leader alone republishes: if it fails, messages
// that it has not republished yet are stored all the same.
type leadership struct {
	server string
	since  int64 // in nanoseconds since 1970, by the server's clock, 0 while unknown
}

// follows reports whether there was another term of office before. The answer to the creation of a stream names no
// leader yet.
func (l leadership) follows(before leadership) bool {
	return before.server != "" && (l.server != before.server || before.since != 0 && l.since != before.since)
}

// leadershipOf returns the leadership in the state of a stream. Without a cluster it is always the same.
func leadershipOf(info *jetstream.StreamInfo) (l leadership) {
	if info.Cluster != nil {
		l.server = info.Cluster.Leader
		if info.Cluster.LeaderSince != nil {
			l.since = info.Cluster.LeaderSince.UnixNano()
		}
	}
	return l
}

// awaitStream finds the stream and raises its limits. While the stream has no leader, the server does not respond, and
// publications fail. Once one has failed, it waits for no longer than a ProbeInterval, so that the node is soon
// unhealthy.
func (v *supervisor) awaitStream(ctx context.Context, s *session) (*jetstream.StreamInfo, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-s.leaderless:
		case <-ctx.Done():
			return
		}
		select {
		case <-time.After(v.opt.ProbeInterval):
			cancel(errNoAnswer)
		case <-ctx.Done():
		}
	}()
	info, err := v.streamManager.findStream(ctx, s.conn)
	if err == nil {
		info, err = v.enlargeStream(ctx, s, info)
	}
	if err == nil {
		select {
		case <-s.leaderless: // failed before the stream responded, which is no sign for the next check
		default:
		}
	}
	if err != nil && errors.Is(context.Cause(ctx), errNoAnswer) {
		err = fmt.Errorf("natsbroker: stream %s: %w: it has no leader, or JetStream is disabled", v.opt.Stream, errNoAnswer)
	}
	return info, err
}

// checkStream creates the stream again if it is gone, and tries whether it stores messages. Messages may have been lost
// if it was created again, by this node or another one, if it has returned without its newest messages, or if it has
// another leader.
func (v *supervisor) checkStream(ctx context.Context, s *session) error {
	seen := s.epochs.sighting()
	info, err := v.awaitStream(ctx, s)
	if err != nil {
		v.interrupted = true
		return err
	}
	s.compareClocks(info.TimeStamp)
	s.noteSettings(info)
	if now := leadershipOf(info); now.server != "" {
		if now.follows(v.leader) {
			v.interrupted = true
			seen.disconnected() // a leader that lacked messages may have stored others in their place
		}
		v.leader = now
	}
	if !info.Created.Equal(v.created) {
		v.created, v.interrupted = info.Created, true
		s.epochs.invalidate()
	}
	ctx, cancel := context.WithTimeout(ctx, v.opt.CallTimeout)
	defer cancel()
	e, err := s.loadEpoch(ctx)
	if err == nil && !e.suits(info, true) {
		err = s.matchLimit(ctx, true)
	}
	if err == nil {
		s.epochs.era.Load().created.Store(info.Created.UnixNano())
		err = s.verify(ctx, seen, info.State.LastSeq)
	}
	if err != nil {
		v.interrupted = true
		return fmt.Errorf("natsbroker: read the stream: %w", err)
	}
	if s.recreated.Swap(false) {
		v.interrupted = true
	}
	if s.forbidden.Swap(false) {
		if err := s.checkPermissions(ctx, s.markRefusals()); err != nil {
			s.forbidden.Store(true)
			return err
		}
	}
	if err := v.tryStore(ctx, s, info.Config.MaxMsgSize); err != nil {
		return fmt.Errorf("natsbroker: store in stream %s: %w", v.opt.Stream, err)
	}
	return nil
}

// fullProbeBytes is the size of the message that is stored to try whether a full stream has room again.
const fullProbeBytes = 64 << 10

// tryStore stores a message in place of the one before, and returns why messages cannot be stored, or nil. maxMessage
// is the size of the largest message that the stream accepts, if it is positive.
func (v *supervisor) tryStore(ctx context.Context, s *session, maxMessage int32) error {
	probe := &nats.Msg{Subject: storeProbeSubject, Header: nats.Header{rollupHeader: {rollupSubject}}}
	if v.storage.Full() {
		size := min(fullProbeBytes, s.conn.MaxPayload()/2)
		if maxMessage > 0 {
			size = min(size, int64(maxMessage)/2)
		}
		probe.Data = make([]byte, size)
	}
	_, err := s.publish(ctx, probe)
	if err != nil && !isFull(err) {
		return err
	}
	if refused := s.full.Swap(nil); err == nil && refused != nil {
		err = *refused
	}
	return v.storage.Probe(err, false)
}

// maxUnanswered is the number of intervals without a loopback probe after which a session is unhealthy.
const maxUnanswered = 3

// probe checks whether loopback probes come back and sends the next one.
func (v *supervisor) probe(s *session) {
	answered := s.lastProbe.Load()
	if v.unanswered++; answered != v.answered || !s.conn.IsConnected() {
		v.answered, v.unanswered = answered, 0
	}
	v.sent++
	// An error means that the connection is being lost, which check notices.
	_ = s.conn.Publish(s.probe, strconv.AppendUint(nil, v.sent, 10))
}
