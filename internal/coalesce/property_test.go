package coalesce

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"
)

// ideal is a reference model of a coalescer with an engine that takes no time, one key at a time.
type ideal struct {
	left    time.Duration // when the last state left
	waiting int           // 0: none
	log     []string
}

func (i *ideal) send(n int, at time.Duration) {
	i.log = append(i.log, fmt.Sprintf("%d@%d", n, at.Milliseconds()))
}

// until sends everything that is due by now.
func (i *ideal) until(now time.Duration) {
	if due := i.left + interval; i.waiting != 0 && due <= now {
		i.send(i.waiting, due)
		i.left, i.waiting = due, 0
	}
}

func (i *ideal) take(n int, now time.Duration, state bool) {
	switch {
	case state && (i.waiting != 0 || now < i.left+interval):
		i.waiting = n
	case state:
		i.send(n, now)
		i.left = now
	default:
		if i.waiting != 0 {
			i.send(i.waiting, now)
			i.left, i.waiting = now, 0
		}
		i.send(n, now)
	}
}

func TestCoalescer_AgreesWithModel(t *testing.T) {
	for seed := range uint64(100) {
		inBubble(t, Config[int, int]{Parallel: 2}, func(t *testing.T, th *Coalescer[int, int], e *engine) {
			random := rand.New(rand.NewPCG(seed, 1))
			models := map[string]*ideal{"a": {left: -interval}, "b": {left: -interval}, "c": {left: -interval}}
			for n := range 300 {
				key, state := string(rune('a'+random.IntN(3))), random.IntN(5) > 0
				if random.IntN(3) == 0 {
					pass(time.Duration(random.IntN(80)) * time.Millisecond)
				}
				now := time.Since(e.began)
				models[key].until(now)
				models[key].take(n+1, now, state)
				if _, err := th.Send(t.Context(), key, n+1, state); err != nil {
					t.Fatal(err)
				}
			}
			pass(time.Second)
			for key, model := range models {
				model.until(time.Since(e.began))
				var want []string
				for _, line := range model.log {
					want = append(want, key+line)
				}
				got := slices.DeleteFunc(e.log(), func(line string) bool { return line[:1] != key })
				if !slices.Equal(got, want) {
					t.Errorf("seed %d: sent %q, want %q", seed, got, want)
				}
			}
			empty(t, th)
		})
	}
}

// publisher sends messages of one key sequentially and records the results.
type publisher struct {
	key      string
	states   []int // that were accepted
	events   []int
	isState  map[int]bool
	returned map[int]time.Duration
}

func (p *publisher) publish(t *testing.T, th *Coalescer[int, int], e *engine, random *rand.Rand) {
	for n := 1; n <= 200; n++ {
		if random.IntN(2) == 0 {
			<-time.After(time.Duration(random.IntN(60)) * time.Millisecond)
		}
		state := random.IntN(6) > 0
		p.isState[n] = state
		if _, err := th.Send(t.Context(), p.key, n, state); err != nil {
			continue
		}
		p.returned[n] = time.Since(e.began)
		if state {
			p.states = append(p.states, n)
		} else {
			p.events = append(p.events, n)
		}
	}
}

// check verifies the messages of the publisher's key that the engine received.
func (p *publisher) check(t *testing.T, e *engine) (states int) {
	last := sent{n: 0, start: -time.Hour, end: -time.Hour}
	left := -time.Hour // when the last state left
	arrived := map[int]bool{}
	for i, s := range e.all {
		if s.key != p.key {
			continue
		}
		if s.start < last.end {
			t.Errorf("%s%d is sent before %d has ended", p.key, s.n, last.n)
		}
		if s.n < last.n || s.n == last.n && last.err == nil {
			t.Errorf("%s%d is sent after %d", p.key, s.n, last.n)
		}
		last = s
		if s.err != nil {
			continue
		}
		arrived[s.n] = true
		if !p.isState[s.n] {
			if s.end > p.returned[s.n] {
				t.Errorf("%s%d is sent after Send had returned", p.key, s.n)
			}
			continue
		}
		states++
		follower := slices.IndexFunc(e.all[i+1:], func(next sent) bool { return next.key == p.key })
		early := s.start-left < interval
		if early && (follower < 0 || p.isState[e.all[i+1+follower].n]) {
			t.Errorf("%s%d leaves %v after the state before it, and no event follows", p.key, s.n, s.start-left)
		}
		left = s.start
	}
	for _, n := range p.events {
		if !arrived[n] {
			t.Errorf("the event %s%d is lost", p.key, n)
		}
	}
	if newest := p.states[len(p.states)-1]; !arrived[newest] {
		t.Errorf("the newest state %s%d has not left", p.key, newest)
	}
	return states
}

func TestCoalescer_SlowAndFailingBrokers(t *testing.T) {
	for seed := range uint64(60) {
		cfg := Config[int, int]{Parallel: 2, Retry: interval, RetryMost: 4 * interval}
		inBubble(t, cfg, func(t *testing.T, th *Coalescer[int, int], e *engine) {
			chance := rand.New(rand.NewPCG(seed, 2)) // used under the engine's lock
			e.becomes(func(string, int) (takes time.Duration, err error) {
				if chance.IntN(3) == 0 {
					takes = time.Duration(chance.IntN(150)) * time.Millisecond
				}
				if chance.IntN(4) == 0 {
					err = errAway
				}
				return takes, err
			})
			var all []*publisher
			var working sync.WaitGroup
			for i := range uint64(4) {
				p := &publisher{key: string(rune('a' + i)), isState: map[int]bool{}, returned: map[int]time.Duration{}}
				all = append(all, p)
				working.Go(func() { p.publish(t, th, e, rand.New(rand.NewPCG(seed, 3+i))) })
			}
			working.Wait()
			pass(time.Minute)
			accepted, left := 0, 0
			for _, p := range all {
				accepted += len(p.states)
				left += p.check(t, e)
			}
			if got := th.Counts().Replaced; int(got) != accepted-left {
				t.Errorf("seed %d: %d are counted as replaced; of %d states %d have left", seed, got, accepted, left)
			}
			empty(t, th)
		})
	}
}

func TestCoalescer_ManyPublishersOfKey(t *testing.T) {
	inBubble(t, Config[int, int]{Keys: 3}, func(t *testing.T, th *Coalescer[int, int], e *engine) {
		var working sync.WaitGroup
		for i := range uint64(8) {
			working.Go(func() {
				random := rand.New(rand.NewPCG(i, 4))
				for n := range 2000 {
					key := string(rune('a' + random.IntN(5)))
					if _, err := th.Send(t.Context(), key, n, random.IntN(4) > 0); err != nil {
						t.Error(err)
					}
					if random.IntN(20) == 0 {
						<-time.After(time.Duration(random.IntN(50)) * time.Millisecond)
					}
				}
			})
		}
		working.Wait()
		pass(time.Second)
		empty(t, th)
	})
}
