package benchmarks

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"

	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/shard"
)

// population is the number of users, and of uploads, in the benchmarks of the registry.
const population = 100_000

// sink is a connection that counts its messages.
type sink struct {
	got uint64
	_   [56]byte // no two on one cache line, as no two connections are
}

func (s *sink) Send(*manager.Frame) manager.Outcome { s.got++; return manager.Queued }

func (s *sink) Close(manager.CloseReason) {}

// registry is the part of a registry that the benchmarks use.
type registry interface {
	connect(user string, c *sink)
	subscribe(user string, c *sink, upload string)
	unsubscribe(user string, c *sink, upload string)
	lookup(upload string) (receivers int)
}

// sharded is this module's registry.
type sharded struct {
	*shard.Registry[*sink, struct{}]
}

func newSharded() sharded { return sharded{shard.New(shard.Config[*sink, struct{}]{})} }

type upload = shard.Upload[*sink, struct{}]

func (s sharded) connect(user string, c *sink) {
	_, _, _ = s.Connect(user, c, 0, nil, func(*upload) {})
}

func (s sharded) subscribe(user string, c *sink, uploadID string) {
	if err := s.SubscribeConn(user, c, uploadID, 0, func(*upload, bool) {}); err != nil {
		panic(err)
	}
}

func (s sharded) unsubscribe(user string, c *sink, uploadID string) {
	s.UnsubscribeConn(user, c, uploadID)
}

func (s sharded) lookup(uploadID string) (receivers int) {
	s.WithKnown(uploadID, func(u *upload) {
		for _, r := range u.Receivers() {
			if r.Conn != nil {
				receivers++
			}
		}
	})
	return receivers
}

// people are the ids and connections of a population, in which each user follows the upload of the same
// number.
type people struct {
	users, uploads []string
	conns          []*sink
}

func populate(r registry, n int) people {
	var p people
	for i := range n {
		p.users = append(p.users, "user-"+strconv.Itoa(i))
		p.uploads = append(p.uploads, fmt.Sprintf("0192f3a4-7c1b-7000-8000-%012d", i))
		p.conns = append(p.conns, new(sink))
		r.connect(p.users[i], p.conns[i])
		r.subscribe(p.users[i], p.conns[i], p.uploads[i])
	}
	return p
}

func registries(b *testing.B, run func(b *testing.B, r registry, p people)) {
	b.Helper()
	for _, impl := range []struct {
		name string
		make func() registry
	}{
		{"shoal", func() registry { return newSharded() }},
		{"naive", func() registry { return newNaive() }},
	} {
		b.Run("impl="+impl.name, func(b *testing.B) {
			r := impl.make()
			p := populate(r, population)
			b.ReportAllocs()
			b.ResetTimer()
			run(b, r, p)
		})
	}
}

// each runs op with random numbers on all processors.
func each(b *testing.B, op func(random *rand.Rand)) {
	b.RunParallel(func(pb *testing.PB) {
		random := rand.New(rand.NewPCG(rand.Uint64(), 1))
		for pb.Next() {
			op(random)
		}
	})
}

func BenchmarkSubscribeUnsubscribe(b *testing.B) {
	registries(b, func(b *testing.B, r registry, p people) {
		each(b, func(random *rand.Rand) {
			i, j := random.IntN(population), random.IntN(population)
			if i == j {
				return
			}
			r.subscribe(p.users[i], p.conns[i], p.uploads[j])
			r.unsubscribe(p.users[i], p.conns[i], p.uploads[j])
		})
	})
}

func BenchmarkLookup(b *testing.B) {
	registries(b, func(b *testing.B, r registry, p people) {
		each(b, func(random *rand.Rand) {
			if r.lookup(p.uploads[random.IntN(population)]) == 0 {
				b.Error("an upload has lost its subscriber")
			}
		})
	})
}

// BenchmarkMixed is nine lookups to one subscribe and unsubscribe.
func BenchmarkMixed(b *testing.B) {
	registries(b, func(b *testing.B, r registry, p people) {
		each(b, func(random *rand.Rand) {
			i, j := random.IntN(population), random.IntN(population)
			if random.IntN(10) > 0 || i == j {
				r.lookup(p.uploads[j])
				return
			}
			r.subscribe(p.users[i], p.conns[i], p.uploads[j])
			r.unsubscribe(p.users[i], p.conns[i], p.uploads[j])
		})
	})
}
