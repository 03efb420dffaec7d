package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/shoal-go/shoal/client"
)

// publisherOptions configures a publisher.
type publisherOptions struct {
	server, key, uploadID string
	// retryFor is the time for which a server out of reach is tried again. 0: it is tried once.
	retryFor time.Duration
	// notes gets a line when a request is tried again; nil: none.
	notes io.Writer
	// hasLines is whether the messages are lines of an input, which an error then names.
	hasLines bool
}

// publisher sends batches of messages to one upload at a time and counts the accepted ones.
type publisher struct {
	publisherOptions
	client *client.Client
	total  int
	last   client.Position
	noted  bool // the current interruption is reported
}

func newPublisher(o publisherOptions) (*publisher, error) {
	p := &publisher{publisherOptions: o}
	timeout := o.retryFor
	if timeout == 0 {
		timeout = -1
	}
	var err error
	p.client, err = client.New(o.server, client.Options{
		APIKey: o.key, ConnectTimeout: publishTimeout, PublishTimeout: timeout, OnRetry: p.note,
	})
	if err != nil {
		return nil, usageError{strings.TrimPrefix(err.Error(), "client: ")}
	}
	return p, nil
}

// publishTimeout bounds one request.
const publishTimeout = 30 * time.Second

func (p *publisher) close() { _ = p.client.Close() } // it has no error

// note reports an interruption, once.
func (p *publisher) note(err error, _ time.Duration) {
	if p.notes != nil && !p.noted {
		p.noted = true
		late := &client.UnreachableError{Err: err}
		fmt.Fprintf(p.notes, "shoal: %s; trying again for %v\n", p.problem(late), p.retryFor)
	}
}

// send publishes a batch, unless it holds no message. If a message is invalid, the messages before it are published.
func (p *publisher) send(ctx context.Context, b *batch) error {
	messages, numbers := b.split()
	if len(messages) == 0 {
		return nil
	}
	err := p.publish(ctx, messages)
	var refused *client.APIError
	if !errors.As(err, &refused) || refused.Line == 0 || !p.hasLines {
		return err
	}
	invalid := refused.Line - 1
	problem := fmt.Errorf("the server refused: line %d: %s", numbers[invalid], refused.Detail)
	if invalid > 0 && !errors.Is(err, client.ErrUnreachable) {
		if err := p.publish(ctx, messages[:invalid]); err != nil {
			return err
		}
	}
	return problem
}

// publish publishes messages and counts them.
func (p *publisher) publish(ctx context.Context, messages []any) error {
	at, err := p.client.Publish(ctx, p.uploadID, messages...)
	var late *client.UnreachableError
	switch {
	case err == nil:
		p.total += len(messages)
		p.last, p.noted = at, false
	case errors.As(err, &late):
		p.total += late.Published
	}
	return err
}

// explain returns the error of a command, with the number of published messages.
func (p *publisher) explain(err error) error {
	text := p.problem(err)
	var late *client.UnreachableError
	if errors.As(err, &late) && late.After > 0 {
		text = fmt.Sprintf("given up after %v: %s", late.After, text)
	}
	if p.total > 0 {
		text += fmt.Sprintf("; %d messages before that are published, up to offset %d", p.total, p.last.Offset)
	}
	return errors.New(text)
}

// problem describes an error of the client, with the remedy and without the password of a URL.
func (p *publisher) problem(err error) string {
	address := p.server
	if u, failed := url.Parse(p.server); failed == nil {
		address = u.Redacted()
	}
	var late *client.UnreachableError
	if errors.As(err, &late) {
		err = late.Err
	}
	var refused *client.APIError
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nothing answers at " + address + "; start the server with shoal serve, or name its address with --url"
	case !errors.As(err, &refused) && late != nil && !strings.HasPrefix(err.Error(), "client: "):
		reason, _ := networkReason(err)
		return fmt.Sprintf("cannot reach the server at %s: %s", address, reason)
	case refused == nil:
		return strings.TrimPrefix(err.Error(), "client: ")
	case errors.Is(err, client.ErrUnauthorized):
		return "the server refused: " + refused.Detail + "; check --api-key"
	case errors.Is(err, client.ErrNotShoal):
		return refused.Detail + "; check that --url is that of a shoal server"
	}
	return "the server refused: " + refused.Detail
}

// split returns the messages of a batch and the numbers of their lines.
func (b *batch) split() (messages []any, numbers []int) {
	number := b.first
	for line := range bytes.Lines(b.body.Bytes()) {
		if line = bytes.TrimSpace(line); len(line) > 0 {
			messages, numbers = append(messages, line), append(numbers, number)
		}
		number++
	}
	return messages, numbers
}
