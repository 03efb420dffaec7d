package load

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"
)

// patience is how long clients may be under way to being ready without one of them getting there.
const patience = 30 * time.Second

// errNoProgress is why Open gives up on a server that keeps silent.
var errNoProgress = fmt.Errorf("no client has become ready for %v", patience)

// engine carries a fleet's clients: it connects them, hands them what comes and sends what they write. It
// calls a client's methods from one goroutine at a time.
type engine interface {
	// dial begins to connect a client, which tells its fleet what becomes of it. It does not block.
	dial(c *client)
	// close ends all connections and waits for all goroutines.
	close()
}

// OpenError says how far the clients of a fleet that could not be opened have come.
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

// Open connects the clients, and blocks until every one of them is ready. It gives up when one has failed,
// when ctx ends, or when for 30 seconds no client that is under way has become ready; then nothing is left
// open. The error is an *OpenError, or says which options make no sense, that the address cannot be resolved,
// or that the system does not allow that many open files.
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
		s := f.current()
		return nil, &OpenError{s.ready, s.failed, o.Connections, err}
	}
	return f, nil
}

// open dials the clients at the rate and with the parallelism asked for.
func (f *Fleet) open(ctx context.Context) error {
	begun := time.Now()
	moved := begun // when a client last was dialled while none was under way, or became ready
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for dialled, ready := 0, 0; ; {
		s := f.current()
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
		case underWay > 0 && now.Sub(moved) >= patience:
			return errNoProgress
		}
		next := moved.Add(patience)
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

// dialTime is when client i begins to connect, after the first.
func (o *Options) dialTime(i int) time.Duration {
	if o.DialRate == 0 {
		return 0
	}
	return time.Duration(float64(i) / o.DialRate * float64(time.Second))
}

// resolve finds the address to connect to, once for all clients.
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
		if ip.IP.To4() != nil { // as net.Dial, which prefers it
			return &net.TCPAddr{IP: ip.IP, Port: number}, nil
		}
	}
	if len(found) == 0 {
		return nil, errors.New("load: the server's name has no address")
	}
	return &net.TCPAddr{IP: found[0].IP, Port: number, Zone: found[0].Zone}, nil
}
