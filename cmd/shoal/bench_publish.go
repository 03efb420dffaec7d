package main

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// benchOvertime is how long after the planned end messages are still published by a run that is behind.
const benchOvertime = 10 * time.Second

// publishing publishes the messages of a plan. Its counts may be read while it works.
type publishing struct {
	bench *bench
	plan  *plan
	// accepted counts the messages that the server has taken, by upload, and total all of them.
	accepted []atomic.Int64
	total    atomic.Int64
}

func newPublishing(b *bench, p *plan) *publishing {
	return &publishing{bench: b, plan: p, accepted: make([]atomic.Int64, p.uploads)}
}

// run publishes until the plan is done, ctx ends, a request fails, or it is too late. A request that is under
// way is not cancelled: it would be unknown whether its messages are published.
func (p *publishing) run(ctx context.Context) error {
	ctx, cancel := context.WithDeadline(ctx, p.plan.end().Add(benchOvertime))
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	workers := min(p.bench.flags.Publishers, p.plan.uploads)
	for i := range workers {
		w := &benchWorker{publishing: p, number: i, workers: workers}
		group.Go(func() (err error) {
			if w.publisher, err = p.bench.newPublisher(); err != nil {
				return err
			}
			return w.run(ctx)
		})
	}
	return group.Wait()
}

// benchWorker publishes the messages of its share of the uploads, one request at a time.
type benchWorker struct {
	*publishing
	number, workers int
	publisher       *publisher
	next            int // the first message that has not been looked at
	line            []byte
}

// benchBatch is messages that are due, for one upload.
type benchBatch struct {
	batch
	upload int
}

func (w *benchWorker) run(ctx context.Context) error {
	defer w.publisher.close()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		due := w.due(time.Now())
		if len(due) == 0 {
			if w.next == w.plan.messages {
				return nil
			}
			timer.Reset(time.Until(w.plan.at(w.next)))
			select {
			case <-ctx.Done():
			case <-timer.C:
			}
		}
		for _, b := range due {
			if ctx.Err() != nil {
				return nil
			}
			if err := w.send(ctx, b); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *benchWorker) send(ctx context.Context, b *benchBatch) error {
	w.publisher.uploadID = w.bench.uploadID(b.upload)
	before := w.publisher.total
	err := w.publisher.send(context.WithoutCancel(ctx), &b.batch)
	if err != nil {
		err = errors.New(w.publisher.problem(err))
	}
	w.accepted[b.upload].Add(int64(w.publisher.total - before))
	w.total.Add(int64(w.publisher.total - before))
	return err
}

// due collects the messages that are due and this worker's, as far as one round of requests may go.
func (w *benchWorker) due(now time.Time) []*benchBatch {
	var all []*benchBatch
	newest := make(map[int]*benchBatch)
	lines, bytes := 0, 0
	for ; w.next < w.plan.messages && lines < maxBatchLines && bytes < maxBatchBytes; w.next++ {
		upload := w.plan.upload(w.next)
		if upload%w.workers != w.number {
			continue
		}
		at := w.plan.at(w.next)
		if at.After(now) {
			break
		}
		w.line = appendBenchMessage(w.line[:0], at, int(w.bench.flags.Payload))
		b := newest[upload]
		if b == nil || !b.fits(w.line) {
			b = &benchBatch{batch: batch{first: 1}, upload: upload}
			newest[upload] = b
			all = append(all, b)
		}
		b.add(w.line)
		lines++
		bytes += len(w.line)
	}
	return all
}
