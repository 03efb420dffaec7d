package membership

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
)

// Run participates in the cluster until ctx ends: it subscribes, retrying while the engine is unreachable, sends a
// hello each interval, and a bye at the end. It returns with no goroutine left, at the latest one interval after ctx
// has ended, or when leaving ends after that, provided that Answer returns. The broker should run until then.
func (p *Membership) Run(ctx, leaving context.Context) {
	p.setRunning(true)
	var working sync.WaitGroup
	for range answerers {
		working.Go(func() { p.questions.each(ctx, p.answer) })
	}
	if p.join(ctx) {
		p.announceUntil(ctx)
		p.leave(leaving)
	}
	p.setRunning(false)
	working.Wait()
}

func (p *Membership) setRunning(running bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running = running
	if !running {
		clear(p.roster.nodes)
	}
}

// failuresToWarn is how many attempts to join may fail before that is logged: the first come before the broker has
// connected, or before the servers of a cluster have found each other.
const failuresToWarn = 30

// join subscribes to the channels and reports whether that succeeded before ctx ended. It tries again each interval,
// and as soon as Connected is called.
func (p *Membership) join(ctx context.Context) bool {
	again := time.NewTicker(p.cfg.Interval)
	defer again.Stop()
	for failures := 1; ; failures++ {
		err := p.cfg.Broker.Subscribe(ctx, AllChannel, p.inbox)
		if err == nil {
			p.log.Debug("membership: joined", slog.String("node", p.cfg.Name))
			return true
		}
		if failures == failuresToWarn && ctx.Err() == nil {
			p.log.Warn("membership: cannot join the other nodes, retrying", slog.Any("error", err))
		}
		select {
		case <-ctx.Done():
			return false
		case <-again.C:
		case <-p.connected:
		}
	}
}

// Connected tells the membership that the broker has connected, so that it joins the other nodes at once, or tells them
// that it is back. It does not block.
func (p *Membership) Connected() {
	select {
	case p.connected <- struct{}{}:
	default:
	}
}

// Ready returns nil if this node takes part in the cluster: its own hellos come back, so it receives commands of other
// nodes, and the nodes that were there have received its hello as well. Otherwise the error names the reason, and the
// remedy if there is one.
func (p *Membership) Ready() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	clashes := p.clashesLocked()
	switch {
	case !p.running || p.echoed == 0:
		return errors.New("this node has not joined the others yet")
	case p.sent-p.echoed >= silentBeats:
		return fmt.Errorf("the last %d hellos of this node to the others have not come back", p.sent-p.echoed)
	case len(clashes) > 0:
		return fmt.Errorf("several nodes have the name %s: give each node a name of its own (Options.NodeName, --node-name)",
			strings.Join(clashes, ", "))
	}
	if names := p.roster.different(); len(names) > 0 {
		return fmt.Errorf("other message classes than here are configured on %s: give all nodes the same "+
			"(Options.Classes, --class)", strings.Join(names, ", "))
	}
	return nil
}

// clashesLocked returns the sorted names that several running processes use.
func (p *Membership) clashesLocked() []string {
	names := p.roster.clashes()
	if p.clashed > 0 && p.roster.beats-(p.clashed-1) < silentBeats {
		names = append(names, p.cfg.Name)
	}
	slices.Sort(names)
	return names
}

// announceUntil sends a hello at once and then each interval, and runs tasks in between, until ctx ends.
func (p *Membership) announceUntil(ctx context.Context) {
	beat := time.NewTicker(p.cfg.Interval)
	defer beat.Stop()
	p.hello(ctx)
	for {
		select {
		case <-ctx.Done():
			return
		case <-beat.C:
			p.hello(ctx)
		case <-p.connected: // the nodes that lost this one learn at once that it is back
			p.hello(ctx)
		case task := <-p.tasks:
			task(ctx)
		}
	}
}

// leave sends a bye and unsubscribes. If the engine does not answer, that may take an interval, at most until ctx ends.
func (p *Membership) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.Interval)
	defer cancel()
	p.publish(ctx, AllChannel, p.header(typeBye))
	if err := p.cfg.Broker.Unsubscribe(ctx, AllChannel, p.inbox); err != nil {
		p.log.Debug("membership: unsubscribe failed", slog.Any("error", err))
	}
}

func (p *Membership) hello(ctx context.Context) {
	p.mu.Lock()
	p.sent++
	h := p.header(typeHello)
	h.N = p.sent
	p.mu.Unlock()
	h.Announced = p.cfg.Announce()
	p.publish(ctx, AllChannel, h)
}

// publish publishes a message without a body. A failure is not retried, because the next hello replaces the message.
func (p *Membership) publish(ctx context.Context, channel string, h header) {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.Interval)
	defer cancel()
	if err := p.cfg.Broker.Publish(ctx, channel, encode(h, nil)); err != nil {
		p.log.Debug("membership: publish failed", slog.String("type", h.Type), slog.Any("error", err))
	}
}
