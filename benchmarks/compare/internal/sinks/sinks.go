// Package sinks runs this project's manager in a process of its own, with connections that do nothing but count
// the messages they receive: as many of them as there is memory for, and no kernel between publisher and receiver.
package sinks

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/shoal-go/shoal/manager"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/control"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/usage"
)

// The kinds of requests.
const (
	Connect   = "connect"   // Connections users come, with a connection each
	Subscribe = "subscribe" // each follows the upload of its own number modulo Uploads; Shuffled: in no order
	Fill      = "fill"      // a message is published to each upload, the first one that it has
	Broadcast = "broadcast" // messages go to the first upload, one after the other, while For lasts
	Publish   = "publish"   // messages go to uploads drawn by lot, from GOMAXPROCS goroutines, while For lasts
	Churn     = "churn"     // users drawn by lot follow another upload and leave it again, likewise
	Quit      = "quit"
)

// MaxUploads is how many there can be: their names have to be short.
const MaxUploads = 1_000_000

// Request is one thing to do.
type Request struct {
	Do          string        `json:"do"`
	Connections int           `json:"connections,omitempty"`
	Uploads     int           `json:"uploads,omitempty"`
	Shuffled    bool          `json:"shuffled,omitempty"`
	Bytes       int           `json:"bytes,omitempty"` // of a message
	For         time.Duration `json:"for,omitempty"`
	// Collect has the garbage collected once during the work.
	Collect bool `json:"collect,omitempty"`
	// Weigh has the heap looked at before and afterwards, which collects the garbage.
	Weigh bool `json:"weigh,omitempty"`
}

// Answer is the result of a request.
type Answer struct {
	// Operations is how many connections came, users subscribed or left and came back, messages were published
	// or, for Broadcast, reached a receiver. Took is how long that took.
	Operations uint64        `json:"operations,omitempty"`
	Took       time.Duration `json:"took,omitempty"`
	// Grown is by how many bytes the heap has grown, Heap how large it is then, where that was asked for.
	Grown int64 `json:"grown,omitempty"`
	Heap  int64 `json:"heap,omitempty"`
	// Collected is how long collecting the garbage took, and Pause the longest time for which everything stood
	// still in the meantime.
	Collected time.Duration `json:"collected,omitempty"`
	Pause     time.Duration `json:"pause,omitempty"`
	// Resident is the memory of the process, and Subscriptions how many there are.
	Resident      int64 `json:"resident,omitempty"`
	Subscriptions int   `json:"subscriptions"`
}

// process is the manager's process.
type process struct {
	manager *manager.Manager
	conns   []*sink
	uploads int
	bytes   int
}

// Run executes requests until it receives quit or in ends. Then it ends the manager.
func Run(in io.Reader, out io.Writer) error {
	m, err := manager.New(manager.Options{})
	if err != nil {
		return err
	}
	p := &process{manager: m}
	if err = control.Reply(out, Answer{}, nil); err == nil {
		err = control.Serve(in, out, p.handle)
	}
	return errors.Join(err, m.Close(context.Background()))
}

func (p *process) handle(q Request) (a Answer, last bool, err error) {
	if q.Do == Quit {
		return a, true, nil
	}
	p.prepare(q)
	var before int64
	if q.Weigh {
		before = usage.Heap()
	}
	a, err = p.do(q)
	if q.Weigh {
		a.Heap = usage.Heap()
		a.Grown = a.Heap - before
	}
	a.Resident = usage.Resident()
	a.Subscriptions = p.manager.Stats().Subscriptions
	return a, false, err
}

// prepare allocates the connections, whose memory is not part of the measurement.
func (p *process) prepare(q Request) {
	switch q.Do {
	case Connect:
		p.conns = make([]*sink, q.Connections)
		for i := range p.conns {
			p.conns[i] = new(sink)
		}
	case Subscribe:
		p.uploads, p.bytes = q.Uploads, q.Bytes
	}
}

func (p *process) do(q Request) (Answer, error) {
	switch q.Do {
	case Connect:
		return each(q.Connections, p.connect)
	case Subscribe:
		order := p.order(q.Shuffled)
		return each(len(order), func(i int) error { return p.subscribe(order[i]) })
	case Fill:
		return each(p.uploads, p.publish)
	case Broadcast:
		return p.broadcast(q.For)
	case Publish:
		return runWorkers(q, func(draw draw) error { return p.publish(draw(p.uploads)) })
	}
	return runWorkers(q, func(draw draw) error { return p.churn(draw(len(p.conns)), draw(p.uploads)) })
}
