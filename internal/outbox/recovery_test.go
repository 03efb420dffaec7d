package outbox

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/shoal-go/shoal/internal/frame"
)

// store is the histories of uploads, as the manager keeps them: one lock protects the messages and the calls of Send
// and Recover. It holds the newest `keep` messages of each upload.
type store struct {
	mu    sync.Mutex
	keep  int
	logs  map[string][]*frame.Frame
	reads int
	// epochs counts how often the history of each upload was forgotten.
	epochs map[string]int
}

func newStore(keep int) *store {
	return &store{keep: keep, logs: map[string][]*frame.Frame{}, epochs: map[string]int{}}
}

// epoch returns the name of an upload's epoch. The lock is held.
func (s *store) epoch(upload string) string { return fmt.Sprint("e", s.epochs[upload]) }

// forget begins a new epoch of an upload and announces it to an outbox.
func (s *store) forget(o *Outbox, upload string) Outcome {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.logs, upload)
	s.epochs[upload]++
	return o.Send(reset(upload, frame.Start{Epoch: s.epoch(upload)}))
}

// publish appends a message to the history of an upload and sends it to an outbox, which may be nil.
func (s *store) publish(o *Outbox, upload string, class frame.Class, pad int) (Outcome, uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	log := s.logs[upload]
	offset := uint64(1)
	if len(log) > 0 {
		offset = log[len(log)-1].Offset() + 1
	}
	body := fmt.Appendf(nil, `{"u":%q,"n":%d,"pad":%q}`, upload, offset, strings.Repeat("x", pad))
	f := frame.ForUpload(frame.Message{
		UploadID: upload, Class: class, Epoch: s.epoch(upload), Offset: offset, Body: body, NamesUpload: true,
	})
	log = append(log, f)
	s.logs[upload] = log[max(0, len(log)-s.keep):]
	if o == nil {
		return Queued, offset
	}
	return o.Send(f), offset
}

// fill publishes a number of events before anything is subscribed.
func (s *store) fill(n int, upload string, pad int) {
	for range n {
		s.publish(nil, upload, frame.Event, pad)
	}
}

// recover subscribes an outbox to an upload from an offset on and returns the upload's newest offset.
func (s *store) recover(o *Outbox, upload string, after uint64) (Outcome, uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	log := s.logs[upload]
	frames := []*frame.Frame{ack(upload)}
	for _, f := range log {
		if f.Offset() > after {
			frames = append(frames, f)
		}
	}
	newest := uint64(0)
	if len(log) > 0 {
		newest = log[len(log)-1].Offset()
	}
	return o.Recover(Replay{UploadID: upload, Frames: frames, Source: s}), newest
}

// subscribeAgain acknowledges the subscription of an upload that an outbox follows.
func (s *store) subscribeAgain(o *Outbox, upload string) Outcome {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := frame.Start{Epoch: s.epoch(upload)}
	if log := s.logs[upload]; len(log) > 0 {
		at.Offset = log[len(log)-1].Offset()
	}
	again := frame.NewAcknowledgement(upload, at, fmt.Appendf(nil, `{"u":%q,"n":-3,"at":%d}`, upload, at.Offset))
	return o.Recover(Replay{UploadID: upload, Frames: []*frame.Frame{again}, Snapshot: true, Source: s})
}

// Read implements Source.
func (s *store) Read(upload, epoch string, after uint64, deliver func([]*frame.Frame)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reads++
	log := s.logs[upload]
	if epoch != s.epoch(upload) || len(log) > 0 && log[0].Offset() > after+1 {
		at := frame.Start{Epoch: s.epoch(upload)}
		if len(log) > 0 {
			at.Offset = log[len(log)-1].Offset() - 1
		}
		deliver(append([]*frame.Frame{reset(upload, at)}, log[max(0, len(log)-1):]...))
		return
	}
	var frames []*frame.Frame
	for _, f := range log {
		if f.Offset() > after {
			frames = append(frames, f)
		}
	}
	deliver(frames)
}

// ack and reset are the frames that announce a position: n is -1 and -2.
func ack(upload string) *frame.Frame {
	return frame.NewV1(frame.Event, fmt.Appendf(nil, `{"u":%q,"n":-1}`, upload))
}

func reset(upload string, at frame.Start) *frame.Frame {
	return frame.NewAcknowledgement(upload, at, fmt.Appendf(nil, `{"u":%q,"n":-2,"at":%d}`, upload, at.Offset))
}

// link reads from a connection at a number of bytes per second, as a client behind a slow line does.
func link(conn net.Conn, bytesPerSecond int) chan []byte {
	stream := make(chan []byte, 1)
	go func() {
		var all []byte
		buf := make([]byte, max(1, bytesPerSecond/20))
		for {
			n, err := conn.Read(buf)
			all = append(all, buf[:n]...)
			if err != nil {
				_ = conn.Close()
				stream <- all
				return
			}
			<-time.After(time.Second * time.Duration(n) / time.Duration(bytesPerSecond))
		}
	}()
	return stream
}

// recoverySession is one connection with recoveries over a slow line, and the positions that its client must reach.
type recoverySession struct {
	store  *store
	box    *Outbox
	stream chan []byte
	since  map[string]uint64
	// cancelled are the uploads whose recovery was cancelled.
	cancelled map[string]bool
	// owned: the test is the owner of the outbox and plays the writer. taken: it has dequeued batch.
	owned, taken bool
	batch        batch
}

// onLink runs a test with an outbox whose client reads a number of bytes per second.
func onLink(t *testing.T, opt Options, keep, bytesPerSecond int, test func(t *testing.T, s *recoverySession)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		server, client := net.Pipe()
		p := NewPool(opt)
		defer p.Close()
		s := &recoverySession{store: newStore(keep), since: map[string]uint64{}, cancelled: map[string]bool{}}
		s.box = p.Open(server, Config{Variant: frame.V1})
		s.stream = link(client, bytesPerSecond)
		test(t, s)
	})
}

// duringRecovery runs a test twice during the recovery of 100 messages of upload a: with all of them in memory, and with
// a part of them still unread.
func duringRecovery(t *testing.T, test func(t *testing.T, s *recoverySession)) {
	for name, limit := range map[string]int{"in memory": 0, "partly unread": 10_000} {
		t.Run(name, func(t *testing.T) {
			onLink(t, Options{MaxRecoveryBytes: limit}, 1000, slowLine, func(t *testing.T, s *recoverySession) {
				s.store.fill(100, "a", 400)
				s.recover(t, "a", 0)
				test(t, s)
			})
		})
	}
}

// recover subscribes to an upload from an offset on.
func (s *recoverySession) recover(t testing.TB, upload string, after uint64) {
	t.Helper()
	s.since[upload] = after
	if outcome, _ := s.store.recover(s.box, upload, after); outcome != Queued {
		t.Fatalf("Recover of %s returned %d", upload, outcome)
	}
}

// own makes the test the owner of an idle outbox, so that the pool's writer leaves it alone.
func (s *recoverySession) own() {
	s.box.mu.Lock()
	defer s.box.mu.Unlock()
	if !s.box.owned {
		s.box.owned, s.owned = true, true
	}
}

// take dequeues the queued frames, as a writer does.
func (s *recoverySession) take() {
	if !s.owned || s.taken {
		return
	}
	if s.batch.reset(); !s.box.next(&s.batch, writerBatch) {
		s.owned = false
		return
	}
	s.batch.encode(s.box)
	s.taken = true
}

// stall writes a part of the dequeued frames and leaves the rest to a drain goroutine. The size selects the part, which
// often ends between two frames.
func (s *recoverySession) stall(t testing.TB, size int) {
	t.Helper()
	if s.take(); !s.taken {
		return
	}
	n := 0
	if i := size % (len(s.batch.ends) + 1); i > 0 {
		n = s.batch.ends[i-1] - size%2
	}
	if _, err := s.box.conn.Write(s.batch.buf[:n]); err != nil {
		t.Fatal(err)
	}
	s.box.stall(&s.batch, n)
	s.owned, s.taken = false, false
}

// settle waits until everything has been written.
func (s *recoverySession) settle(t testing.TB) {
	t.Helper()
	s.stall(t, 0)
	for range 1 << 20 {
		s.box.mu.Lock()
		idle := !s.box.owned
		s.box.mu.Unlock()
		if idle {
			return
		}
		<-time.After(100 * time.Millisecond)
	}
	t.Fatal("the outbox is never idle")
}

// finish closes the connection and checks that its client received all messages after the requested positions, each
// once and in order, up to the newest, and before a position that an acknowledgement announces all up to there, unless a
// new position follows. It returns the received messages.
func (s *recoverySession) finish(t testing.TB) []message {
	t.Helper()
	s.settle(t)
	if s.box.Overflowed() {
		t.Fatal("the client was closed as too slow although it reads")
	}
	s.box.mu.Lock()
	r, unwritten := s.box.recovery, s.box.data.unwritten
	s.box.mu.Unlock()
	if r != nil || unwritten != (amount{}) {
		t.Fatalf("an idle outbox holds a recovery %+v, data %+v", r, unwritten)
	}
	s.box.Close(frame.NewClose(1000, ""))
	go readUntilGone(s.box, s.box.conn)
	frames, err := readFrames(bytes.NewReader(<-s.stream))
	if err != nil || len(frames) == 0 || frames[len(frames)-1].closeCode() != 1000 {
		t.Fatalf("the stream of %d frames ends with %v and without a close frame", len(frames), err)
	}
	var all []message
	next, ahead := map[string]int{}, map[string]int{}
	for _, r := range frames[:len(frames)-1] {
		m := r.message(t)
		all = append(all, m)
		if at := ahead[m.Upload]; at > 0 && m.Number > -2 {
			t.Fatalf("%s: position %d was told before message %d", m.Upload, at, m.Number)
		}
		switch {
		case m.Number == -3:
			if n := next[m.Upload]; n >= 0 && m.At != n-1 {
				ahead[m.Upload] = m.At
			}
		case m.Number == -1:
			next[m.Upload] = int(s.since[m.Upload]) + 1
		case m.Number == -2:
			next[m.Upload] = m.At + 1
			delete(ahead, m.Upload)
		case m.Number == -4:
			next[m.Upload] = -1 // the next message, wherever it is
			delete(ahead, m.Upload)
		case next[m.Upload] < 0 || next[m.Upload]+m.Skipped == m.Number:
			next[m.Upload] = m.Number + 1
		default:
			t.Fatalf("message %d of %s with %d skipped came, message %d is the next", m.Number, m.Upload, m.Skipped, next[m.Upload])
		}
	}
	if len(ahead) > 0 {
		t.Fatalf("positions were told ahead of messages: %v", ahead)
	}
	for upload := range s.since {
		log := s.store.logs[upload]
		if len(log) > 0 && !s.cancelled[upload] && next[upload] != int(log[len(log)-1].Offset())+1 {
			t.Fatalf("%s ended before message %d, the newest is %d", upload, next[upload], log[len(log)-1].Offset())
		}
	}
	return all
}

// slowLine is 160 kbit/s.
const slowLine = 20_000

// A client that reads receives the whole history that it missed, on one connection, with any limits of its queue.
func TestRecovery_CompletesOverSlowLineForAnyLimits(t *testing.T) {
	for _, limits := range []Options{
		{}, {MaxMessages: 1, MaxBytes: 64}, {MaxMessages: 100}, {MaxBytes: 2000},
		{MaxMessages: 1, MaxBytes: 64, MaxRecoveryBytes: 1}, {MaxRecoveryBytes: 30_000},
	} {
		for _, missed := range []struct{ uploads, messages, pad int }{
			{20, 64, 200}, {1, 2000, 200}, {1024, 2, 100}, {3, 20, 8000}, {40, 16, 1000}, {1, 3, 200_000},
		} {
			t.Run(fmt.Sprintf("%+v/%+v", limits, missed), func(t *testing.T) {
				onLink(t, limits, missed.messages, slowLine, func(t *testing.T, s *recoverySession) {
					for u := range missed.uploads {
						for range missed.messages {
							s.store.publish(nil, fmt.Sprint("u", u), frame.Event, missed.pad)
						}
					}
					s.box.Hold()
					for u := range missed.uploads {
						s.recover(t, fmt.Sprint("u", u), 0)
					}
					s.box.Release(frame.NewV1(frame.Event, fmt.Appendf(nil, `{"u":"","n":0,"pad":%q}`, strings.Repeat("x", 1000))))
					got := s.finish(t)
					if want := missed.uploads*(missed.messages+1) + 1; len(got) != want || got[0].Upload != "" {
						t.Errorf("%d messages came, want %d; the first is of %q", len(got), want, got[0].Upload)
					}
				})
			})
		}
	}
}

// A base connection receives the newest message of each of many uploads.
func TestRecovery_SnapshotsDoNotCountAgainstLimits(t *testing.T) {
	onLink(t, Options{MaxMessages: 2, MaxBytes: 200}, 1, slowLine, func(t *testing.T, s *recoverySession) {
		for u := range 1024 {
			s.store.publish(nil, fmt.Sprint("u", u), frame.State, 50)
			s.recover(t, fmt.Sprint("u", u), 0)
		}
		s.finish(t)
	})
}

// Live messages of an upload follow its recovery; those of other uploads do not wait for it.
func TestRecovery_DelaysOnlyItsOwnUpload(t *testing.T) {
	onLink(t, Options{}, 1000, slowLine, func(t *testing.T, s *recoverySession) {
		s.store.fill(500, "old", 1000)
		s.recover(t, "old", 0)
		for i := range 20 {
			<-time.After(500 * time.Millisecond)
			s.since["live"] = 0
			if i == 0 {
				s.recover(t, "live", 0)
			}
			s.store.publish(s.box, "live", frame.Event, i)
			s.store.publish(s.box, "old", frame.Event, 100)
		}
		between, live := 0, 0
		for _, m := range s.finish(t) {
			switch {
			case m.Upload == "old":
				between++
			case m.Number > 0:
				if live++; live > 1 && between > 12 { // 10 kB in 500 ms, and one portion
					t.Errorf("%d messages of the recovery came between two live messages", between)
				}
				between = 0
			}
		}
		if live != 20 {
			t.Errorf("%d live messages came, want 20", live)
		}
	})
}

// Any sequence of recoveries and live messages arrives complete and in order, with any limits.
func TestRecovery_AnySequence(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) { recoverySequence(t, rt) })
}

// FuzzRecovery is the same with operations that a fuzzer chooses.
func FuzzRecovery(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		rapid.MakeFuzz(func(rt *rapid.T) { recoverySequence(t, rt) })(t, data)
	})
}

func recoverySequence(t *testing.T, rt *rapid.T) {
	opt := Options{
		Writers:          1,
		MaxMessages:      rapid.IntRange(1, 10).Draw(rt, "messages"),
		MaxBytes:         rapid.IntRange(100, 5000).Draw(rt, "bytes"),
		MaxRecoveryBytes: rapid.SampledFrom([]int{1, 500, 5000, 1 << 20}).Draw(rt, "recovery"),
	}
	keep := rapid.SampledFrom([]int{3, 20, 1000}).Draw(rt, "keep")
	steps := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) op {
		return op{
			kind: rapid.SampledFrom([]string{
				"state", "state", "event", "terminal", "recover", "recover", "wait", "cancel", "own", "own", "take", "stall", "stall", "forget",
			}).Draw(t, "kind"),
			upload: rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "upload"),
			size:   rapid.IntRange(0, 3000).Draw(t, "size"),
		}
	}), 20, 120).Draw(rt, "steps")
	speed := rapid.SampledFrom([]int{slowLine, 1 << 20}).Draw(rt, "speed")
	onLink(t, opt, keep, speed, func(t *testing.T, s *recoverySession) {
		classes := map[string]frame.Class{"state": frame.State, "event": frame.Event, "terminal": frame.Terminal}
		for _, step := range steps {
			switch _, recovering := s.since[step.upload]; {
			case step.kind == "wait":
				<-time.After(time.Duration(step.size) * time.Millisecond)
			case step.kind == "forget" && recovering:
				s.store.forget(s.box, step.upload)
			case step.kind == "forget":
			case step.kind == "own":
				s.own()
			case step.kind == "take":
				s.take()
			case step.kind == "stall":
				s.stall(t, step.size)
			case step.kind == "cancel" && recovering:
				s.box.CancelRecovery(step.upload)
				s.cancelled[step.upload] = true
				send(t, s.box, Queued, frame.NewV1ForUpload(step.upload, frame.Event, fmt.Appendf(nil, `{"u":%q,"n":-4}`, step.upload)))
			case step.kind == "cancel":
			case step.kind != "recover":
				box := s.box
				if !recovering {
					box = nil
				}
				s.store.publish(box, step.upload, classes[step.kind], step.size)
			case recovering:
				if outcome := s.store.subscribeAgain(s.box, step.upload); outcome != Queued {
					t.Fatalf("Recover of %s returned %d", step.upload, outcome)
				}
			default:
				after := uint64(0)
				if log := s.store.logs[step.upload]; len(log) > 0 {
					after = log[0].Offset() - 1 + uint64(step.size%len(log))
				}
				s.recover(t, step.upload, after)
			}
			// The live queue is not the subject: its client must not be to blame for it.
			if s.liveQueued(t) && !s.owned {
				s.settle(t)
			}
		}
		s.finish(t)
	})
}

// liveQueued reports whether live frames are queued, and checks the recovery.
func (s *recoverySession) liveQueued(t testing.TB) bool {
	s.box.mu.Lock()
	defer s.box.mu.Unlock()
	if r := s.box.recovery; r != nil {
		if r.Bytes() < 0 {
			t.Fatalf("the recovery counts %d bytes", r.Bytes())
		}
	}
	return !s.box.data.empty()
}

// The messages that do not fit in MaxRecoveryBytes are read from the history later. If the history has dropped them by
// then, the client is informed and gets the newest.
func TestRecovery_EvictedMessagesAreAnnounced(t *testing.T) {
	onLink(t, Options{MaxRecoveryBytes: 1000}, 50, slowLine, func(t *testing.T, s *recoverySession) {
		s.store.fill(50, "a", 400)
		s.recover(t, "a", 0)
		for range 100 {
			s.store.publish(s.box, "a", frame.Event, 400)
		}
		resets := 0
		for _, m := range s.finish(t) {
			if m.Number == -2 {
				resets++
			}
		}
		if resets == 0 {
			t.Error("no reset came")
		}
	})
}

// A recovery without messages, of a client that has all of them, replaces an earlier one as well.
func TestRecovery_WithoutMessagesReplacesTheEarlier(t *testing.T) {
	duringRecovery(t, func(t *testing.T, s *recoverySession) {
		<-time.After(500 * time.Millisecond)
		s.box.Hold()
		s.box.Recover(Replay{UploadID: "a", Source: s.store})
		s.box.Release(ack("answer"))
		s.store.publish(s.box, "a", frame.Event, 400)
		s.settle(t)
		s.box.Close(frame.NewClose(1000, ""))
		go readUntilGone(s.box, s.box.conn)
		frames, err := readFrames(bytes.NewReader(<-s.stream))
		if err != nil || len(frames) < 3 {
			t.Fatalf("%d frames came, %v", len(frames), err)
		}
		if got := numbers(t, frames[len(frames)-3:len(frames)-1]); got != "answer-1 a101" {
			t.Errorf("the last messages are %s, want the answer and a101", got)
		}
	})
}

// In a new epoch a recovery reads on from the position that was queued last, so that it skips no message.
func TestRecovery_ContinuesInNewEpoch(t *testing.T) {
	onLink(t, Options{MaxRecoveryBytes: 20_000}, 1000, slowLine, func(t *testing.T, s *recoverySession) {
		s.store.fill(40, "a", 300)
		s.recover(t, "a", 0)
		if outcome := s.store.forget(s.box, "a"); outcome != Queued {
			t.Fatalf("the new epoch was not queued: %v", outcome)
		}
		for range 60 {
			s.store.publish(s.box, "a", frame.Event, 500)
		}
		got := s.finish(t)
		if s.store.reads == 0 || len(got) != 1+40+1+60 {
			t.Errorf("%d messages came and %d reads were made, want 102 with a read", len(got), s.store.reads)
		}
	})
}

// A recovery whose upload is forgotten before all of it was read ends there.
func TestRecovery_EndsWithItsUpload(t *testing.T) {
	onLink(t, Options{MaxRecoveryBytes: 1000}, 50, slowLine, func(t *testing.T, s *recoverySession) {
		s.store.fill(50, "a", 400)
		s.recover(t, "a", 0)
		s.store.mu.Lock()
		delete(s.store.logs, "a")
		s.store.mu.Unlock()
		if got := len(s.finish(t)); got < 2 {
			t.Errorf("%d messages came, want those that were queued", got)
		}
	})
}

// Memory is bounded while a client recovers slowly: messages beyond MaxRecoveryBytes stay in the history.
func TestRecovery_IsBounded(t *testing.T) {
	const limit = 10_000
	onLink(t, Options{MaxRecoveryBytes: limit}, 1000, slowLine, func(t *testing.T, s *recoverySession) {
		s.store.fill(500, "a", 400)
		s.recover(t, "a", 0)
		for range 300 {
			s.store.publish(s.box, "a", frame.Event, 400)
			<-time.After(time.Millisecond)
			s.box.mu.Lock()
			if got := s.box.recovery.Bytes(); got > limit {
				t.Errorf("%d bytes are queued", got)
			}
			s.box.mu.Unlock()
		}
		s.finish(t)
	})
}

// A client that cancels the recovery of an upload gets its acknowledgement, the frames that were being written, and
// nothing else of it.
func TestRecovery_Cancel(t *testing.T) {
	for _, memory := range []int{1, 10_000, 0} {
		onLink(t, Options{MaxMessages: 8, MaxRecoveryBytes: memory}, 1000, slowLine, func(t *testing.T, s *recoverySession) {
			for range 500 {
				s.store.publish(nil, "a", frame.Event, 400)
				s.store.publish(nil, "b", frame.Event, 40)
			}
			s.recover(t, "a", 0)
			s.recover(t, "b", 0)
			s.store.publish(s.box, "a", frame.Event, 400)
			<-time.After(time.Second)
			s.box.CancelRecovery("a")
			s.box.CancelRecovery("unknown")
			s.cancelled["a"] = true
			count := map[string]int{}
			for _, m := range s.finish(t) {
				count[m.Upload]++
			}
			if count["a"] < 1 || count["a"] > 100 || count["b"] != 501 {
				t.Errorf("the client got %v", count)
			}
		})
	}
}

// A client that stops reading in the middle of a recovery is closed after MaxAge, and gets 1013 if it comes back.
func TestRecovery_StuckClientIsClosed(t *testing.T) {
	onPipe(t, Options{MaxAge: 3 * time.Second, CloseTimeout: time.Second}, func(t *testing.T, b bench) {
		s := newStore(1000)
		for range 1000 {
			s.publish(nil, "a", frame.Event, 400)
		}
		s.recover(b.box, "a", 0)
		for range 10 { // a portion per 2 s: slow, but progress
			if _, err := io.CopyN(io.Discard, b.client, drainPortion); err != nil {
				t.Fatal(err)
			}
			<-time.After(2 * time.Second)
		}
		if b.box.Overflowed() {
			t.Fatal("a client that reads was closed")
		}
		<-time.After(1010 * time.Millisecond)
		synctest.Wait()
		if !b.box.Overflowed() || b.box.recovery != nil {
			t.Error("a client that does not read is still open")
		}
		b.wantDoneAfter(t, 990*time.Millisecond)
	})
}

// Close writes the recovery if the client reads it in time, and the close frame in any case.
func TestRecovery_CloseIsBounded(t *testing.T) {
	for _, speed := range []int{slowLine, 1 << 20} {
		onLink(t, Options{}, 1000, speed, func(t *testing.T, s *recoverySession) {
			s.store.fill(500, "a", 1000)
			s.recover(t, "a", 0)
			<-time.After(10 * time.Millisecond)
			s.box.Close(frame.NewClose(1012, "Server reloading"))
			go readUntilGone(s.box, s.box.conn)
			frames, err := readFrames(bytes.NewReader(<-s.stream))
			if err != nil || len(frames) == 0 || frames[len(frames)-1].closeCode() != 1012 {
				t.Fatalf("the stream of %d frames ends with %v and without the close frame", len(frames), err)
			}
			if complete := len(frames) == 502; complete != (speed > slowLine) {
				t.Errorf("at %d bytes per second %d frames came", speed, len(frames))
			}
		})
	}
}

// Frames of a recovery that a socket refuses return to the front of their upload's backlog.
func TestRecovery_RefusedFramesAreRequeuedInOrder(t *testing.T) {
	onPipe(t, Options{MaxMessages: 16}, func(t *testing.T, b bench) {
		s := newStore(100)
		for range 3 {
			s.publish(nil, "a", frame.State, 0)
			s.publish(nil, "b", frame.State, 0)
		}
		play := b.takeOver()
		s.recover(b.box, "a", 0)
		s.recover(b.box, "b", 0)
		send(t, b.box, Queued, data("c", frame.Event, 1, 0))
		play.take(t)
		client := play.refuse(70)
		s.publish(b.box, "a", frame.Event, 0)
		got := numbers(t, mustRead(t, client, 10))
		want := "c1 a-1 a1 a2 a3 b-1 b1 b2 b3 a4"
		alternative := "c1 a-1 a1 a2 a3 a4 b-1 b1 b2 b3"
		if got != want && got != alternative {
			t.Errorf("the client got %s", got)
		}
	})
}

// A burst of events does not disconnect a client that reads, however small the limits; one that does not read is
// closed.
func TestOutbox_BurstDoesNotDisconnectReadingClient(t *testing.T) {
	for _, opt := range []Options{{}, {MaxMessages: 16}, {MaxBytes: 1000}} {
		onLink(t, opt, 1, 2_000_000, func(t *testing.T, s *recoverySession) {
			s.since["a"] = 0
			send(t, s.box, Queued, ack("a"))
			for range 5000 {
				if outcome, _ := s.store.publish(s.box, "a", frame.Event, 100); outcome != Queued {
					t.Fatalf("the outcome is %d", outcome)
				}
			}
			s.finish(t)
		})
		onPipe(t, opt, func(t *testing.T, b bench) {
			b.box.pool.burst = amount{1 << 16, 16 << 20}
			b.plug(t)
			<-time.After(2 * time.Second)
			for range 1025 {
				b.box.Send(data("a", frame.Event, 1, 1000))
			}
			if !b.box.Overflowed() {
				t.Error("a client that does not read is still open")
			}
		})
	}
}

// A second recovery of an upload replaces the unwritten rest of the first: behind its acknowledgement the client gets
// every message after its new position, once and in order, and live messages after them.
func TestRecovery_IsReplacedByTheNext(t *testing.T) {
	duringRecovery(t, func(t *testing.T, s *recoverySession) {
		<-time.After(time.Second)
		send(t, s.box, Queued, data("a", frame.Event, 0, 1)) // without an offset: it is kept
		const after = 7
		s.box.Hold() // as for a resume, whose answer precedes the replays
		replay := Replay{UploadID: "a", Frames: s.store.logs["a"][after:], Source: s.store}
		if outcome := s.box.Recover(replay); outcome != Queued {
			t.Fatalf("the second recovery was not queued: %v", outcome)
		}
		s.box.Release(ack("a"))
		for range 3 {
			s.store.publish(s.box, "a", frame.Event, 10)
		}
		s.settle(t)
		s.box.Close(frame.NewClose(1000, ""))
		frames, err := readFrames(bytes.NewReader(<-s.stream))
		if err != nil {
			t.Fatal(err)
		}
		next, acks, without := 1, 0, 0
		for _, f := range frames[:len(frames)-1] {
			switch m := f.message(t); {
			case m.Number == -1:
				if acks++; acks == 2 {
					next = after + 1
				}
			case m.Number == 0:
				without++
			case m.Number != next:
				t.Fatalf("message %d came after acknowledgement %d, want %d", m.Number, acks, next)
			default:
				next++
			}
		}
		if next != 104 || acks != 2 || without != 1 {
			t.Errorf("the client got messages up to %d, %d acknowledgements, %d without an offset", next-1, acks, without)
		}
	})
}

// A recovery follows the live messages that were queued before, among which may be those of its upload: also if they
// are more than one batch, and the socket refuses bytes.
func TestRecovery_FollowsQueuedLiveMessages(t *testing.T) {
	for _, speed := range []int{slowLine, 1 << 20} {
		onLink(t, Options{}, 1000, speed, func(t *testing.T, s *recoverySession) {
			s.sendLive(t, "a")
			<-time.After(time.Second)
			if outcome := s.store.subscribeAgain(s.box, "a"); outcome != Queued {
				t.Fatalf("Recover returned %d", outcome)
			}
			s.finish(t)
		})
	}
}

// The answer of Release precedes the recoveries, however many live messages are queued before it.
func TestRecovery_FollowsItsAnswer(t *testing.T) {
	onLink(t, Options{}, 1000, slowLine, func(t *testing.T, s *recoverySession) {
		s.store.fill(10, "missed", 400)
		s.box.Hold()
		s.recover(t, "missed", 0)
		s.sendLive(t, "a")
		s.box.Release(ack("answer"))
		answered := false
		for _, m := range s.finish(t) {
			answered = answered || m.Upload == "answer"
			if m.Upload == "missed" && !answered {
				t.Fatalf("%+v came before the answer", m)
			}
		}
	})
}

// sendLive queues many messages of an upload.
func (s *recoverySession) sendLive(t testing.TB, upload string) {
	s.since[upload] = 0
	send(t, s.box, Queued, ack(upload))
	for range 200 {
		s.store.publish(s.box, upload, frame.Event, 400)
	}
}

// A further subscription without a position repeats nothing and drops nothing, in memory or still to be read: its
// acknowledgement has its place among the messages.
func TestRecovery_SubscribingAgainLosesNothing(t *testing.T) {
	duringRecovery(t, func(t *testing.T, s *recoverySession) {
		for range 3 {
			if outcome := s.store.subscribeAgain(s.box, "a"); outcome != Queued {
				t.Fatalf("Recover returned %d", outcome)
			}
			for range 10 {
				s.store.publish(s.box, "a", frame.Event, 400)
			}
		}
		if got := len(s.finish(t)); got != 1+100+3+30 {
			t.Errorf("%d messages came, want 134", got)
		}
	})
}
