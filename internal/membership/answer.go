package membership

import (
	"context"
	"log/slog"
)

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
			p.log.Debug("membership: sending an answer failed", slog.String("kind", j.Kind), slog.Any("error", err))
			return
		}
		if !h.More {
			return
		}
	}
}
