package benchmarks

import (
	"context"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/shoal-go/shoal/manager"
)

func newManager(b *testing.B) *manager.Manager {
	b.Helper()
	m, err := manager.New(manager.Options{MaxSubscriptionsPerUser: -1})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := m.Close(context.Background()); err != nil {
			b.Error(err)
		}
	})
	return m
}

// message is an encoded message with about as many bytes as asked for.
func message(b *testing.B, uploadID string, size int) manager.Encoded {
	b.Helper()
	frame := len(`{"action":"note","pad":""}`)
	text := fmt.Sprintf(`{"action":"note","pad":"%s"}`, strings.Repeat("x", size-frame))
	e, err := manager.Parse(uploadID, []byte(text), time.Now())
	if err != nil {
		b.Fatal(err)
	}
	return e
}

func follow(b *testing.B, m *manager.Manager, user, uploadID string) *sink {
	b.Helper()
	c := new(sink)
	if err := m.Connect(user, c); err != nil {
		b.Fatal(err)
	}
	if err := m.SubscribeConn(context.Background(), user, c, uploadID, manager.SubscribeOptions{}); err != nil {
		b.Fatal(err)
	}
	return c
}

// BenchmarkFanOut publishes to one upload with a number of subscribers. ns/receiver is the figure.
func BenchmarkFanOut(b *testing.B) {
	for _, subs := range []int{1, 10, 100, 1_000, 10_000, 100_000, 1_000_000} {
		b.Run(fmt.Sprintf("subs=%d/payload=256", subs), func(b *testing.B) {
			m := newManager(b)
			for i := range subs {
				follow(b, m, strconv.Itoa(i), "upload")
			}
			e := message(b, "upload", 256)
			runtime.GC()
			b.ReportAllocs()
			for b.Loop() {
				if d, err := m.SendToUploadSubscribers("upload", e); err != nil || d.Queued != subs {
					b.Fatal(d, err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(subs), "ns/receiver")
		})
	}
}

// BenchmarkPublish publishes messages to large uploads in turn, which are sent in bursts, and ends when all of them have
// been sent.
func BenchmarkPublish(b *testing.B) {
	const subs = 10_000
	for _, uploads := range []int{1, 4} {
		b.Run(fmt.Sprintf("subs=%d/uploads=%d/payload=256", subs, uploads), func(b *testing.B) {
			m := newManager(b)
			for i := range uploads * subs {
				follow(b, m, strconv.Itoa(i), "upload-"+strconv.Itoa(i%uploads))
			}
			e := message(b, "", 256)
			runtime.GC()
			b.ReportAllocs()
			var published uint64
			for ; b.Loop(); published++ {
				id := "upload-" + strconv.FormatUint(published%uint64(uploads), 10)
				if _, err := m.Publish(context.Background(), id, e); err != nil {
					b.Fatal(err)
				}
			}
			b.StartTimer() // Loop has stopped it
			for m.Stats().Queued < published*subs {
				runtime.Gosched()
			}
			b.StopTimer()
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(published*subs), "ns/receiver")
		})
	}
}

// BenchmarkUnicast publishes to one after the other of many uploads with one subscriber each.
func BenchmarkUnicast(b *testing.B) {
	for _, uploads := range []int{1_000, 1_000_000} {
		b.Run(fmt.Sprintf("uploads=%d/payload=256", uploads), func(b *testing.B) {
			m := newManager(b)
			ids := make([]string, uploads)
			for i := range ids {
				ids[i] = "upload-" + strconv.Itoa(i)
				follow(b, m, strconv.Itoa(i), ids[i])
			}
			e := message(b, "", 256)
			runtime.GC()
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if _, err := m.SendToUploadSubscribers(ids[i%uploads], e); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkMemory reports the memory of a connection and its one subscription in the registry, for subscriptions
// to one upload and to one each.
func BenchmarkMemory(b *testing.B) {
	const n = 1_000_000
	for name, uploadOf := range map[string]func(int) string{
		"shared": func(int) string { return "upload" },
		"own":    func(i int) string { return "upload-" + strconv.Itoa(i) },
	} {
		b.Run("uploads="+name+"/connections="+strconv.Itoa(n), func(b *testing.B) {
			for b.Loop() {
				m := newManager(b)
				conns := make([]*sink, n)
				start := heap()
				for i := range conns {
					conns[i] = new(sink)
					if err := m.Connect("user-"+strconv.Itoa(i), conns[i]); err != nil {
						b.Fatal(err)
					}
				}
				connected := heap()
				for i, c := range conns {
					if err := m.SubscribeConn(context.Background(), "user-"+strconv.Itoa(i), c, uploadOf(i), manager.SubscribeOptions{}); err != nil {
						b.Fatal(err)
					}
				}
				subscribed := heap()
				const ofSink = 64
				b.ReportMetric(float64(connected-start)/n-ofSink, "B/connection")
				b.ReportMetric(float64(subscribed-connected)/n, "B/subscription")
				runtime.KeepAlive(conns)
			}
		})
	}
}

// heap returns the bytes in use after a collection.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
