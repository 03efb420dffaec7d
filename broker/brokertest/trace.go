package brokertest

import (
	"context"

	"github.com/shoal-go/shoal/broker"
)

// traceTravels: a trace context reaches all nodes with its own message and no other, and changes neither payload nor
// position. One of another length is left out.
func traceTravels(s *trial) {
	const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	a, b := s.join(), s.join()
	c := s.channel("c")
	s.subscribe(a, c)
	s.subscribe(b, c)
	want := map[string]string{"before": "", "traced": trace, "between": "", "too long": "", "last": ""}
	at := map[string]broker.Position{"before": s.store(a, c, "before")}
	at["traced"] = s.storeTraced(a, c, "traced", trace)
	at["between"] = s.store(b, c, "between")
	at["too long"] = s.storeTraced(b, c, "too long", trace+"-x")
	if a.keyed() != nil {
		want["once"] = trace
		s.call("StoreOnce", func(ctx context.Context) (err error) {
			ctx = broker.WithTrace(ctx, trace)
			at["once"], _, err = a.keyed().StoreOnce(ctx, c, []byte("once"), broker.Once{Key: "key", Digest: "once"})
			return err
		})
	}
	at["last"] = s.store(b, c, "last")
	for _, n := range []*node{a, b} {
		s.awaitCount(n, c, len(want))
		n.look(func() {
			for _, m := range n.messages(c) {
				payload := string(m.Payload)
				if expected, known := want[payload]; !known || m.Trace != expected {
					s.Errorf("%q came with the trace context %q, want %q", payload, m.Trace, expected)
				}
				if m.Offset != at[payload].Offset {
					s.Errorf("%q came at offset %d, want %d", payload, m.Offset, at[payload].Offset)
				}
			}
		})
	}
	for _, m := range s.kept(a, c).Messages {
		if _, known := want[string(m.Payload)]; !known {
			s.Errorf("%q is stored, which nobody published", m.Payload)
		}
	}
}

// storeTraced is store with a trace context.
func (s *trial) storeTraced(n *node, channel, payload, trace string) (pos broker.Position) {
	s.Helper()
	s.call("Store", func(ctx context.Context) (err error) {
		pos, err = n.Store(broker.WithTrace(ctx, trace), channel, []byte(payload))
		return err
	})
	return pos
}
