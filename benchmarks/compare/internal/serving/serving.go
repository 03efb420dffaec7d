// Package serving runs one system under test in a process of its own, and publishes through it as the runner
// asks for.
package serving

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/control"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/driving"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/message"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/systems"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/usage"
)

// The kinds of requests.
const (
	Publish  = "publish"  // Messages, back to back, round-robin over Channels
	Schedule = "schedule" // Messages at Rate, each at its planned time, however late the ones before are
	Look     = "look"     // nothing is done
	Direct   = "direct"   // Clients of this process follow one channel, Messages at Rate are published and received
	Profile  = "profile"  // the processor is profiled into File until the end
	Quit     = "quit"
)

// Request is one thing to do.
type Request struct {
	Do       string  `json:"do"`
	Channels int     `json:"channels,omitempty"`
	Messages int     `json:"messages,omitempty"`
	Bytes    int     `json:"bytes,omitempty"`
	Rate     float64 `json:"rate,omitempty"` // messages per second
	Clean    bool    `json:"clean,omitempty"`
	File     string  `json:"file,omitempty"`
	Clients  int     `json:"clients,omitempty"`
}

// Answer is the result of a request. All answers contain the state of the process afterwards.
type Answer struct {
	Addr string `json:"addr,omitempty"`
	// Began and Ended are when publishing did, in nanoseconds of Unix time. CPUBefore is the processor time that
	// the process had used of the processors until then, in nanoseconds, and WritesBefore how often it had written.
	Began        int64 `json:"began,omitempty"`
	Ended        int64 `json:"ended,omitempty"`
	CPUBefore    int64 `json:"cpu_before,omitempty"`
	WritesBefore int64 `json:"writes_before,omitempty"`
	// Late is by how much the latest message of a schedule was published after its time, in nanoseconds.
	Late int64 `json:"late,omitempty"`
	// Received is how many messages the clients of this process have received; Planned and Called are the times until
	// then, from the planned time of a message and from the call that published it.
	Received uint64        `json:"received,omitempty"`
	Planned  driving.Times `json:"planned,omitzero"`
	Called   driving.Times `json:"called,omitzero"`

	CPU           int64 `json:"cpu"`
	Writes        int64 `json:"writes"`
	RSS           int64 `json:"rss"`
	Subscriptions int   `json:"subscriptions"`
	Goroutines    int   `json:"goroutines"`
}

// Options configure Run.
type Options struct {
	System string
	// SendBuffer is the size in bytes of the kernel's send buffer of each connection. 0: the kernel decides.
	SendBuffer int
}

// process is the server's process.
type process struct {
	entry   systems.Entry
	system  systems.System
	addr    string
	number  uint64 // of the newest message
	profile *CPUProfile
}

// Run serves the system on a port of the loopback interface, which it reports, and executes requests until it
// receives quit or in ends. Then it ends the system, whose clients must have gone.
func Run(o Options, in io.Reader, out io.Writer) error {
	entry, err := systems.Find(o.System)
	if err != nil {
		return err
	}
	system, err := entry.New()
	if err != nil {
		return fmt.Errorf("serving: %s does not start: %w", o.System, err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return errors.Join(err, system.Close())
	}
	edge := &http.Server{Handler: system.Handler(), ReadHeaderTimeout: time.Minute}
	served := make(chan error, 1)
	sockets := listener{ln.(*net.TCPListener), o.SendBuffer} //nolint:forcetypeassert // it is one
	go func() { served <- edge.Serve(sockets) }()

	p := &process{entry: entry, system: system, addr: ln.Addr().String()}
	err = control.Say(out, Answer{Addr: ln.Addr().String()}, nil)
	if err == nil {
		err = control.Serve(in, out, p.handle)
	}
	_ = edge.Close()
	if e := <-served; !errors.Is(e, http.ErrServerClosed) {
		err = errors.Join(err, e)
	}
	return errors.Join(err, p.profile.Stop(), system.Close())
}

// listener gives connections their send buffer.
type listener struct {
	*net.TCPListener
	sendBuffer int
}

func (l listener) Accept() (net.Conn, error) {
	conn, err := l.AcceptTCP()
	if err != nil {
		return nil, err
	}
	if l.sendBuffer > 0 {
		_ = conn.SetWriteBuffer(l.sendBuffer) // fails for a connection that is gone
	}
	return conn, nil
}

func (p *process) handle(q Request) (a Answer, last bool, err error) {
	if q.Do == Publish || q.Do == Schedule || q.Do == Direct {
		err = q.validate()
	}
	if err == nil {
		a, err = p.do(q)
	}
	p.look(&a, q.Clean)
	return a, q.Do == Quit, err
}

func (p *process) do(q Request) (Answer, error) {
	switch q.Do {
	case Publish:
		return p.publish(q)
	case Schedule:
		return p.schedule(q)
	case Direct:
		return p.direct(q)
	case Profile:
		var err error
		p.profile, err = StartCPUProfile(q.File)
		return Answer{}, err
	case Look, Quit:
		return Answer{}, nil
	}
	return Answer{}, fmt.Errorf("serving: %q cannot be done, want %s, %s, %s, %s, %s or %s",
		q.Do, Publish, Schedule, Direct, Look, Profile, Quit)
}

func (q Request) validate() error {
	if q.Channels < 1 || q.Messages < 1 || q.Rate < 0 || q.Do != Publish && !(q.Rate > 0) || q.Do == Direct && q.Clients < 1 {
		return fmt.Errorf("serving: %d messages over %d channels at a rate of %v cannot be published",
			q.Messages, q.Channels, q.Rate)
	}
	return message.CheckSize(q.Bytes)
}

// next makes the next message, number i of its request.
func (p *process) next(q Request, i int, sent time.Time) message.Message {
	p.number++
	return message.Message{
		Channel: message.Channel(i % q.Channels),
		Sent:    sent.UnixNano(),
		Number:  p.number,
		Size:    q.Bytes,
	}
}

func (p *process) publish(q Request) (Answer, error) {
	messages := make([]message.Message, q.Messages)
	a := Answer{CPUBefore: usage.CPU(), WritesBefore: usage.Writes()}
	began := time.Now()
	for i := range messages {
		messages[i] = p.next(q, i, began)
	}
	err := p.system.Publish(messages)
	a.Began, a.Ended = began.UnixNano(), time.Now().UnixNano()
	return a, err
}

func (p *process) schedule(q Request) (Answer, error) {
	const lead = 10 * time.Millisecond // so that the first is on time
	a := Answer{CPUBefore: usage.CPU(), WritesBefore: usage.Writes()}
	start := time.Now().Add(lead)
	var late time.Duration
	for i := range q.Messages {
		planned := start.Add(time.Duration(float64(i) / q.Rate * float64(time.Second)))
		time.Sleep(time.Until(planned))
		late = max(late, time.Since(planned))
		if err := p.system.Publish([]message.Message{p.next(q, i, planned)}); err != nil {
			return a, err
		}
	}
	a.Began, a.Ended, a.Late = start.UnixNano(), time.Now().UnixNano(), int64(late)
	return a, nil
}
