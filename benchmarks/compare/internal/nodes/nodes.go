// Package nodes runs a node, a manager with a broker, in a process of its own: one that publishes, or one with
// connections that count and time messages. Only the broker is between the two.
package nodes

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/control"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/serverproc"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/usage"
)

// The kinds of requests.
const (
	Follow   = "follow"   // Uploads users come, each with a connection that follows an upload of its own
	Probe    = "probe"    // a message is published, as soon as the broker can be reached
	Publish  = "publish"  // Publishers publish, each one message after the other, while For lasts
	Schedule = "schedule" // Rate messages a second are published while For lasts, by Publishers that take turns
	Wait     = "wait"     // until Total messages have come since Follow
	Reset    = "reset"    // the latencies are forgotten
	Look     = "look"     // nothing is done
	Profile  = "profile"  // a processor profile goes to File, until the process ends
	Quit     = "quit"
)

// Request is one thing to do.
type Request struct {
	Do         string        `json:"do"`
	Uploads    int           `json:"uploads,omitempty"`
	Bytes      int           `json:"bytes,omitempty"` // of a message
	Publishers int           `json:"publishers,omitempty"`
	For        time.Duration `json:"for,omitempty"`  // of Wait: at most
	Rate       float64       `json:"rate,omitempty"` // messages per second
	Total      uint64        `json:"total,omitempty"`
	File       string        `json:"file,omitempty"`
}

// Answer is the result of a request. All answers contain the state of the process afterwards.
type Answer struct {
	// Began is when publishing did, in nanoseconds of Unix time, and Published how many messages that were.
	Began     int64  `json:"began,omitempty"`
	Published uint64 `json:"published,omitempty"`
	// Late is by how much the latest message of a schedule was taken up after its time, in nanoseconds.
	Late int64 `json:"late,omitempty"`

	// CPU is the processor time of the process, in nanoseconds.
	CPU int64 `json:"cpu"`
	// Received is how many messages have come, Last when the newest did, and Disorder how many of them were
	// not the next one of their publisher and upload.
	Received uint64 `json:"received"`
	Last     int64  `json:"last,omitempty"`
	Disorder uint64 `json:"disorder"`
	// Recovered is how often an upload was brought up to date from the broker's history.
	Recovered uint64 `json:"recovered"`
	P50       int64  `json:"p50"`
	P99       int64  `json:"p99"`
	P999      int64  `json:"p999"`
}

// Bounds of requests.
const (
	MaxUploads    = 100_000
	MaxPublishers = 4096
)

// process is one node, or where the broker is memory, two.
type process struct {
	*pair
	receiver   *receiver
	publishing *publishing
	profile    *serverproc.CPUProfile
}

// Run runs a node and executes requests until it receives quit or in ends. Then it ends the node.
func Run(ctx context.Context, o Options, in io.Reader, out io.Writer) error {
	both, err := open(o)
	if err != nil {
		return err
	}
	p := &process{pair: both, receiver: newReceiver(), publishing: newPublishing(both.from)}
	err = control.Reply(out, Answer{}, nil)
	if err == nil {
		err = control.Serve(in, out, func(q Request) (Answer, bool, error) {
			a, err := p.do(ctx, q)
			p.look(&a)
			return a, q.Do == Quit, err
		})
	}
	return errors.Join(err, p.profile.Stop(), both.close())
}

func (p *process) do(ctx context.Context, q Request) (a Answer, err error) {
	switch q.Do {
	case Follow:
		return a, p.receiver.follow(ctx, p.to, q.Uploads)
	case Probe:
		return a, p.publishing.probe(ctx)
	case Publish:
		return p.publishing.publishAll(ctx, q)
	case Schedule:
		return p.publishing.schedule(ctx, q)
	case Wait:
		p.receiver.wait(q.Total, q.For)
	case Reset:
		p.receiver.times.reset()
	case Profile:
		p.profile, err = serverproc.StartCPUProfile(q.File)
	}
	return a, err
}

// look notes how the process stands.
func (p *process) look(a *Answer) {
	a.CPU = usage.CPU()
	a.Received, a.Disorder, a.Last = p.receiver.counts()
	a.P50, a.P99, a.P999 = p.receiver.times.percentiles()
	a.Recovered = p.to.Stats().Broker.Recoveries
}
