package loadgen

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/redis/rueidis"
	"golang.org/x/sync/errgroup"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/message"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/systems"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/worker"
	"github.com/shoal-go/shoal/internal/load"
)

// publish sends messages and blocks until they have been accepted. It is called from one goroutine.
type publish func(messages []message.Message) error

// Intake describes publishers: each sends one request of Messages after the other while For lasts, to a channel of its own or,
// where that is the work, over all.
type Intake struct {
	results.Timed
	System, Addr string // the address may be the URL of a broker
}

// TakenIn tells how many messages were published in which time, the times of the requests, and how many messages the
// clients have received since they connected.
type TakenIn struct {
	Published, Received uint64
	Took, CPU           int64
	Latency             load.Percentiles
}

// Intake publishes, and returns when the clients, if there are any, have not received anything for a while.
func (c *Clients) Intake(q Intake, a *TakenIn) (err error) {
	all, closers, err := q.open()
	defer func() { err = errors.Join(err, closers.Close()) }()
	if err != nil {
		return err
	}
	times := load.NewTimes()
	counts := make([]uint64, len(all))
	began := time.Now()
	var publishing errgroup.Group
	for i, send := range all {
		publishing.Go(func() (err error) {
			counts[i], err = q.publish(i, send, began.Add(q.For), times)
			return err
		})
	}
	err = publishing.Wait() // the first failure: they are usually alike
	a.Took = int64(time.Since(began))
	for _, n := range counts {
		a.Published += n
	}
	a.Latency = times.Percentiles()
	a.Received, a.CPU = c.quiet(a.Published), worker.CPU()
	return err
}

// quiet waits until the clients have received as many messages as were published, or none for a while: states that are out
// of date are not received.
func (c *Clients) quiet(published uint64) (received uint64) {
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

// publish publishes by one publisher until some time, and returns the number of messages.
func (q Intake) publish(number int, send publish, end time.Time, times *load.Times) (published uint64, err error) {
	messages := make([]message.Message, q.Messages)
	next := number                                              // upload; the publishers begin with different ones
	for now := time.Now(); published == 0 || now.Before(end); { // at least once, on a machine that is busy
		for i := range messages {
			messages[i] = message.Message{
				Channel: message.Channel(next % q.Channels), Sent: now.UnixNano(), Size: q.Bytes,
				Number: published + uint64(i), // not negative
			}
			if q.Work == results.ManyPost {
				next += q.Publishers
			}
		}
		if err := send(messages); err != nil {
			return published, err
		}
		published += uint64(len(messages))
		then := time.Now()
		times.Add(int64(then.Sub(now)))
		now = then
	}
	return published, nil
}

// open connects the publishers, to a broker by a connection that they have in common. The closers are valid even if there is an
// error.
func (q Intake) open() (all []publish, closers worker.Closers, err error) {
	ctx := context.Background()
	common := func(one func(message.Message) error) []publish {
		return slices.Repeat([]publish{func(messages []message.Message) error { return systems.Each(messages, one) }}, q.Publishers)
	}
	switch {
	case strings.HasPrefix(q.Addr, "redis:"):
		client, err := rueidis.NewClient(rueidis.MustParseURL(q.Addr)) // of this program's server
		if err != nil {
			return nil, nil, err
		}
		return common(func(m message.Message) error {
			command := client.B().Publish().Channel("upload:" + m.Channel).Message(rueidis.BinaryString(m.JSON())).Build()
			return client.Do(ctx, command).Error()
		}), worker.Closers{func() error { client.Close(); return nil }}, nil
	case strings.HasPrefix(q.Addr, "nats:"):
		conn, err := nats.Connect(q.Addr)
		if err != nil {
			return nil, nil, err
		}
		return common(func(m message.Message) error {
			_, err := conn.RequestWithContext(ctx, "upload."+m.Channel, m.JSON()) // acknowledged by JetStream
			return err
		}), worker.Closers{func() error { conn.Close(); return nil }}, nil
	}
	entry, err := systems.Find(q.System)
	if err != nil {
		return nil, nil, err
	}
	for range q.Publishers {
		conn, err := net.Dial("tcp", q.Addr)
		if err != nil {
			return nil, closers, err
		}
		all, closers = append(all, publishHTTP(conn, entry)), append(closers, conn.Close)
	}
	return all, closers, nil
}

// publishHTTP publishes through an HTTP API. The client is as little as possible, since it runs on the server's cores.
func publishHTTP(conn net.Conn, e systems.Entry) publish {
	contentType := "application/x-ndjson"
	if e.Command != "" {
		contentType = "application/json"
	}
	host, answers := conn.RemoteAddr().String(), bufio.NewReader(conn)
	var request []byte
	return func(messages []message.Message) error {
		path, body := e.Publishing(messages)
		request = fmt.Appendf(request[:0], "POST %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n", path, host, systems.APIKey)
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
}
