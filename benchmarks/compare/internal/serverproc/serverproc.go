// Package serverproc runs one system under test in a process of its own, and publishes through it as the runner
// asks for.
package serverproc

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/broker/natsbroker"
	"github.com/shoal-go/shoal/broker/redisbroker"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/control"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/loadgen"
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
	Planned  loadgen.Times `json:"planned,omitzero"`
	Called   loadgen.Times `json:"called,omitzero"`

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
	// Host is the address to listen on. "": that of the loopback interface.
	Host string
	// TLS has all clients connect over TLS 1.3.
	TLS bool
	// Program is the executable of a system that is a program.
	Program string
	// Broker is the URL of a broker of NATS or Redis that this project's node is connected with. "": none.
	Broker string
}

// process is the server's process.
type process struct {
	entry   systems.Entry
	system  systems.System
	addr    string
	number  uint64 // of the newest message
	profile *CPUProfile
	program int // process id of a system that is a program; otherwise 0
}

// Run serves the system on a free port, which it reports, and executes requests until it receives quit or in ends. Then
// it ends the system, whose clients must have gone.
func Run(o Options, in io.Reader, out io.Writer) (err error) {
	entry, err := systems.Find(o.System)
	if err != nil {
		return err
	}
	p := &process{entry: entry}
	if o.Broker == "" {
		p.system, err = entry.New()
	} else {
		p.system, err = openWithBroker(o.Broker)
	}
	if err != nil {
		return fmt.Errorf("serverproc: %s does not start: %w", o.System, err)
	}
	defer func() { err = errors.Join(err, p.profile.Stop(), p.system.Close()) }()
	end, err := p.listen(o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	if err := control.Reply(out, Answer{Addr: p.addr}, nil); err != nil {
		return err
	}
	return control.Serve(in, out, p.handle)
}

// openWithBroker returns this project's system with a broker.
func openWithBroker(url string) (systems.System, error) {
	var b broker.Broker
	var err error
	if strings.HasPrefix(url, "redis:") {
		b, err = redisbroker.New(redisbroker.Options{URL: url})
	} else {
		b, err = natsbroker.New(natsbroker.Options{URL: url})
	}
	if err != nil {
		return nil, err
	}
	return systems.NewShoal(b)
}

// listen has the system listen, or starts its program. The function that it returns ends the listening.
func (p *process) listen(o Options) (end func() error, err error) {
	host := cmp.Or(o.Host, "127.0.0.1")
	var certificate, key string
	if o.TLS {
		folder, err := os.MkdirTemp("", "compare")
		if err != nil {
			return nil, fmt.Errorf("serverproc: %w", err)
		}
		defer os.RemoveAll(folder) //nolint:errcheck // it is a temporary one
		if certificate, key, err = systems.Certificate(folder); err != nil {
			return nil, fmt.Errorf("serverproc: %w", err)
		}
	}
	if program, ok := p.system.(systems.Program); ok {
		p.addr, p.program, err = program.Start(o.Program, host, certificate, key)
		return func() error { return nil }, err
	}
	ln, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return nil, fmt.Errorf("serverproc: %w", err)
	}
	p.addr = ln.Addr().String()
	ln = listener{ln.(*net.TCPListener), o.SendBuffer} //nolint:forcetypeassert // it is one
	if o.TLS {
		config, err := systems.ServerTLS(certificate, key)
		if err != nil {
			return nil, errors.Join(err, ln.Close())
		}
		ln = tls.NewListener(ln, config)
	}
	edge := &http.Server{Handler: p.system.Handler(), ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0)}
	served := make(chan error, 1)
	go func() { served <- edge.Serve(ln) }()
	return func() error {
		_ = edge.Close()
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	}, nil
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
	a, err = p.do(q)
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
	return Answer{}, fmt.Errorf("serverproc: %q cannot be done, want %s, %s, %s, %s, %s or %s",
		q.Do, Publish, Schedule, Direct, Look, Profile, Quit)
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
	a := Answer{CPUBefore: p.cpu(), WritesBefore: usage.WritesOf(p.pid())}
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
	a := Answer{CPUBefore: p.cpu(), WritesBefore: usage.WritesOf(p.pid())}
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
