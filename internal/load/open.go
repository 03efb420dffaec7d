package load

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"
)

// progressTimeout is the longest time without a client becoming ready while some have been dialled.
const progressTimeout = 30 * time.Second

// errNoProgress is the error of Open if the server does not answer.
var errNoProgress = fmt.Errorf("no client has become ready for %v", progressTimeout)

// engine does the I/O of a fleet: it connects the clients, passes received bytes to them and sends the bytes that they
// write. It calls the methods of a client from one goroutine at a time.
type engine interface {
	// dial begins to connect a client, which reports the result to its fleet. It does not block.
	dial(c *client)
	// close closes all connections and waits for all goroutines.
	close()
}

// OpenError is the error of Open if clients did not become ready.
type OpenError struct {
	Ready, Failed, Connections int
	// Err is the first failure, or the error of the context.
	Err error
}

func (e *OpenError) Error() string {
	return fmt.Sprintf("load: %d of %d clients became ready, %d failed: %v", e.Ready, e.Connections, e.Failed, e.Err)
}

// Unwrap returns Err.
func (e *OpenError) Unwrap() error { return e.Err }

// Open connects the clients and blocks until all are ready. If one fails, if ctx ends, or if no dialled client becomes
// ready for 30 seconds, it closes all connections and returns an *OpenError. Other errors name invalid options, an
// address that cannot be resolved, or a limit of open files that is too low.
func Open(ctx context.Context, o Options) (*Fleet, error) {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return nil, err
	}
	if err := checkFileLimit(o.Connections); err != nil {
		return nil, err
	}
	f := newFleet(o)
	var err error
	if f.engine, err = newEngine(ctx, f); err != nil {
		return nil, err
	}
	if err := f.open(ctx); err != nil {
		f.Close()
		s := f.snapshot()
		return nil, &OpenError{s.ready, s.failed, o.Connections, err}
	}
	return f, nil
}

// open dials the clients according to DialRate and DialParallel, until all are ready.
func (f *Fleet) open(ctx context.Context) error {
	begun := time.Now()
	moved := begun // time of the last progress: a client became ready, or the only unready one was dialled
	timer := time.NewTimer(progressTimeout)
	defer timer.Stop()
	for dialled, ready := 0, 0; ; {
		s := f.snapshot()
		now := time.Now()
		if s.ready != ready || dialled == ready {
			ready, moved = s.ready, now
		}
		underWay := dialled - ready
		switch {
		case s.first != nil:
			return s.first
		case ready == len(f.clients):
			return nil
		case underWay > 0 && now.Sub(moved) >= progressTimeout:
			return errNoProgress
		}
		next := moved.Add(progressTimeout)
		if dialled < len(f.clients) && underWay < f.opt.DialParallel {
			planned := begun.Add(f.opt.dialTime(dialled))
			if !planned.After(now) {
				f.clients[dialled].began = now
				f.engine.dial(&f.clients[dialled])
				dialled++
				continue
			}
			if underWay == 0 || planned.Before(next) {
				next = planned
			}
		}
		timer.Reset(next.Sub(now))
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-f.changed:
		case <-timer.C:
		}
	}
}

// dialTime returns the time between the dials of the first client and client i.
func (o *Options) dialTime(i int) time.Duration {
	if o.DialRate == 0 {
		return 0
	}
	return time.Duration(float64(i) / o.DialRate * float64(time.Second))
}

// resolve returns the address of the server, which all clients use.
func resolve(ctx context.Context, addr string) (*net.TCPAddr, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	number, err := net.DefaultResolver.LookupPort(ctx, "tcp", port)
	if err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	found, err := net.DefaultResolver.LookupIPAddr(ctx, host)
	if err != nil {
		return nil, fmt.Errorf("load: cannot resolve the server's address: %w", err)
	}
	for _, ip := range found {
		if ip.IP.To4() != nil { // net.Dial prefers IPv4 too
			return &net.TCPAddr{IP: ip.IP, Port: number}, nil
		}
	}
	if len(found) == 0 {
		return nil, errors.New("load: the server's name has no address")
	}
	return &net.TCPAddr{IP: found[0].IP, Port: number, Zone: found[0].Zone}, nil
}
