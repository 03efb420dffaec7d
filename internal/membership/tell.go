package membership

import (
	"context"
	"fmt"
)

// send publishes a question with a number, which checkOutgoing has accepted, for all other nodes. It blocks on the
// engine, at most until ctx ends, and returns when the engine has accepted the question. On failure the error wraps
// broker.ErrUnavailable.
func (p *Membership) send(ctx context.Context, kind string, n uint64, body []byte) error {
	h := p.header(typeAsk)
	h.Kind, h.N = kind, n
	if err := p.cfg.Broker.Publish(ctx, AllChannel, encode(h, body)); err != nil {
		return unavailable("ask "+kind, err)
	}
	return nil
}

// checkOutgoing returns an error for a kind or a body that no message can have.
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
