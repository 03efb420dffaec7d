package outbox

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/shoal-go/shoal/internal/frame"
)

// An op is one step of a random run.
type op struct {
	kind   string
	upload string
	key    string
	size   int // of a body, or the number of bytes that the client reads
	// deferred: the message is sent with SendDeferred.
	deferred bool
}

var (
	ops = rapid.SliceOfN(rapid.Custom(func(t *rapid.T) op {
		return op{
			kind: rapid.SampledFrom([]string{
				"state", "state", "state", "state", "event", "terminal", "ping", "pong", "read", "read", "settle", "flush",
			}).Draw(t, "kind"),
			upload: rapid.SampledFrom([]string{"", "a", "a", "a", "b"}).Draw(t, "upload"),
			key:    rapid.SampledFrom([]string{"", "1", "2"}).Draw(t, "key"),
			size:   rapid.IntRange(0, 1500).Draw(t, "size"),

			deferred: rapid.Bool().Draw(t, "deferred"),
		}
	}), 1, 150)
	bounds = rapid.Custom(func(t *rapid.T) Options {
		return Options{
			Writers:     1,
			MaxMessages: rapid.IntRange(1, 60).Draw(t, "messages"),
			MaxBytes:    rapid.IntRange(1000, 60_000).Draw(t, "bytes"),
			MaxAge:      time.Hour,
		}
	})
)

type sentMessage struct {
	class frame.Class
	key   string
}

// run is an outbox under test and its history. Its client reads as many bytes as it is
// allowed to, and all remaining bytes at the end.
type run struct {
	box    *Outbox
	settle func()

	sent   map[string][]sentMessage // an upload's messages, by number
	pings  int
	pong   string // the body of the newest
	counts [Dropped + 1]int
	// flush: the test owns the outbox and has to flush it.
	flush bool

	allow  chan int
	stream chan []byte
}

func newRun(p *Pool, server, client net.Conn, settle func()) *run {
	r := &run{
		box:    p.Open(server, Config{Variant: frame.V1}),
		settle: settle,
		sent:   make(map[string][]sentMessage),
		allow:  make(chan int, 1000),
		stream: make(chan []byte, 1),
	}
	go func() {
		var all []byte
		buf := make([]byte, 64<<10)
		for n := range r.allow {
			got, _ := client.Read(buf[:n+1])
			all = append(all, buf[:got]...)
		}
		rest, _ := io.ReadAll(client)
		_ = client.Close()
		r.stream <- append(all, rest...)
	}()
	return r
}

var sharedPing = frame.New(frame.Ping, frame.Control, []byte("ping"))

func (r *run) do(s op) error {
	switch s.kind {
	case "state":
		r.send(s, frame.State)
	case "event":
		r.send(s, frame.Event)
	case "terminal":
		r.send(s, frame.Terminal)
	case "ping":
		r.counts[r.box.Send(sharedPing)]++
		r.pings++
	case "pong":
		r.pong = fmt.Sprint(s.size)
		r.counts[r.box.Send(frame.New(frame.Pong, frame.Control, []byte(r.pong)))]++
	case "read":
		r.allow <- s.size
	case "flush":
		r.flushOwned()
	case "settle":
		r.flushOwned()
		r.settle()
	}
	return r.checkBounds()
}

func (r *run) send(s op, class frame.Class) {
	number := len(r.sent[s.upload])
	f := keyed(s.upload, s.key, class, number, s.size)
	var outcome Outcome
	if s.deferred && !r.flush {
		outcome, r.flush = r.box.SendDeferred(f)
	} else {
		outcome = r.box.Send(f)
	}
	switch outcome {
	case Queued, Conflated:
		r.sent[s.upload] = append(r.sent[s.upload], sentMessage{class, s.key})
		r.counts[outcome]++
	case Dropped:
		r.counts[Dropped]++
	}
}

func (r *run) flushOwned() {
	if r.flush {
		r.flush = false
		r.box.Flush()
	}
}

// checkBounds compares the queued frames with the counted amounts and these with the limits.
func (r *run) checkBounds() error {
	o := r.box
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closing || o.dead {
		return nil
	}
	var waiting amount
	for e := range o.data.all() {
		waiting.add(e.frame)
	}
	held := o.data.unwritten
	if held.frames < waiting.frames || held.bytes < waiting.bytes || (!o.owned && held != amount{}) {
		return fmt.Errorf("counted are %+v, waiting %+v, owned: %v", held, waiting, o.owned)
	}
	if bound := o.pool.limit; held.frames > bound.frames || held.bytes > bound.bytes {
		return fmt.Errorf("%+v wait, the bound is %+v", held, bound)
	}
	return nil
}

// finish closes the outbox and compares the received frames with the sent ones.
func (r *run) finish(t testing.TB, p *Pool) error {
	r.box.Close(frame.NewClose(1000, ""))
	r.flushOwned()
	close(r.allow)
	go func() { readUntilGone(r.box, r.box.conn) }()
	stream := <-r.stream
	<-r.box.Done()
	overflowed := r.box.Overflowed()
	if overflowed != (r.counts[Dropped] > 0) {
		return fmt.Errorf("overflowed: %v, but %d were dropped", overflowed, r.counts[Dropped])
	}
	if got := p.Stats(); got.Stalled != 0 || (got.Overflowed == 1) != overflowed {
		return fmt.Errorf("counted %+v, the outcomes were %v", got, r.counts)
	}
	return r.compare(t, stream, overflowed)
}

func (r *run) compare(t testing.TB, stream []byte, overflowed bool) error {
	frames, err := readFrames(bytes.NewReader(stream))
	if err != nil {
		return fmt.Errorf("the client got no whole frames: %w", err)
	}
	want := uint16(1000)
	if overflowed {
		want = 1013
	}
	last := len(frames) - 1
	if last < 0 || frames[last].closeCode() != want {
		return fmt.Errorf("the stream does not end with a close frame with %d", want)
	}
	of := make(map[string]*accounted)
	pings, pong := 0, ""
	for _, f := range frames[:last] {
		switch f.opcode {
		case frame.Ping:
			pings++
		case frame.Pong:
			pong = string(f.body)
		default:
			if err := r.follow(of, f.message(t)); err != nil {
				return err
			}
		}
	}
	if pings > r.pings || (!overflowed && (pong != r.pong || (pings == 0) != (r.pings == 0))) {
		return fmt.Errorf("%d of %d pings came; the last pong is %q, want %q", pings, r.pings, pong, r.pong)
	}
	for upload, sent := range r.sent {
		u := of[upload]
		if overflowed {
			continue
		}
		if u == nil || u.next != len(sent) {
			return fmt.Errorf("of upload %q %+v is accounted for, %d messages were sent", upload, u, len(sent))
		}
		if err := u.complete(upload); err != nil {
			return err
		}
	}
	return nil
}

// accounted is the part of an upload's messages that the client has received or that newer states have replaced.
type accounted struct {
	next   int            // the number of the next message
	missed map[string]int // states that were not received and not replaced yet, by key
}

// follow checks that m comes after all received messages of its upload, and that each message in between is a state
// that m replaced, or that a later state with the same key will replace before an event comes.
func (r *run) follow(of map[string]*accounted, m message) error {
	u := of[m.Upload]
	if u == nil {
		u = &accounted{missed: make(map[string]int)}
		of[m.Upload] = u
	}
	sent := r.sent[m.Upload]
	if m.Number < u.next || m.Number >= len(sent) {
		return fmt.Errorf("message %d of upload %q came, message %d is the next", m.Number, m.Upload, u.next)
	}
	for ; u.next < m.Number; u.next++ {
		if sent[u.next].class != frame.State || m.Upload == "" {
			return fmt.Errorf("message %d of upload %q is missing", u.next, m.Upload)
		}
		u.missed[sent[u.next].key]++
	}
	u.next++
	if got := sent[m.Number]; got.class == frame.State {
		if m.Skipped != u.missed[got.key] {
			return fmt.Errorf("message %d of upload %q replaced %d, want %d", m.Number, m.Upload, m.Skipped, u.missed[got.key])
		}
		delete(u.missed, got.key)
		return nil
	}
	return u.complete(m.Upload)
}

// complete checks that no state is missing.
func (u *accounted) complete(upload string) error {
	if len(u.missed) > 0 {
		return fmt.Errorf("states of upload %q are missing, by key: %v", upload, u.missed)
	}
	return nil
}

func (r *run) all(t testing.TB, p *Pool, steps []op) error {
	for i, s := range steps {
		if err := r.do(s); err != nil {
			return fmt.Errorf("after step %d, %+v: %w", i, s, err)
		}
	}
	return r.finish(t, p)
}

func TestOutbox_AnySequenceOverPipe(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) { sequenceOverPipe(t, rt) })
}

// FuzzSequence is the same with operations that a fuzzer chooses.
func FuzzSequence(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		rapid.MakeFuzz(func(rt *rapid.T) { sequenceOverPipe(t, rt) })(t, data)
	})
}

func sequenceOverPipe(t *testing.T, rt *rapid.T) {
	opt, steps := bounds.Draw(rt, "bounds"), ops.Draw(rt, "ops")
	var err error
	synctest.Test(t, func(t *testing.T) {
		server, client := net.Pipe()
		p := NewPool(opt.withoutBurst())
		defer p.Close()
		err = newRun(p, server, client, synctest.Wait).all(t, p, steps)
	})
	if err != nil {
		rt.Fatal(err)
	}
}
