package loadgen

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/redis/rueidis"
	"golang.org/x/sync/errgroup"

	"github.com/shoal-go/shoal/internal/load"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/message"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/systems"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/worker"
)

// publish sends messages and blocks until they have been accepted. It is called from one goroutine.
type publish func(ctx context.Context, messages []message.Message) error

// Intake describes publishers: each sends one request of Messages after the other while For lasts, to a channel of its own or,
// where that is the work, over all.
type Intake struct {
	results.Params
	System, Addr string // the address may be the URL of a broker
	For          time.Duration
}

// TakenIn tells how many messages were published in which time, the times of the requests, and how many messages the
// clients have received since they connected.
type TakenIn struct {
	Published, Received uint64
	Took, CPU           int64
	Latency             load.Percentiles
}

// Intake publishes, and returns when the clients, if there are any, have not received anything for a while.
func (c *clients) Intake(q Intake, a *TakenIn) error {
	open, end, err := q.target(c.ctx)
	if err != nil {
		return err
	}
	defer end()
	all := make([]*publisher, q.Publishers)
	times := load.NewTimes()
	for i := range all {
		send, end, err := open()
		if err != nil {
			return err
		}
		defer end()
		all[i] = &publisher{q: q, number: i, send: send, times: times}
	}
	began := time.Now()
	var publishing errgroup.Group
	for _, one := range all {
		publishing.Go(func() error { return one.run(c.ctx, began.Add(q.For)) })
	}
	err = publishing.Wait() // the first failure: they are usually alike
	a.Took = int64(time.Since(began))
	for _, one := range all {
		a.Published += one.published
	}
	a.Latency = times.Percentiles()
	a.Received, a.CPU = c.quiet(a.Published), worker.CPU()
	return err
}

// quiet waits until the clients have received as many messages as were published, or none for a while: states that are out
// of date are not received.
func (c *clients) quiet(published uint64) (received uint64) {
	const often, long = 10 * time.Millisecond, 300 * time.Millisecond
	if c.fleet == nil {
		return 0
	}
	received = c.fleet.Counts().Messages
	for since := time.Now(); received < published && time.Since(since) < long; {
		time.Sleep(often)
		if now := c.fleet.Counts().Messages; now != received {
			received, since = now, time.Now()
		}
	}
	return received
}

// publisher is a goroutine that publishes.
type publisher struct {
	q         Intake
	number    int
	send      publish
	published uint64
	times     *load.Times
}

func (p *publisher) run(ctx context.Context, end time.Time) error {
	messages := make([]message.Message, p.q.Messages)
	next := p.number                                              // upload; the publishers begin with different ones
	for now := time.Now(); p.published == 0 || now.Before(end); { // at least once, on a machine that is busy
		for i := range messages {
			messages[i] = message.Message{
				Channel: message.Channel(next % p.q.Channels), Sent: now.UnixNano(), Size: p.q.Bytes,
				Number: p.published + uint64(i), // not negative
			}
			if p.q.Work == results.ManyPost {
				next += p.q.Publishers
			}
		}
		if err := p.send(ctx, messages); err != nil {
			return err
		}
		p.published += uint64(len(messages))
		then := time.Now()
		p.times.Add(int64(then.Sub(now)))
		now = then
	}
	return nil
}

// target returns a function that opens the connection of one publisher. To a broker all have one in common.
func (q Intake) target(ctx context.Context) (open func() (publish, func(), error), end func(), err error) {
	nothing := func() {}
	common := func(one func(ctx context.Context, m message.Message) error) func() (publish, func(), error) {
		return func() (publish, func(), error) {
			return func(ctx context.Context, messages []message.Message) error {
				return systems.Each(messages, func(m message.Message) error { return one(ctx, m) })
			}, nothing, nil
		}
	}
	switch {
	case strings.HasPrefix(q.Addr, "redis:"):
		options, err := rueidis.ParseURL(q.Addr)
		if err != nil {
			return nil, nil, err
		}
		client, err := rueidis.NewClient(options)
		if err != nil {
			return nil, nil, err
		}
		return common(func(ctx context.Context, m message.Message) error {
			command := client.B().Publish().Channel("upload:" + m.Channel).Message(rueidis.BinaryString(m.JSON())).Build()
			return client.Do(ctx, command).Error()
		}), client.Close, nil
	case strings.HasPrefix(q.Addr, "nats:"):
		conn, err := nats.Connect(q.Addr)
		if err != nil {
			return nil, nil, err
		}
		return common(func(ctx context.Context, m message.Message) error {
			_, err := conn.RequestWithContext(ctx, "upload."+m.Channel, m.JSON()) // acknowledged by JetStream
			return err
		}), conn.Close, nil
	}
	entry, err := systems.Find(q.System)
	if err != nil {
		return nil, nil, err
	}
	return func() (publish, func(), error) { return openHTTP(ctx, q.Addr, entry) }, nothing, nil
}

// openHTTP connects to an HTTP API. The client is as little as possible, since it runs on the server's cores.
func openHTTP(ctx context.Context, addr string, e systems.Entry) (publish, func(), error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, nil, err
	}
	contentType := "application/x-ndjson"
	if e.Command != "" {
		contentType = "application/json"
	}
	answers := bufio.NewReader(conn)
	var request []byte
	send := func(_ context.Context, messages []message.Message) error {
		path, body := e.Publishing(messages)
		request = fmt.Appendf(request[:0], "POST %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n", path, addr, systems.APIKey)
		request = fmt.Appendf(request, "Content-Type: %s\r\nContent-Length: %d\r\n\r\n", contentType, len(body))
		if _, err := conn.Write(append(request, body...)); err != nil {
			return err
		}
		answer, err := http.ReadResponse(answers, nil)
		if err != nil {
			return err
		}
		text, err := io.ReadAll(answer.Body)
		_ = answer.Body.Close()
		if err == nil && (answer.StatusCode >= http.StatusMultipleChoices || strings.Contains(string(text), `"error"`)) {
			err = fmt.Errorf("loadgen: %s answers %s: %.200s", e.Name, answer.Status, text)
		}
		return err
	}
	return send, func() { _ = conn.Close() }, nil
}
