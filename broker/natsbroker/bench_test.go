package natsbroker_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/broker/natsbroker"
)

// counter counts messages.
type counter struct {
	ready chan struct{}
	once  sync.Once
	count atomic.Int64
	want  int64
	all   chan struct{}
}

func (c *counter) Receive(broker.Message) {
	if c.count.Add(1) == c.want {
		close(c.all)
	}
}
func (c *counter) Interrupted(...string) {}
func (c *counter) Health(error)          { c.once.Do(func() { close(c.ready) }) }

const benchedUploads = 100

// BenchmarkStore brings messages from one node to another, with many callers.
func BenchmarkStore(b *testing.B) {
	s := serve(b)
	for _, callers := range []int{1, 256} {
		b.Run(fmt.Sprintf("callers=%d/payload=256", callers), func(b *testing.B) {
			from := &counter{ready: make(chan struct{}), all: make(chan struct{})}
			to := &counter{ready: make(chan struct{}), all: make(chan struct{}), want: int64(b.N)}
			writer, reader := runBenched(b, s, from), runBenched(b, s, to)
			channels := make([]string, benchedUploads)
			for i := range channels {
				channels[i] = fmt.Sprint("upload:", i)
			}
			if err := reader.Subscribe(b.Context(), channels...); err != nil {
				b.Fatal(err)
			}
			payload := make([]byte, 256)
			var next atomic.Int64
			var running sync.WaitGroup
			b.ReportAllocs()
			b.ResetTimer()
			for range callers {
				running.Go(func() {
					for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
						if _, err := writer.Store(b.Context(), channels[i%benchedUploads], payload); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			running.Wait()
			if !b.Failed() {
				<-to.all
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
		})
	}
}

// BenchmarkHistory reads a channel's messages, stored in a row or between those of many other channels.
func BenchmarkHistory(b *testing.B) {
	for _, c := range []struct {
		messages, others int
		file             bool
	}{{10, 0, false}, {16, 2000, false}, {16, 2000, true}} {
		b.Run(fmt.Sprintf("messages=%d/others=%d/file=%t", c.messages, c.others, c.file), func(b *testing.B) {
			n := runStored(b, serve(b), c.file)
			fill(b, n, c.messages, c.others)
			for _, callers := range []int{1, 64} {
				b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) { benchKept(b, n, callers) })
			}
		})
	}
}

// fill stores messages of one channel, and equally many of each of the others in between.
func fill(b *testing.B, n *natsbroker.Broker, messages, others int) {
	b.Helper()
	var next atomic.Int64
	var running sync.WaitGroup
	for range 64 {
		running.Go(func() {
			for i := next.Add(1) - 1; i < int64(messages*(others+1)); i = next.Add(1) - 1 {
				channel := fmt.Sprint("upload:", i%int64(others+1))
				if _, err := n.Store(b.Context(), channel, make([]byte, 256)); err != nil {
					b.Error(err)
				}
			}
		})
	}
	running.Wait()
}

func benchKept(b *testing.B, n *natsbroker.Broker, callers int) {
	var next atomic.Int64
	var running sync.WaitGroup
	b.ReportAllocs()
	b.ResetTimer()
	for range callers {
		running.Go(func() {
			for next.Add(1) <= int64(b.N) {
				if _, err := n.History(b.Context(), "upload:0", broker.Position{}); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	running.Wait()
}

// BenchmarkClient is the baseline: the NATS client itself, from one connection to another through the
// same stream, publishing asynchronously.
func BenchmarkClient(b *testing.B) {
	s := serve(b)
	h := &counter{ready: make(chan struct{}), all: make(chan struct{})}
	runBenched(b, s, h) // makes the stream
	all, got := make(chan struct{}), int64(0)
	conn, other := benchedConn(b, s), benchedConn(b, s)
	_, err := other.Subscribe("live.upload.>", func(*nats.Msg) {
		if got++; got == int64(b.N) {
			close(all)
		}
	})
	if err == nil {
		err = other.Flush()
	}
	if err != nil {
		b.Fatal(err)
	}
	js, err := jetstream.New(conn, jetstream.WithPublishAsyncMaxPending(256))
	if err != nil {
		b.Fatal(err)
	}
	payload := make([]byte, 256)
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		if _, err := js.PublishAsync(fmt.Sprint("upload.", i%benchedUploads), payload); err != nil {
			b.Fatal(err)
		}
	}
	<-js.PublishAsyncComplete()
	<-all
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
}

func benchedConn(b *testing.B, s *server.Server) *nats.Conn {
	b.Helper()
	conn, err := nats.Connect(s.ClientURL())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(conn.Close)
	return conn
}

func runBenched(b *testing.B, s *server.Server, h *counter) *natsbroker.Broker {
	b.Helper()
	return runWith(b, natsbroker.Options{URL: s.ClientURL()}, h)
}

// runStored runs a broker without subscribers.
func runStored(b *testing.B, s *server.Server, file bool) *natsbroker.Broker {
	b.Helper()
	h := &counter{ready: make(chan struct{}), all: make(chan struct{})}
	return runWith(b, natsbroker.Options{URL: s.ClientURL(), File: file}, h)
}

func runWith(b *testing.B, opt natsbroker.Options, h *counter) *natsbroker.Broker {
	b.Helper()
	n, err := natsbroker.New(opt)
	if err != nil {
		b.Fatal(err)
	}
	run(b, n, h)
	<-h.ready
	return n
}
