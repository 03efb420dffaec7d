package membership

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/shoal-go/shoal/broker"
)

// Receive handles a message from the broker and reports whether its channel is a membership channel. It blocks only on
// a lock. Before Run and after it, the message is dropped.
func (p *Membership) Receive(m broker.Message) bool {
	inbox := m.Channel == p.inbox
	if !inbox && m.Channel != AllChannel {
		return false
	}
	h, body, err := decode(inbox, m.Payload)
	if err != nil {
		p.drop(&p.malformed, m.Channel, err.Error())
		return true
	}
	p.mu.Lock()
	running := p.running
	p.mu.Unlock()
	if running {
		p.dispatch(m.Channel, h, body)
	}
	return true
}

func (p *Membership) dispatch(channel string, h header, body []byte) {
	switch h.Type {
	case typeHello, typeWelcome:
		p.handleHello(channel, h)
	case typeBye:
		p.handleBye(h)
	case typeAsk:
		if !p.own(h) && !p.questions.push(h, body) {
			p.drop(&p.overflow, channel, "question queue full")
		}
	case typeAnswer:
		p.handleAnswer(channel, h, body)
	}
}

// handleHello handles a hello or a welcome.
func (p *Membership) handleHello(channel string, h header) {
	switch {
	case p.own(h):
		p.handleEcho(h.N)
		return
	case h.From == p.cfg.Name:
		p.handleClash()
		return
	}
	p.mu.Lock()
	joined, clash, full := p.roster.hello(h.From, h.Run)
	differs := p.roster.compare(h.From, h.Settings == p.cfg.Settings)
	p.mu.Unlock()
	if differs {
		p.task(func(context.Context) {
			p.log.Error("membership: node has other message classes", slog.String("node", h.From))
		})
	}
	switch {
	case full:
		p.drop(&p.overflow, channel, "too many nodes")
		return
	case clash:
		p.task(func(context.Context) {
			p.log.Error("membership: node name used twice", slog.String("node", h.From))
		})
	case joined:
		p.task(func(ctx context.Context) {
			p.log.Info("membership: node joined", slog.String("node", h.From))
			if h.Type == typeHello {
				w := p.header(typeWelcome)
				w.Announced = p.cfg.Announce()
				p.publish(ctx, inboxPrefix+h.From, w)
			}
		})
	}
	p.cfg.OnHello(Hello{Process: h.Run, Announced: h.Announced, Met: joined || h.Type == typeWelcome})
}

// handleClash handles a hello of another process with the name of this node. It answers with a hello at once, so that
// the other process learns of the clash before it considers itself ready for long.
func (p *Membership) handleClash() {
	p.mu.Lock()
	first := p.clashed == 0 || p.roster.beats-(p.clashed-1) >= silentBeats
	p.clashed = p.roster.beats + 1
	p.mu.Unlock()
	if first {
		p.task(func(ctx context.Context) {
			p.log.Error("membership: node name used twice", slog.String("node", p.cfg.Name))
			p.hello(ctx)
		})
	}
}

// handleEcho handles the n-th hello of this process.
func (p *Membership) handleEcho(n uint64) {
	p.mu.Lock()
	var lost []string
	if n > p.echoed && n <= p.sent {
		p.echoed = n
		lost = p.roster.beat()
	}
	p.mu.Unlock()
	for _, name := range lost {
		p.task(func(context.Context) {
			p.log.Warn("membership: node lost, no hello received in time", slog.String("node", name))
		})
	}
}

// handleBye handles a bye. The leaving node will not answer open questions.
func (p *Membership) handleBye(h header) {
	p.mu.Lock()
	news := p.roster.bye(h.From, h.Run)
	if news {
		for _, a := range p.asks {
			a.close(h.From)
		}
	}
	p.mu.Unlock()
	if news {
		p.task(func(context.Context) { p.log.Info("membership: node left", slog.String("node", h.From)) })
	}
}

// task passes a function to Run's goroutine. If the queue is full the function is dropped: a log line is missing, or
// a new node learns of this one an interval later.
func (p *Membership) task(do func(context.Context)) {
	select {
	case p.tasks <- do:
	default:
	}
}

// drop counts a dropped message and logs it at a limited rate.
func (p *Membership) drop(counter *atomic.Uint64, channel, why string) {
	total := counter.Add(1)
	if p.mayWarn(channel + why) {
		p.task(func(context.Context) {
			p.log.Warn("membership: message dropped",
				slog.String("channel", channel), slog.String("reason", why), slog.Uint64("dropped", total))
		})
	}
}

// mayWarn reports whether a warning, from a fixed set of kinds, may be logged again.
func (p *Membership) mayWarn(what string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if last, ok := p.warned[what]; ok && now.Sub(last) < warnEvery {
		return false
	}
	p.warned[what] = now
	return true
}

// job is a question of another node, and when it arrived.
type job struct {
	header
	body []byte
	at   time.Time
}

// queue holds jobs for its workers, bounded in number and in bytes. Any number of goroutines may use it.
type queue struct {
	jobs  chan *job
	bytes atomic.Int64
}

func newQueue() *queue { return &queue{jobs: make(chan *job, waitingMessages)} }

// push adds a job, and reports false if that would exceed the bounds. It does not block.
func (q *queue) push(h header, body []byte) bool {
	size := int64(len(body))
	if q.bytes.Add(size) <= waitingBytes {
		select {
		case q.jobs <- &job{h, body, time.Now()}:
			return true
		default:
		}
	}
	q.bytes.Add(-size)
	return false
}

// each hands jobs to do, one after the other, until ctx ends.
func (q *queue) each(ctx context.Context, do func(context.Context, job)) {
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case j := <-q.jobs:
			q.bytes.Add(-int64(len(j.body)))
			do(ctx, *j)
		}
	}
}
