package linearizability

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"go.uber.org/goleak"

	"github.com/shoal-go/shoal/shard"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	users, conns, uploads = 2, 2, 2
	workers, steps        = 4, 12
)

// call is one call of the registry. Calls of different users do not affect each other, so histories are checked per
// user; a list of subscribers is reduced to the user in question. They are checked per upload too: a call that changes
// several subscriptions of a user, such as Disconnect, changes one after the other, and a list of subscribers that is
// read at the same time may show some of the changes.
type call struct {
	kind               string
	user, conn, upload int
}

// followers is the state of a user: its connections, and for each upload the connections with a claim and the claim of
// the user itself. It is a value, so that states can be compared.
type followers struct {
	conns  [conns]bool
	claims [uploads][conns]bool
	held   [uploads]hold
}

// hold is the claim of a user itself.
type hold uint8

const (
	none hold = iota
	inherited
	asked
)

func (f followers) follows(upload int) bool {
	return f.held[upload] != none || slices.Contains(f.claims[upload][:], true)
}

// step returns the result of a call and the state after it.
func (f followers) step(c call) (result bool, next followers) {
	switch c.kind {
	case "connect":
		f.conns[c.conn] = true
		return true, f
	case "disconnect":
		return f.conns[c.conn], f.disconnect(c.conn)
	case "subscribe connection":
		if f.conns[c.conn] {
			f.claims[c.upload][c.conn] = true
		}
		return f.conns[c.conn], f
	case "unsubscribe connection":
		claimed := f.claims[c.upload][c.conn]
		f.claims[c.upload][c.conn] = false
		return claimed, f
	case "subscribe user":
		f.held[c.upload] = asked
		return true, f
	case "unsubscribe user":
		followed := f.follows(c.upload)
		f.claims[c.upload], f.held[c.upload] = [conns]bool{}, none
		return followed, f
	default:
		return f.follows(c.upload), f
	}
}

func (f followers) disconnect(conn int) followers {
	if !f.conns[conn] {
		return f
	}
	f.conns[conn] = false
	if !slices.Contains(f.conns[:], true) {
		return followers{}
	}
	for u := range f.claims {
		if f.claims[u][conn] && f.held[u] == none {
			f.held[u] = inherited
		}
		f.claims[u][conn] = false
	}
	return f
}

func registryModel() porcupine.Model {
	return porcupine.Model{
		Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
			parts := make([][]porcupine.Operation, users*uploads)
			for _, op := range history {
				c := op.Input.(call) // made by run
				for upload := range uploads {
					if c.upload == upload || c.kind == "connect" || c.kind == "disconnect" {
						part := &parts[c.user*uploads+upload]
						*part = append(*part, op)
					}
				}
			}
			return parts
		},
		Init: func() any { return followers{} },
		Step: func(state, input, output any) (bool, any) {
			result, next := state.(followers).step(input.(call)) // made by Init and run
			return result == output, next
		},
		DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v: %v", input, output) },
	}
}

type registry = shard.Registry[*int, struct{}]

// run executes a call and returns its result.
func (c call) run(r *registry, all [users][conns]*int) bool {
	user, upload := strconv.Itoa(c.user), strconv.Itoa(c.upload)
	conn := all[c.user][c.conn]
	switch c.kind {
	case "connect":
		_, _, err := r.Connect(user, conn, 0, nil, func(*shard.Upload[*int, struct{}]) {})
		return err == nil
	case "disconnect":
		return r.Disconnect(user, conn)
	case "subscribe connection":
		err := r.SubscribeConn(user, conn, upload, 0, func(*shard.Upload[*int, struct{}], bool) {})
		return !errors.Is(err, shard.ErrUnknown)
	case "unsubscribe connection":
		return r.UnsubscribeConn(user, conn, upload)
	case "subscribe user":
		return r.SubscribeUser(user, upload, 0, 0, 0, func(*shard.Upload[*int, struct{}], *int) {}) == nil
	case "unsubscribe user":
		return r.UnsubscribeUser(user, upload)
	default:
		return slices.Contains(r.SubscriberIDs(upload), user)
	}
}

var kinds = []string{
	"connect", "disconnect", "subscribe connection", "unsubscribe connection", "subscribe user", "unsubscribe user",
	"follows",
}

// concurrentHistory executes random calls on several goroutines.
func concurrentHistory(seed uint64) []porcupine.Operation {
	r := shard.New(shard.Config[*int, struct{}]{Shards: 2})
	var all [users][conns]*int
	for u := range all {
		for c := range all[u] {
			all[u][c] = new(int)
		}
	}
	start := time.Now()
	histories := make([][]porcupine.Operation, workers)
	var running sync.WaitGroup
	for worker := range workers {
		running.Go(func() {
			random := rand.New(rand.NewPCG(seed, uint64(worker))) // reproducible on purpose
			for range steps {
				c := call{kinds[random.IntN(len(kinds))], random.IntN(users), random.IntN(conns), random.IntN(uploads)}
				called := time.Since(start)
				result := c.run(r, all)
				histories[worker] = append(histories[worker], porcupine.Operation{
					ClientId: worker, Input: c, Call: int64(called), Output: result, Return: int64(time.Since(start)),
				})
			}
		})
	}
	running.Wait()
	return slices.Concat(histories...)
}

// Concurrent calls of a registry have the results of some sequence of the same calls. SHOAL_STRESS sets the time of the
// test, which is 2 s by default.
func TestRegistry_IsLinearizable(t *testing.T) {
	duration := 2 * time.Second
	if text := os.Getenv("SHOAL_STRESS"); text != "" {
		var err error
		if duration, err = time.ParseDuration(text); err != nil {
			t.Fatalf("SHOAL_STRESS is %q, must be a duration such as 30s", text)
		}
	}
	checked := 0
	for end := time.Now().Add(duration); time.Now().Before(end) || checked == 0; checked++ {
		history := concurrentHistory(uint64(checked)) // counts up
		if result := porcupine.CheckOperationsTimeout(registryModel(), history, time.Minute); result != porcupine.Ok {
			for _, op := range history {
				t.Logf("%d to %d, worker %d: %+v: %v", op.Call, op.Return, op.ClientId, op.Input, op.Output)
			}
			t.Fatalf("history %d is not linearizable (%s)", checked, result)
		}
	}
	t.Logf("%d histories of %d calls are linearizable", checked, workers*steps)
}

// The checker refuses a history that no order explains.
func TestModel_RefusesImpossibleHistory(t *testing.T) {
	history := []porcupine.Operation{
		{Input: call{kind: "connect"}, Output: true, Call: 1, Return: 2},
		{Input: call{kind: "subscribe connection"}, Output: true, Call: 3, Return: 4},
		{Input: call{kind: "follows"}, Output: false, Call: 5, Return: 6},
	}
	if porcupine.CheckOperations(registryModel(), history) {
		t.Error("a lost subscription was accepted")
	}
}
