package membership

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoal-go/shoal/broker"
)

// Config configures a node. Only Broker is required.
type Config struct {
	// Broker transports the messages. Its owner runs it and passes received messages to Receive.
	Broker broker.Broker
	// Name is this node's, unique in the cluster: 1 to 128 letters, digits, or characters of "-_.:". "": a random one.
	Name string
	// Settings identifies the settings that must be the same on all nodes, such as a hash of them; it has the
	// characters of a name. A node that meets others with other settings is not ready.
	Settings string
	// Interval is the time between two hellos of a node; it must be the same on all nodes. 0: one second.
	Interval time.Duration
	// Patience is how long Ask waits for answers at most. 0: two seconds.
	Patience time.Duration
	// Answer answers a question of another node, or of this one. It is called from a few goroutines, and for Ask from
	// the caller's; it should return soon, must not call Ask, and must not change the body. An error tells the asking
	// node only that the question failed, not the reason. nil: no question is answered.
	Answer func(kind string, body []byte) ([]byte, error)
	// Announce returns the number that the next hello carries: of the newest command that this node has issued. Nodes
	// that know a lower one have missed commands. It is called from one goroutine and must return soon. nil: 0.
	Announce func() uint64
	// OnHello handles a hello of another node. It must not block; no lock is held during the call. nil: hellos
	// only keep the roster.
	OnHello func(Hello)
	// Logger receives events for operators, without payloads. nil: nothing is logged.
	Logger *slog.Logger
}

// Hello is a sign of life of another node.
type Hello struct {
	// Process identifies the process that sent it: a node that restarts has another one.
	Process string
	// Announced is the number that Config.Announce returned there.
	Announced uint64
	// Met is set if either of the two nodes did not know the other: messages may have been missed on both sides.
	Met bool
}

// Membership is a node's part in a cluster.
//
// All methods may be called from any number of goroutines, except that Run is called once. Receive never waits
// for anything but a lock. No lock is held while the broker, Answer, Announce or OnHello is called.
type Membership struct {
	cfg Config
	// run identifies this process, also among processes that use the same name.
	run   string
	inbox string
	log   *slog.Logger

	questions *queue // queue of the goroutines that call Answer
	// tasks are functions that Receive passes to Run's goroutine, because they may block.
	tasks chan func(context.Context)
	// connected wakes join.
	connected chan struct{}
	// asking holds a token for each question of this node that is not yet answered.
	asking chan struct{}

	malformed, stray, overflow atomic.Uint64

	mu      sync.Mutex // protects the fields below; no blocking call is made under it
	running bool
	roster  roster
	// sent and echoed are the numbers of the newest hello that was sent, and of the newest that was received back.
	sent, echoed uint64
	// clashed is the value of the roster's beats when another process with the name of this node was last heard, plus
	// 1; 0: never.
	clashed     uint64
	asked       uint64 // the number of the newest question
	asks        map[uint64]*ask
	answerBytes int                  // total size of the answers to open questions
	warned      map[string]time.Time // time of the last warning, by kind
}

const (
	// maxAsks bounds the open questions of a node; further calls of Ask block.
	maxAsks = 1024
	// answerers is the number of goroutines that answer questions of other nodes.
	answerers = 4
	// waitingMessages and waitingBytes bound each queue of received messages.
	waitingMessages = 4096
	waitingBytes    = 32 << 20
	// maxTasks bounds the number of functions queued for Run's goroutine.
	maxTasks = 256
	// warnEvery is the minimum interval between two log lines about the same problem.
	warnEvery = 10 * time.Second
)

// New returns a node that is not yet running. The error names the invalid part of the configuration.
func New(cfg Config) (*Membership, error) {
	cfg.Name = cmp.Or(cfg.Name, rand.Text())
	cfg.Interval = cmp.Or(cfg.Interval, time.Second)
	cfg.Patience = cmp.Or(cfg.Patience, 2*time.Second)
	if cfg.Answer == nil {
		cfg.Answer = func(string, []byte) ([]byte, error) { return nil, errors.ErrUnsupported }
	}
	if cfg.Announce == nil {
		cfg.Announce = func() uint64 { return 0 }
	}
	if cfg.OnHello == nil {
		cfg.OnHello = func(Hello) {}
	}
	cfg.Logger = cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler))
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return &Membership{
		cfg: cfg, run: rand.Text(), inbox: inboxPrefix + cfg.Name, log: cfg.Logger,
		questions: newQueue(),
		tasks:     make(chan func(context.Context), maxTasks),

		connected: make(chan struct{}, 1),
		asking:    make(chan struct{}, maxAsks),
		roster:    roster{nodes: make(map[string]*node)},
		asks:      make(map[uint64]*ask),
		warned:    make(map[string]time.Time),
	}, nil
}

func (c Config) validate() error {
	var all []error
	if c.Broker == nil {
		all = append(all, errors.New("membership: Config.Broker is nil, want a broker"))
	}
	if err := CheckName(c.Name); err != nil {
		all = append(all, fmt.Errorf("membership: Config.Name %w", err))
	}
	if c.Interval < 0 {
		all = append(all, fmt.Errorf("membership: Config.Interval is %v, want more than 0", c.Interval))
	}
	if c.Patience < 0 {
		all = append(all, fmt.Errorf("membership: Config.Patience is %v, want more than 0", c.Patience))
	}
	return errors.Join(all...)
}

// Name returns the name of this node.
func (p *Membership) Name() string { return p.cfg.Name }

// Process identifies this process, also among processes that use the same name.
func (p *Membership) Process() string { return p.run }

// Members returns the sorted names of the current nodes, including this one. While this node is cut off from the
// engine, it returns the last known names.
func (p *Membership) Members() []string {
	p.mu.Lock()
	names := p.roster.names()
	p.mu.Unlock()
	at, _ := slices.BinarySearch(names, p.cfg.Name)
	return slices.Insert(names, at, p.cfg.Name)
}

// Counts are of messages that were dropped, and of nodes that were lost, since New.
type Counts struct {
	// Malformed counts messages that no node of this version sends.
	Malformed uint64
	// Stray counts parts of answers to closed questions, and parts out of sequence.
	Stray uint64
	// Overflow counts messages beyond the bound of a queue or of an answer.
	Overflow uint64
	// Lost counts nodes that fell silent without leaving.
	Lost uint64
}

// Counts returns how many messages were dropped and nodes lost.
func (p *Membership) Counts() Counts {
	p.mu.Lock()
	lost := p.roster.lost
	p.mu.Unlock()
	return Counts{Malformed: p.malformed.Load(), Stray: p.stray.Load(), Overflow: p.overflow.Load(), Lost: lost}
}

// own reports whether a message is from this very process.
func (p *Membership) own(h header) bool { return h.Run == p.run && h.From == p.cfg.Name }

// header returns one of a message from this node.
func (p *Membership) header(typ string) header {
	return header{Type: typ, From: p.cfg.Name, Run: p.run, Settings: p.cfg.Settings}
}

// failed returns the error of a call of the broker. It wraps broker.ErrUnavailable where a context has ended; another
// error that does not wrap it is a refusal.
func failed(doing string, err error) error {
	ended := errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
	if !ended || errors.Is(err, broker.ErrUnavailable) {
		return fmt.Errorf("membership: %s: %w", doing, err)
	}
	return fmt.Errorf("membership: %s: %w: %w", doing, broker.ErrUnavailable, err)
}
