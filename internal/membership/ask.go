package membership

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/shoal-go/shoal/broker"
)

const (
	// MaxAnswerBytes is the size of the largest answer of one node.
	MaxAnswerBytes = 64 << 20
	// maxAnswersBytes bounds the total size of the answers to all open questions.
	maxAnswersBytes = 4 * MaxAnswerBytes
	// partCost is the overhead of a part besides its bytes: its header stays in memory with them.
	partCost = maxHeaderBytes
)

// Answer is the answer of one node.
type Answer struct {
	Body []byte
	// Received is when the last part of the answer arrived, which may be long before the slowest node answered.
	Received time.Time
}

// ask is a question of this node that is under way. Membership.mu protects it.
type ask struct {
	// open are the nodes that have not answered yet, failed the nodes that will not answer.
	open   map[string]struct{}
	failed []string
	// answers are the parts received so far, by node.
	answers map[string]*partialAnswer
	// done is closed when open is empty.
	done chan struct{}
}

// partialAnswer is the answer of one node, as far as it was received.
type partialAnswer struct {
	run      string
	parts    [][]byte
	cost     int
	received time.Time // the last part
	// closed: it is complete, or has failed; failed: it holds nothing.
	closed, failed bool
}

// close stops waiting for a node.
func (a *ask) close(name string) {
	if _, ok := a.open[name]; !ok {
		return
	}
	delete(a.open, name)
	if len(a.open) == 0 {
		close(a.done)
	}
}

// Ask sends a question to all nodes: to this one directly, and to the others known at the time. kind has the syntax of
// a node's name, body at most MaxBodyBytes. It blocks until all have answered, at most until ctx ends or
// Config.Patience has passed, and before that while too many questions of this node are open.
//
// The answers are keyed by node name; they must not be changed. missing lists, sorted, the known nodes that did not
// answer or that returned an error; a node that leaves during the call is not listed. A name that several processes use
// is listed even if one of them answered. A node that has just started knows the others after one round trip. The error
// wraps broker.ErrUnavailable if the question could not be sent, or is a refusal of the broker; answers then contains
// this node's own answer.
func (p *Membership) Ask(
	ctx context.Context, kind string, body []byte,
) (answers map[string]Answer, missing []string, err error) {
	if err := checkOutgoing(kind, body); err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, p.cfg.Patience)
	defer cancel()
	own, refusal := p.cfg.Answer(kind, body) // first, because a broker may not answer for long
	answered := Answer{own, time.Now()}
	a, n := p.begin()
	select {
	case p.asking <- struct{}{}:
		defer func() { <-p.asking }()
		err = p.send(ctx, kind, n, body)
	case <-ctx.Done():
		err = failed("ask "+kind, ctx.Err())
	}
	if err == nil {
		select {
		case <-a.done:
		case <-ctx.Done():
		}
	}
	answers, missing = p.end(n)
	if refusal == nil {
		answers[p.cfg.Name] = answered
	} else {
		missing = append(missing, p.cfg.Name)
	}
	p.mu.Lock()
	missing = append(missing, p.clashesLocked()...) // one of the processes of that name has answered at most
	p.mu.Unlock()
	slices.Sort(missing)
	return answers, slices.Compact(missing), err
}

// begin registers a new question, so that its answers are accepted from now on, and returns it with its number.
func (p *Membership) begin() (*ask, uint64) {
	a := &ask{open: make(map[string]struct{}), answers: make(map[string]*partialAnswer), done: make(chan struct{})}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, name := range p.roster.names() {
		a.open[name] = struct{}{}
	}
	if len(a.open) == 0 {
		close(a.done)
	}
	p.asked++
	p.asks[p.asked] = a
	return a, p.asked
}

// send publishes a question with a number, which checkOutgoing has accepted, for all other nodes. It blocks on the
// engine, at most until ctx ends, and returns when the engine has accepted the question. The error is that of
// Ask.
func (p *Membership) send(ctx context.Context, kind string, n uint64, body []byte) error {
	h := p.header(typeAsk)
	h.Kind, h.N = kind, n
	if err := p.cfg.Broker.Publish(ctx, AllChannel, encode(h, body)); err != nil {
		return failed("ask "+kind, err)
	}
	return nil
}

// checkOutgoing returns an error for a kind or a body that no message can have.
func checkOutgoing(kind string, body []byte) error {
	if err := CheckName(kind); err != nil {
		return fmt.Errorf("membership: kind %w", err)
	}
	if len(body) > MaxBodyBytes {
		return fmt.Errorf("membership: body of %s has %d bytes, at most %d are allowed", kind, len(body), MaxBodyBytes)
	}
	return nil
}

// end removes a question and returns the complete answers and the nodes without one.
func (p *Membership) end(n uint64) (answers map[string]Answer, missing []string) {
	p.mu.Lock()
	a := p.asks[n]
	delete(p.asks, n)
	for _, from := range a.answers {
		p.answerBytes -= from.cost
	}
	p.mu.Unlock()
	missing = a.failed
	for name := range a.open {
		missing = append(missing, name)
	}
	answers = make(map[string]Answer, len(a.answers)+1)
	for name, from := range a.answers {
		switch {
		case !from.closed || from.failed:
		case len(from.parts) == 1:
			answers[name] = Answer{from.parts[0], from.received}
		default:
			answers[name] = Answer{bytes.Join(from.parts, nil), from.received}
		}
	}
	return answers, missing
}

// handleAnswer handles a part of an answer.
func (p *Membership) handleAnswer(channel string, h header, body []byte) {
	p.mu.Lock()
	taken, fits := p.takePartLocked(h, body)
	p.mu.Unlock()
	switch {
	case !fits:
		p.drop(&p.overflow, channel, "answer too large")
	case !taken:
		p.stray.Add(1)
	}
}

// takePartLocked adds a part to the answer of an open question. taken reports that the part belonged to one, fits that
// it is within the bounds.
func (p *Membership) takePartLocked(h header, body []byte) (taken, fits bool) {
	a := p.asks[h.N]
	if a == nil || h.To != p.run || h.From == p.cfg.Name {
		return false, true
	}
	from := a.answers[h.From]
	if from == nil {
		if len(a.answers) >= maxNodes {
			return false, true
		}
		from = &partialAnswer{run: h.Run}
		a.answers[h.From] = from
	}
	if from.closed || from.run != h.Run || h.Part < len(from.parts) {
		return false, true
	}
	cost := len(body) + partCost
	fits = from.cost+cost <= MaxAnswerBytes+MaxAnswerBytes/8 && p.answerBytes+cost <= maxAnswersBytes
	inOrder := h.Part == len(from.parts)
	if h.Refused || !inOrder || !fits {
		p.answerBytes -= from.cost
		*from = partialAnswer{run: h.Run, closed: true, failed: true}
		a.failed = append(a.failed, h.From)
		a.close(h.From)
		return inOrder, fits
	}
	from.parts = append(from.parts, body)
	from.cost += cost
	p.answerBytes += cost
	if !h.More {
		from.closed, from.received = true, time.Now()
		a.close(h.From)
	}
	return true, true
}

// answer answers a question of another node, part by part.
func (p *Membership) answer(ctx context.Context, j job) {
	// The asking node does not wait longer; a late answer would only delay the next one.
	ctx, cancel := context.WithDeadline(ctx, j.at.Add(p.cfg.Patience))
	defer cancel()
	if ctx.Err() != nil {
		p.drop(&p.overflow, AllChannel, "question expired in the queue")
		return
	}
	body, err := p.cfg.Answer(j.Kind, j.body)
	h := p.header(typeAnswer)
	h.To, h.N = j.Run, j.N
	switch {
	case err != nil:
		p.log.Debug("membership: answering a question failed", slog.String("kind", j.Kind), slog.Any("error", err))
		h.Refused, body = true, nil
	case len(body) > MaxAnswerBytes:
		p.log.Error("membership: answer too large", slog.String("kind", j.Kind), slog.Int("bytes", len(body)))
		h.Refused, body = true, nil
	}
	for ; ; h.Part++ {
		part := body[:min(len(body), partBytes)]
		body = body[len(part):]
		h.More = len(body) > 0
		if err := p.cfg.Broker.Publish(ctx, inboxPrefix+j.From, encode(h, part)); err != nil {
			p.answerFailed(ctx, j, err)
			return
		}
		if !h.More {
			return
		}
	}
}

// answerFailed logs that the broker did not accept an answer. One that it refuses, such as for its size, is worth a
// warning: the asking node only sees that this one is missing.
func (p *Membership) answerFailed(ctx context.Context, j job, err error) {
	const message = "membership: sending an answer failed"
	level := slog.LevelDebug
	if ctx.Err() == nil && !errors.Is(err, broker.ErrUnavailable) && p.mayWarn(message) {
		level = slog.LevelWarn
	}
	p.log.Log(ctx, level, message,
		slog.String("kind", j.Kind), slog.String("node", j.From), slog.Any("error", err))
}
