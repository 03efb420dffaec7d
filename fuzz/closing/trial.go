package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// trial is one call that ends many connections.
type trial struct {
	connections, stuck int
	secure             bool
	call               string
	within             time.Duration
	// shared: the server's process does other work, so that its goroutines and descriptors are not compared.
	shared bool
}

// result is the outcome of a trial.
type result struct {
	took    time.Duration
	problem string
	// told is the number of reading clients that got code 1012.
	told int
	// wrong are up to ten other ends of reading clients.
	wrong []error
	// before and after are the resources before the first connection and after the last one.
	before, after usage
}

// run opens the connections, lets the server's side end them and measures the resources that remain.
func (t trial) run(ctx context.Context, do func(request) (answer, error)) (r result, err error) {
	first, err := do(request{Call: callUsage})
	if err != nil {
		return r, err
	}
	started, err := do(request{Call: callStart, Secure: t.secure})
	if err != nil {
		return r, err
	}
	r.before = first.Usage
	if t.call == callDisconnect { // the server goes on
		r.before = started.Usage
	}
	clients, err := t.open(ctx, started.Address)
	if err == nil {
		err = t.end(do, clients, &r)
	}
	for _, c := range clients {
		_ = c.conn.Close()
	}
	if err != nil {
		return r, err
	}
	r.after, err = t.settled(do, r.before)
	if err == nil && t.call == callDisconnect {
		_, err = do(request{Call: callClose, Within: t.within})
	}
	return r, err
}

// end lets the server's side end the connections and waits for the end of each.
func (t trial) end(do func(request) (answer, error), clients []*client, r *result) error {
	ends := make(chan error, len(clients))
	var reading sync.WaitGroup
	for _, c := range clients[t.stuck:] {
		reading.Go(func() { ends <- c.readToEnd() })
	}
	_, err := do(request{Call: callFill, Clients: t.connections})
	called := answer{}
	if err == nil {
		called, err = do(request{Call: t.call, Within: t.within})
	}
	r.took, r.problem = called.Took, called.Problem
	for _, c := range clients { // from now on everything has to end
		_ = c.conn.SetReadDeadline(time.Now().Add(10 * closeTimeout))
	}
	reading.Wait()
	close(ends)
	for err := range ends {
		if err == nil {
			r.told++
		} else if len(r.wrong) < 10 {
			r.wrong = append(r.wrong, err)
		}
	}
	if err != nil {
		return err
	}
	for i, c := range clients[:t.stuck] {
		if err := c.drain(); err != nil {
			return fmt.Errorf("stuck client %d: %w", i, err)
		}
	}
	return nil
}

// settled waits until the server uses no more than before, and returns its usage.
func (t trial) settled(do func(request) (answer, error), before usage) (usage, error) {
	deadline := time.Now().Add(10 * closeTimeout)
	for {
		a, err := do(request{Call: callUsage})
		u := a.Usage
		if t.shared {
			u.Goroutines, u.Descriptors = before.Goroutines, before.Descriptors
		}
		if err != nil || time.Now().After(deadline) || left(before, u) == nil {
			return u, err
		}
		<-time.After(10 * time.Millisecond)
	}
}

// A server keeps some idle goroutines and the descriptors of its poller for the next connections.
const (
	spareGoroutines  = 70
	spareDescriptors = 2
)

// left returns an error that names everything that a server uses beyond its former usage.
func left(before, after usage) error {
	var problems []error
	for _, x := range []struct {
		name       string
		more, than int
	}{
		{"goroutines", after.Goroutines, before.Goroutines + spareGoroutines},
		{"descriptors", after.Descriptors, before.Descriptors + spareDescriptors},
		{"open connections", after.Open, 0},
		{"registered connections", after.Connections, 0},
		{"users", after.Users, 0},
		{"subscriptions", after.Subscriptions, 0},
	} {
		if x.more > x.than {
			problems = append(problems, fmt.Errorf("%d %s are left, want at most %d", x.more, x.name, x.than))
		}
	}
	return errors.Join(problems...)
}

// check returns the broken promises of a result.
func (r result) check(t trial) error {
	problems := append([]error{left(r.before, r.after)}, r.wrong...)
	const margin = time.Second // to cut off 10,000 connections on a busy machine
	if r.took > t.within+margin {
		problems = append(problems, fmt.Errorf("took %v", r.took))
	}
	return errors.Join(problems...)
}
