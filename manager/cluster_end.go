package manager

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// endGrace is how long close waits for goroutines at least, even if closing the connections took all the time.
const endGrace = 20 * time.Millisecond

// close takes leave of the other nodes and ends all goroutines. It blocks until then, at most until ctx ends; calls of the
// broker end shortly before. The error names the parts that have not ended, because the broker ignores its context: they
// end when it does.
func (c *cluster) close(ctx context.Context) error {
	if ctx.Err() != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), endGrace)
		defer cancel()
	}
	patience, cancel := withMargin(ctx)
	defer cancel()
	var unsent error
	if c.outgoing != nil {
		unsent = c.closeOutgoing(ctx, patience)
	}
	c.stopPeers()
	defer context.AfterFunc(patience, c.hurryPeers)()
	left := awaitEnds(ctx, ending("the node has not left the others", c.peering.Wait))
	c.hurryPeers() // its context has to end in any case
	c.stopBroker()
	stopped := awaitEnds(ctx,
		ending("Options.Broker: Run has not returned", c.running.Wait),
		ending("Options.Broker: Subscribe or Unsubscribe has not returned", c.interest.Close),
		ending("Options.Broker: History or Newest has not returned", c.catching.Close),
		ending("Options.Broker: Positions has not returned", c.comparing.Close),
		ending("the received messages have not been delivered", c.intake.Close))
	return errors.Join(unsent, left, stopped)
}

// closeOutgoing sends the states that wait until patience ends, and returns at the latest when ctx ends.
func (c *cluster) closeOutgoing(ctx, patience context.Context) error {
	closed := make(chan error, 1)
	go func() { closed <- c.outgoing.Close(patience) }()
	select {
	case err := <-closed:
		return err
	case <-ctx.Done():
		return fmt.Errorf("manager: Options.Broker: Store has not returned in time: %w", ctx.Err())
	}
}

// part is a part of the cluster that is ending.
type part struct {
	late string // the error if it is late
	done chan struct{}
}

// ending returns a part that has ended when a call returns.
func ending(late string, wait func()) part {
	p := part{late, make(chan struct{})}
	go func() {
		defer close(p.done)
		wait()
	}()
	return p
}

// awaitEnds waits for parts to end, at most until ctx ends, and returns an error that names the late ones.
func awaitEnds(ctx context.Context, parts ...part) error {
	var late []error
	for _, p := range parts {
		select {
		case <-p.done:
			continue
		case <-ctx.Done():
		}
		select {
		case <-p.done:
		default:
			late = append(late, fmt.Errorf("manager: %s in time: %w", p.late, ctx.Err()))
		}
	}
	return errors.Join(late...)
}
