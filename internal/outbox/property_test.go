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
	size   int // of a body, or the number of bytes that the client reads
}

var (
	ops = rapid.SliceOfN(rapid.Custom(func(t *rapid.T) op {
		return op{
			kind: rapid.SampledFrom([]string{
				"state", "state", "state", "state", "event", "terminal", "ping", "pong", "read", "read", "settle",
			}).Draw(t, "kind"),
			upload: rapid.SampledFrom([]string{"", "a", "b", "c"}).Draw(t, "upload"),
			size:   rapid.IntRange(0, 1500).Draw(t, "size"),
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

// run is an outbox under test and its history. Its client reads as many bytes as it is
// allowed to, and all remaining bytes at the end.
type run struct {
	box    *Outbox
	settle func()

	sent   map[string][]frame.Class // the classes of an upload's messages, by number
	pings  int
	pong   string // the body of the newest
	counts [Dropped + 1]int

	allow  chan int
	stream chan []byte
}

func newRun(p *Pool, server, client net.Conn, settle func()) *run {
	r := &run{
		box:    p.Open(server, Config{Variant: frame.V1}),
		settle: settle,
		sent:   make(map[string][]frame.Class),
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
	case "settle":
		r.settle()
	}
	return r.checkBounds()
}

func (r *run) send(s op, class frame.Class) {
	number := len(r.sent[s.upload])
	switch outcome := r.box.Send(data(s.upload, class, number, s.size)); outcome {
	case Queued, Conflated:
		r.sent[s.upload] = append(r.sent[s.upload], class)
		r.counts[outcome]++
	case Dropped:
		r.counts[Dropped]++
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
	close(r.allow)
	go func() { readUntilGone(r.box, r.box.conn) }()
	stream := <-r.stream
	<-r.box.Done()
	overflowed := r.box.Reason() != nil
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
	next := make(map[string]int) // the number of an upload's next message
	pings, pong := 0, ""
	for _, f := range frames[:last] {
		switch f.opcode {
		case frame.Ping:
			pings++
		case frame.Pong:
			pong = string(f.body)
		default:
			if err := r.follow(next, f.message(t)); err != nil {
				return err
			}
		}
	}
	if pings > r.pings || (!overflowed && (pong != r.pong || (pings == 0) != (r.pings == 0))) {
		return fmt.Errorf("%d of %d pings came; the last pong is %q, want %q", pings, r.pings, pong, r.pong)
	}
	for upload, classes := range r.sent {
		if !overflowed && next[upload] != len(classes) {
			return fmt.Errorf("of upload %q %d messages are accounted for, %d were sent", upload, next[upload], len(classes))
		}
	}
	return nil
}

// follow checks that m is the next message of its upload, except for the messages that it replaced: all of
// them and itself must be states.
func (r *run) follow(next map[string]int, m message) error {
	for range m.Skipped {
		if n := next[m.Upload]; n >= m.Number || r.sent[m.Upload][n] != frame.State {
			return fmt.Errorf("message %d of upload %q replaced message %d, which is no older state", m.Number, m.Upload, n)
		}
		next[m.Upload]++
	}
	if n := next[m.Upload]; n != m.Number {
		return fmt.Errorf("message %d of upload %q came, message %d is the next", m.Number, m.Upload, n)
	}
	if m.Skipped > 0 && r.sent[m.Upload][m.Number] != frame.State {
		return fmt.Errorf("message %d of upload %q is no state but replaced some", m.Number, m.Upload)
	}
	next[m.Upload]++
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
