package membership

import (
	"context"
	"fmt"
)

// Tell sends a command to all other nodes. kind has the syntax of a node's name, body at most MaxBodyBytes. It blocks
// on the engine, at most until ctx ends, and returns when the engine has accepted the command; a node that is not
// connected at that moment never receives it. On failure the error wraps broker.ErrUnavailable.
func (p *Membership) Tell(ctx context.Context, kind string, body []byte) error {
	if err := checkOutgoing(kind, body); err != nil {
		return err
	}
	h := p.header(typeTell)
	h.Kind = kind
	if err := p.cfg.Broker.Publish(ctx, AllChannel, encode(h, body)); err != nil {
		return unavailable("tell "+kind, err)
	}
	return nil
}

func checkOutgoing(kind string, body []byte) error {
	if !validName(kind) {
		return fmt.Errorf("membership: kind is %.200q, want 1 to %d letters, digits, or characters of \"-_.:\"",
			kind, maxNameBytes)
	}
	if len(body) > MaxBodyBytes {
		return fmt.Errorf("membership: body of %s has %d bytes, at most %d are allowed", kind, len(body), MaxBodyBytes)
	}
	return nil
}

func (p *Membership) told(_ context.Context, j job) { p.cfg.Told(j.Kind, j.body) }
