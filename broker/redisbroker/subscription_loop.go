package redisbroker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// request asks for channels to be subscribed to or unsubscribed from.
type request struct {
	channels  []string
	subscribe bool
	force     bool       // unsubscribe from channels that are not held, too
	done      chan error // receives the result; buffered, so it need not be read
}

// errNoEcho is the reason to close a pub/sub connection that no longer delivers.
var errNoEcho = errors.New("messages to ourselves do not come back")

// subscribe returns when the channels are subscribed to. After an error none of them is.
func (s *server) subscribe(ctx context.Context, channels []string) error {
	return s.submit(ctx, &request{channels: channels, subscribe: true, done: make(chan error, 1)})
}

// unsubscribe ends subscriptions. It does not wait while the server is unreachable.
func (s *server) unsubscribe(ctx context.Context, channels []string) error {
	return s.submit(ctx, &request{channels: channels, done: make(chan error, 1)})
}

// submit enqueues a request and waits for its result or the end of ctx.
func (s *server) submit(ctx context.Context, r *request) error {
	if err := s.enqueue(r); err != nil {
		return err
	}
	select {
	case err := <-r.done:
		return err
	case <-ctx.Done():
	}
	if r.subscribe {
		// Requests are processed in order, so this one undoes the other.
		_ = s.enqueue(&request{channels: r.channels, done: make(chan error, 1)})
	}
	return contextError(ctx, s.addr)
}

// enqueue appends a request to the queue. While the server is not open, a request to subscribe fails, and one to
// unsubscribe succeeds at once.
func (s *server) enqueue(r *request) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.open:
		s.waiting = append(s.waiting, r)
		select {
		case s.wake <- struct{}{}:
		default:
		}
	case r.subscribe:
		return s.fault
	default:
		s.release(r)
	}
	return nil
}

// release completes a request to unsubscribe without the server. It is called with mu held.
func (s *server) release(r *request) {
	for _, channel := range r.channels {
		delete(s.held, channel)
	}
	r.done <- nil
}

// close fails waiting requests, and new ones until the server is open again.
func (s *server) close(why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open = false
	s.fault = why
	for _, r := range s.waiting {
		if r.subscribe {
			r.done <- why
		} else {
			s.release(r)
		}
	}
	s.waiting = nil
}

// serve processes requests and probes the connection until it fails.
func (s *server) serve(ctx context.Context, p *pubsub) error {
	probe := time.NewTicker(s.broker.opt.ProbeInterval)
	defer probe.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-p.lost:
			if err == nil {
				err = errors.New("the connection for subscriptions has ended")
			}
			return err
		case <-s.wake:
			if err := s.process(ctx, p); err != nil {
				return err
			}
		case <-probe.C:
			if err := s.probe(ctx, p); err != nil {
				return err
			}
		}
	}
}

// process carries out all queued requests in order. Adjacent requests of a kind are batched. It returns errors of the
// connection.
func (s *server) process(ctx context.Context, p *pubsub) error {
	s.mu.Lock()
	waiting := s.waiting
	s.waiting = nil
	s.mu.Unlock()
	for len(waiting) > 0 {
		alike := 1
		for alike < len(waiting) && waiting[alike].subscribe == waiting[0].subscribe {
			alike++
		}
		act := s.processUnsubscribes
		if waiting[0].subscribe {
			act = s.processSubscribes
		}
		err := act(ctx, p, waiting[:alike])
		waiting = waiting[alike:]
		if err != nil {
			s.fail(waiting, err)
			return err
		}
	}
	return nil
}

// fail completes queued requests after the connection has failed.
func (s *server) fail(waiting []*request, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range waiting {
		if r.subscribe {
			r.done <- unavailable(s.addr + ": " + errorText(err))
		} else {
			s.release(r)
		}
	}
}

// processSubscribes carries out requests to subscribe.
func (s *server) processSubscribes(ctx context.Context, p *pubsub, requests []*request) error {
	known := s.addHeld(requests)
	fresh := slices.Collect(maps.Keys(known))
	refusals, err := s.subscribeEach(ctx, p, fresh)
	if err != nil {
		s.removeHeld(fresh)
		s.fail(requests, err)
		return err
	}
	outcome := make([]error, len(requests))
	for i, r := range requests {
		if outcome[i] = firstRefusal(refusals, r.channels); outcome[i] == nil {
			for _, channel := range r.channels {
				delete(known, channel)
			}
		}
	}
	err = s.endSubscriptions(ctx, p, s.removeHeld(slices.Collect(maps.Keys(known))))
	for i, r := range requests {
		r.done <- callError(ctx, s.addr, outcome[i])
	}
	if len(refusals) > 0 {
		s.changed()
	}
	return err
}

// addHeld records the channels of requests to subscribe, and returns the channels that were not held before. They are
// held from now on, not from their confirmation: a cluster may move one before that has come.
func (s *server) addHeld(requests []*request) map[string]struct{} {
	fresh := make(map[string]struct{})
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range requests {
		for _, channel := range r.channels {
			if _, held := s.held[channel]; !held {
				s.held[channel] = struct{}{}
				fresh[channel] = struct{}{}
			}
		}
	}
	return fresh
}

// firstRefusal returns the error of the first refused channel, or nil.
func firstRefusal(refusals map[string]error, channels []string) error {
	for _, channel := range channels {
		if err := refusals[channel]; err != nil {
			return err
		}
	}
	return nil
}

// processUnsubscribes carries out requests to unsubscribe.
func (s *server) processUnsubscribes(ctx context.Context, p *pubsub, requests []*request) error {
	var channels []string
	for _, r := range requests {
		if let := s.removeHeld(r.channels); r.force {
			channels = append(channels, r.channels...)
		} else {
			channels = append(channels, let...)
		}
	}
	err := s.endSubscriptions(ctx, p, channels)
	for _, r := range requests {
		r.done <- nil // when the connection has failed, so have its subscriptions
	}
	return err
}

// endSubscriptions ends the subscriptions to channels.
func (s *server) endSubscriptions(ctx context.Context, p *pubsub, channels []string) error {
	if err := p.unsubscribe(ctx, channels); errorCode(err) == "" {
		return err
	}
	return nil // a server that refuses has no subscriptions
}

// removeHeld removes channels from the held ones and returns the removed ones.
func (s *server) removeHeld(channels []string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var were []string
	for _, channel := range channels {
		if _, held := s.held[channel]; held {
			delete(s.held, channel)
			were = append(were, channel)
		}
	}
	return were
}

// subscribeEach subscribes to channels, with one command if the server accepts it, else one by one, so that a refused
// channel does not affect others. It returns the refusals by channel, and errors of the connection.
func (s *server) subscribeEach(ctx context.Context, p *pubsub, channels []string) (map[string]error, error) {
	if len(channels) == 0 {
		return nil, nil
	}
	err := p.subscribe(ctx, channels)
	if err == nil || errorCode(err) == "" {
		return nil, err
	}
	refusals := make(map[string]error)
	for _, channel := range channels {
		switch err := p.subscribe(ctx, []string{channel}); {
		case err == nil:
		case errorCode(err) == "":
			return nil, err
		default:
			refusals[channel] = err
		}
	}
	return refusals, nil
}

// maxMissedEchoes is the number of consecutive missing echoes that closes a connection.
const maxMissedEchoes = 3

// probe publishes a message to itself and checks that earlier ones have come back and that the server is still the same
// master.
func (s *server) probe(ctx context.Context, p *pubsub) error {
	interval := s.broker.opt.ProbeInterval
	if missing := p.sent - p.echoes.Load(); missing >= maxMissedEchoes {
		return fmt.Errorf("%w: the last %d are missing", errNoEcho, missing)
	}
	p.sent++
	l := s.conn.Load()
	if l == nil {
		return errors.New("the connection for commands has ended")
	}
	limited, cancel := context.WithTimeout(ctx, interval)
	defer cancel()
	results := l.client.DoMulti(limited,
		l.client.B().Publish().Channel(p.probe).Message("").Build(),
		l.client.B().Info().Section("replication", "memory").Build(),
		l.currentTerm(),
		l.send(storeScript, s.storeProbe(p), nil))
	info, err := results[1].ToString()
	if isPermissionError(err) { // the server responds, but does not tell what there is to check
		s.setStoreFault(s.missingPermission(err, "run info"))
		return nil
	}
	if p.unresponsive = err != nil; p.unresponsive { // if the server has stopped, missing echoes will show
		if p.unanswered++; p.unanswered >= maxMissedEchoes {
			s.setStoreFault(callError(limited, s.addr, err))
		}
		return nil
	}
	p.unanswered = 0
	if infoField(info, "role") != "master" {
		return errors.New("the server is a replica now, which takes no messages")
	}
	s.warnOfEviction(evictionPolicy(info))
	term, err := results[2].ToString()
	stored := results[3].Error()
	if err == nil && term != l.term || errorCode(stored) == noScript {
		err = s.renew(ctx, l)
	} else {
		err = nil
		s.checkStored(ctx, l, stored, info)
	}
	if now := s.conn.Load(); err == nil && now != nil && now.term != p.term {
		p.term = now.term
		s.interrupt() // another server may have been the master in between
	}
	return err
}

// checkStored records whether the server stores messages, by the error of a probe that stores one and the answer of
// INFO.
func (s *server) checkStored(ctx context.Context, l *commandConn, err error, info string) {
	switch code := errorCode(err); {
	case err == nil:
		s.setStoreFault(s.storage.Probe(s.takeRefusal(), hasRoom(info)))
	case code == outOfMemory:
		s.setStoreFault(s.storage.Probe(callError(ctx, s.addr, err), false))
	case code != "" && !hasMoved(code): // such as for want of a permission, of replicas, or of room on the disk
		fault := s.missingPermission(s.scriptError(err, s.broker.scripts(l.term)[storeScript]), "store messages")
		if !isFatal(fault) {
			fault = callError(ctx, s.addr, err)
		}
		s.setStoreFault(fault)
	}
}
