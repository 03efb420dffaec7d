package sim

import (
	"math/rand/v2"
	"slices"
	"time"
)

// Draw returns the history of a seed.
func Draw(seed uint64) History {
	random := rand.New(rand.NewPCG(seed, 1)) // reproducible on purpose
	h := History{Seed: seed, Config: drawConfig(random)}
	h.Config.Skewed = seed%3 == 0
	kinds, next := weights(h.Config), followUps(h.Config)
	for n := 30 + random.IntN(50); len(h.Ops) < n; {
		op := drawOp(random, h.Config, kinds)
		h.Ops = append(h.Ops, op)
		if !op.asks() || random.IntN(2) == 0 {
			continue
		}
		for range 1 + random.IntN(3) {
			h.Ops = append(h.Ops, drawFollowUp(random, h.Config, next, op))
		}
		h.Ops[len(h.Ops)-1].AtOnce = false
	}
	for i := range h.Ops {
		h.kept = append(h.kept, i)
	}
	return h
}

// asks reports whether a client asks the server for something that it answers.
func (o Op) asks() bool {
	return slices.Contains([]Kind{arrive, resume, again, subscribe, since, unsubscribe, renew}, o.Kind)
}

// drawFollowUp draws the client's next operation, mostly before the answer comes: it often concerns the
// same upload.
func drawFollowUp(random *rand.Rand, c Config, kinds []Kind, previous Op) Op {
	op := drawOp(random, c, kinds)
	op.AtOnce = random.IntN(4) > 0
	if op.asks() {
		op.Client = previous.Client
	}
	if random.IntN(3) > 0 {
		op.Upload = previous.Upload
	}
	return op
}

// followUps are how often each kind follows a question of a client.
func followUps(c Config) []Kind {
	kinds := []Kind{subscribe, subscribe, since, since, unsubscribe, unsubscribe, unsubscribe, again, publish, publish}
	if c.Claims {
		kinds = append(kinds, renew, renew)
	}
	return kinds
}

func drawConfig(random *rand.Rand) Config {
	c := Config{Nodes: 1 + random.IntN(3), History: 64, TLS: random.IntN(10) == 0, Claims: random.IntN(3) == 0}
	c.Broker = c.Nodes > 1 || random.IntN(2) == 0
	c.Stored = c.Broker && random.IntN(5) > 0
	c.Bare = c.Stored && random.IntN(3) == 0
	if random.IntN(4) == 0 {
		c.History = 8
	}
	if random.IntN(3) == 0 {
		c.Queue = 16
	}
	if random.IntN(3) == 0 {
		c.Recovery = 500
	}
	c.Refuses = c.Stored && random.IntN(4) == 0
	if !c.Broker && random.IntN(3) == 0 {
		c.TTL = 10 * time.Second
	}
	return c
}

// weights are how often each kind is drawn.
func weights(c Config) (kinds []Kind) {
	add := func(n int, all ...Kind) {
		for range n {
			kinds = append(kinds, all...)
		}
	}
	add(30, publish)
	add(12, arrive)
	add(8, subscribe)
	add(3, resume, since, unsubscribe, wait)
	add(2, leave, reset, stall, dawdle, settle)
	add(1, again, embed, forget, kick, panics, crash, drain)
	if c.Claims {
		add(5, renew)
	} else {
		add(1, renew, doubt)
	}
	if c.positions() {
		add(2, once)
	}
	if c.Broker {
		add(2, partition, late, mute)
		add(1, restart)
	}
	if c.Stored {
		add(2, lose)
		add(1, step, refuse)
	}
	return kinds
}

func drawOp(random *rand.Rand, c Config, kinds []Kind) Op {
	op := Op{
		Kind: kinds[random.IntN(len(kinds))], Node: random.IntN(c.Nodes), Client: random.IntN(clients),
		Upload: random.IntN(Uploads), Class: class(random.IntN(3)), N: 1 + random.IntN(4), //nolint:gosec // small
		For:    time.Duration(random.IntN(4000)) * time.Millisecond,
		AtOnce: random.IntN(4) == 0, seed: random.Uint64(),
	}
	switch {
	case op.Kind == publish && random.IntN(6) == 0:
		op.N = max(c.History, c.Queue) + 8 // more than the history and a small queue hold
	case random.IntN(10) == 0:
		op.For *= 10
	}
	return op
}
