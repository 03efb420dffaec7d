package redisbroker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// request is a wish to have channels subscribed to, or no more.
type request struct {
	channels  []string
	subscribe bool
	force     bool       // unsubscribe from channels that are not held, too
	done      chan error // receives the result; buffered, so that nobody has to read it
}

// errDeaf is why a connection is given up that looks well.
var errDeaf = errors.New("messages to ourselves do not come back")

// subscribe returns when the channels are subscribed to. After an error none of them is.
func (s *shard) subscribe(ctx context.Context, channels []string) error {
	return s.ask(ctx, &request{channels: channels, subscribe: true, done: make(chan error, 1)})
}

// unsubscribe takes subscribe back. While the server is out of reach there is nothing to wait for.
func (s *shard) unsubscribe(ctx context.Context, channels []string) error {
	return s.ask(ctx, &request{channels: channels, done: make(chan error, 1)})
}

func (s *shard) ask(ctx context.Context, r *request) error {
	if err := s.enqueue(r); err != nil {
		return err
	}
	select {
	case err := <-r.done:
		return err
	case <-ctx.Done():
	}
	if r.subscribe {
		// In any case, this comes afterwards.
		_ = s.enqueue(&request{channels: r.channels, done: make(chan error, 1)})
	}
	return ended(ctx, s.addr)
}

// enqueue lets a request wait for its turn. While the shard is not open, one to subscribe fails, and one to
// unsubscribe is carried out at once.
func (s *shard) enqueue(r *request) error {
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
		return s.wrong
	default:
		s.release(r)
	}
	return nil
}

// release carries out a request to unsubscribe as far as it is ours to do. It is called under mu.
func (s *shard) release(r *request) {
	for _, channel := range r.channels {
		delete(s.held, channel)
	}
	r.done <- nil
}

// close fails waiting requests, and new ones until the shard is open again.
func (s *shard) close(why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open = false
	s.wrong = why
	for _, r := range s.waiting {
		if r.subscribe {
			r.done <- why
		} else {
			s.release(r)
		}
	}
	s.waiting = nil
}

// attend works off requests and probes the connection, until it fails.
func (s *shard) attend(ctx context.Context, e *ears) error {
	probe := time.NewTicker(s.broker.opt.ProbeInterval)
	defer probe.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-e.lost:
			if err == nil {
				err = errors.New("the connection for subscriptions has ended")
			}
			return err
		case <-s.wake:
			if err := s.work(ctx, e); err != nil {
				return err
			}
		case <-probe.C:
			if err := s.probe(ctx, e); err != nil {
				return err
			}
		}
	}
}

// work carries out all requests that wait, in their order: neighbours of a kind in one go, so that the more wait the
// fewer commands each of them costs. The error is one of the connection.
func (s *shard) work(ctx context.Context, e *ears) error {
	s.mu.Lock()
	waiting := s.waiting
	s.waiting = nil
	s.mu.Unlock()
	for len(waiting) > 0 {
		alike := 1
		for alike < len(waiting) && waiting[alike].subscribe == waiting[0].subscribe {
			alike++
		}
		act := s.drop
		if waiting[0].subscribe {
			act = s.take
		}
		err := act(ctx, e, waiting[:alike])
		waiting = waiting[alike:]
		if err != nil {
			s.abandon(waiting, err)
			return err
		}
	}
	return nil
}

// abandon fails requests whose turn has not come before the connection failed.
func (s *shard) abandon(waiting []*request, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range waiting {
		if r.subscribe {
			r.done <- unavailable(s.addr + ": " + said(err))
		} else {
			s.release(r)
		}
	}
}

// take carries out requests to subscribe.
func (s *shard) take(ctx context.Context, e *ears, requests []*request) error {
	known := s.hold(requests)
	fresh := slices.Collect(maps.Keys(known))
	refusals, err := s.subscribeEach(ctx, e, fresh)
	if err != nil {
		s.letGo(fresh)
		s.abandon(requests, err)
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
	err = s.leave(ctx, e, s.letGo(slices.Collect(maps.Keys(known))))
	for i, r := range requests {
		r.done <- explain(ctx, s.addr, outcome[i])
	}
	if len(refusals) > 0 {
		s.changed()
	}
	return err
}

// hold records the channels of requests to subscribe, and returns the channels that were not held before. They are held
// from now on, not from their confirmation: a cluster may move one before that has come.
func (s *shard) hold(requests []*request) map[string]struct{} {
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

// firstRefusal returns why the first of the channels that was refused was.
func firstRefusal(refusals map[string]error, channels []string) error {
	for _, channel := range channels {
		if err := refusals[channel]; err != nil {
			return err
		}
	}
	return nil
}

// drop carries out requests to unsubscribe.
func (s *shard) drop(ctx context.Context, e *ears, requests []*request) error {
	var channels []string
	for _, r := range requests {
		if let := s.letGo(r.channels); r.force {
			channels = append(channels, r.channels...)
		} else {
			channels = append(channels, let...)
		}
	}
	err := s.leave(ctx, e, channels)
	for _, r := range requests {
		r.done <- nil // when the connection has failed, so have its subscriptions
	}
	return err
}

// leave ends the subscriptions to channels.
func (s *shard) leave(ctx context.Context, e *ears, channels []string) error {
	if err := e.unsubscribe(ctx, channels); kind(err) == "" {
		return err
	}
	return nil // a node that says no has nothing subscribed
}

// letGo removes channels from the held ones and returns the removed ones.
func (s *shard) letGo(channels []string) []string {
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

// subscribeEach subscribes to channels, all at once if the server lets us. Else each alone, so that one that is
// refused does not stand in the way of others; it returns why. The error is one of the connection.
func (s *shard) subscribeEach(ctx context.Context, e *ears, channels []string) (map[string]error, error) {
	if len(channels) == 0 {
		return nil, nil
	}
	err := e.subscribe(ctx, channels)
	if err == nil || kind(err) == "" {
		return nil, err
	}
	refusals := make(map[string]error)
	for _, channel := range channels {
		switch err := e.subscribe(ctx, []string{channel}); {
		case err == nil:
		case kind(err) == "":
			return nil, err
		default:
			refusals[channel] = err
		}
	}
	return refusals, nil
}

// missable is how many messages to ourselves in a row have not to come back before a connection is given up.
const missable = 3

// probe sends a message to ourselves, and looks whether those before it have come back and the server is still
// the master that it was.
func (s *shard) probe(ctx context.Context, e *ears) error {
	interval := s.broker.opt.ProbeInterval
	if missing := e.sent - e.heard.Load(); missing >= missable {
		return fmt.Errorf("%w: the last %d are missing", errDeaf, missing)
	}
	e.sent++
	l := s.line.Load()
	if l == nil {
		return errors.New("the connection for commands has ended")
	}
	ctx, cancel := context.WithTimeout(ctx, interval)
	defer cancel()
	results := l.client.DoMulti(ctx,
		l.client.B().Publish().Channel(e.probe).Message("").Build(),
		l.client.B().Info().Section("replication").Build(),
		l.send(storeScript, s.storeProbe(e), nil))
	switch stored := results[2].Error(); {
	case kind(stored) == "OOM":
		s.setFull(explain(ctx, s.addr, stored))
	case stored == nil:
		s.setFull(nil)
	}
	info, err := results[1].ToString()
	if e.mute = err != nil; e.mute {
		return nil // the silence will show
	}
	if infoField(info, "role") != "master" {
		return errors.New("the server is a replica now, which takes no messages")
	}
	if infoField(info, "master_replid") != l.term {
		return s.renew(ctx, l)
	}
	return nil
}
