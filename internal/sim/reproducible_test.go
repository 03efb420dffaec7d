package sim

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/shoal/broker"
)

// transcript executes a history and returns what each client has received of each upload, a line for each message and
// the time. It lacks the names of epochs, which are random.
func transcript(t *testing.T, h History) (lines map[string][]string) {
	cert := certificate(t)
	lines = map[string][]string{}
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		note := func(of, format string, args ...any) {
			lines[of] = append(lines[of], fmt.Sprintf("%v: ", time.Since(start))+fmt.Sprintf(format, args...))
		}
		var w *World
		violation, after := run(h, cert, func(world *World, c *client, r received) {
			w = world
			for _, id := range slices.Sorted(maps.Keys(r.Uploads)) {
				at := r.Uploads[id]
				note(fmt.Sprint(c, id), "resumed at %d %v %v", at.Offset, at.Recovered, at.Expired)
			}
			id := r.UploadID
			if e := w.account.find(r.body()); e != nil {
				id = uploadID(e.upload)
			}
			note(fmt.Sprint(c, id), "%s %d, offset %d, skipped %d %s %v %v",
				r.Action, r.body(), r.Offset, r.Skipped, r.Code, r.Recovery, r.Expired)
		})
		note("", "%q after %d", violation, after)
	})
	return lines
}

// sequential leaves out the operations after which many goroutines work at the same simulated instant: their order is
// the scheduler's.
func sequential(h History) History {
	h.Config.TLS, h.Config.Queue, h.Config.Refuses = false, 0, false
	h.Ops = slices.DeleteFunc(slices.Clone(h.Ops), func(o Op) bool {
		switch o.Kind {
		case drain, stall, dawdle, partition, late, mute, refuse, doubt, embed:
			return true
		}
		return false
	})
	for i := range h.Ops {
		h.Ops[i].AtOnce, h.Ops[i].N = false, min(h.Ops[i].N, 4)
	}
	return h
}

// A history is executed in the same way each time, as far as it does not leave the order to the scheduler: each client
// receives the same messages of each upload, at the same times. Of several executions two in a row may differ by timers
// of the nodes, whose pauses are random.
func TestRun_IsReproducible(t *testing.T) {
	for seed := range uint64(30) {
		h := sequential(Draw(seed))
		first := transcript(t, h)
		same := false
		for attempt := 0; attempt < attempts && !same; attempt++ {
			second := transcript(t, h)
			same = maps.EqualFunc(first, second, slices.Equal[[]string])
			first = second
		}
		if !same {
			t.Errorf("seed %d: each execution is another one\n%v", seed, h)
		}
	}
}

// orderOf records which links a message is handed to.
type orderOf struct {
	number int
	order  *[]int
}

func (o orderOf) Receive(broker.Message) { *o.order = append(*o.order, o.number) }
func (o orderOf) Interrupted(...string)  {}
func (o orderOf) Health(error)           {}

// The hub hands messages to its links, and begins the epochs of its channels, in an order that does not depend on a map.
func TestHub_OrderIsReproducible(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(newAccount(0), true, false, 8)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		const many = 20
		var order, want []int
		links := make([]*link, many)
		for i := range many {
			links[i], want = h.link(uint64(i)), append(want, i)
		}
		for i := range many {
			n := (i + many/2) % many // they come in another order than they were made
			links[n].channels["x"] = true
			go func() { _ = links[n].Run(ctx, orderOf{n, &order}) }()
			synctest.Wait()
		}
		if err := links[0].Publish(ctx, "x", []byte(`{}`)); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(order, want) {
			t.Errorf("the links got the message in the order %v", order)
		}
		for i := range many {
			h.channel(uploadID(many - i))
		}
		h.restart(0, false, false, time.Second)
		last := 0
		for _, name := range slices.Sorted(maps.Keys(h.channels)) {
			number, err := strconv.Atoi(h.channels[name].kept.Epoch[1:])
			if err != nil || number <= last {
				t.Fatalf("%s has epoch %q, %v", name, h.channels[name].kept.Epoch, err)
			}
			last = number
		}
		<-time.After(2 * time.Second)
	})
}
