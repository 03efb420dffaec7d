package outbox

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/shoal/internal/frame"
)

// onEvents runs a test with the outbox of an event stream.
func onEvents(t *testing.T, opt Options, corked bool, test func(t *testing.T, b bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		server, client := net.Pipe()
		p := NewPool(opt.withoutBurst())
		defer p.Close()
		defer client.Close()
		events := frame.NewEventEncoder([]string{"a", "b"}, map[string]frame.Start{"a": {Epoch: "e"}, "b": {Epoch: "f"}})
		test(t, bench{p, p.Open(server, Config{Variant: frame.V1, Events: events, Corked: corked}), client})
	})
}

func numbered(upload string, class frame.Class, offset uint64) *frame.Frame {
	return frame.ForUpload(frame.Message{
		UploadID: upload, Class: class, Offset: offset, Body: fmt.Appendf(nil, `{"upload_id":%q,"pad":%q}`, upload, upload), NamesUpload: true,
	})
}

// checkEvents reads n events and checks that the id of each holds the positions of all events up to it. It returns the
// events' data.
func checkEvents(t *testing.T, r io.Reader, n int) (all []string) {
	t.Helper()
	seen := map[string]frame.Start{"a": {Epoch: "e"}, "b": {Epoch: "f"}}
	lines := bufio.NewScanner(r)
	var id string
	for len(all) < n && lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ": ")
		switch name {
		case "id":
			id = value
		case "data":
			all = append(all, value)
			var upload string
			var offset uint64
			if _, err := fmt.Sscanf(strings.ReplaceAll(value, `"`, " "), "{ upload_id : %s , pad : %s , offset :%d", &upload,
				new(string), &offset); err != nil {
				t.Fatalf("%s: %v", value, err)
			}
			seen[upload] = frame.Start{Epoch: seen[upload].Epoch, Offset: offset}
			if got, err := frame.ParseEventID(id, []string{"a", "b"}); err != nil || !maps.Equal(got, seen) {
				t.Fatalf("event %d has the positions %v (%v), want %v", len(all), got, err, seen)
			}
		}
	}
	if len(all) < n {
		t.Fatalf("%d events, want %d", len(all), n)
	}
	return all
}

// TestOutbox_EventIDsAfterRefusedBytes: wherever the socket refuses bytes, an event that is written later has an id
// that holds the positions of the events before it only.
func TestOutbox_EventIDsAfterRefusedBytes(t *testing.T) {
	frames := []*frame.Frame{
		numbered("a", frame.State, 1), numbered("b", frame.State, 1), numbered("b", frame.Event, 2),
		numbered("a", frame.Event, 2),
	}
	for n := range 4 * 80 {
		onEvents(t, Options{MaxMessages: 16}, false, func(t *testing.T, b bench) {
			s := b.takeOver()
			send(t, s.box, Queued, frames...)
			s.take(t)
			send(t, s.box, Queued, numbered("b", frame.Event, 3)) // comes while the socket is being tried
			checkEvents(t, s.refuse(min(n, len(s.batch.buf)-1)), 5)
			synctest.Wait()
		})
	}
}

// TestOutbox_EventsConflate: as on a WebSocket, a newer state replaces a queued one.
func TestOutbox_EventsConflate(t *testing.T) {
	onEvents(t, Options{MaxMessages: 8}, false, func(t *testing.T, b bench) {
		send(t, b.box, Queued, numbered("a", frame.State, 1))
		synctest.Wait()
		send(t, b.box, Queued, numbered("a", frame.State, 2), numbered("b", frame.Event, 1), numbered("b", frame.Event, 2),
			numbered("b", frame.Event, 3))
		send(t, b.box, Conflated, numbered("a", frame.State, 5))
		got := checkEvents(t, b.client, 5)
		if !strings.Contains(got[1], `"offset":5,"skipped":1`) {
			t.Errorf("the second event is %s", got[1])
		}
	})
}

// TestOutbox_EventBatchesAreBounded: ids count for the size of a batch.
func TestOutbox_EventBatchesAreBounded(t *testing.T) {
	onEvents(t, Options{MaxMessages: 10_000}, false, func(t *testing.T, b bench) {
		s := b.takeOver()
		for i := range 2000 {
			send(t, s.box, Queued, numbered("a", frame.Event, uint64(i+1)))
		}
		s.take(t)
		if n := len(s.batch.buf); n > writerBatch || n < writerBatch/4 {
			t.Errorf("a batch has %d bytes, want at most %d", n, writerBatch)
		}
		s.refuse(0)
		s.box.Abort()
		synctest.Wait()
	})
}

func raw(text string) *frame.Frame { return frame.New(frame.Raw, frame.Control, []byte(text)) }

// TestOutbox_UncorkWritesHeadFirst: frames that were sent before Uncork follow its head.
func TestOutbox_UncorkWritesHeadFirst(t *testing.T) {
	onEvents(t, Options{}, true, func(t *testing.T, b bench) {
		send(t, b.box, Queued, numbered("a", frame.Event, 1), control(frame.Ping, ""))
		synctest.Wait()
		b.box.Uncork(raw("head\n\n"))
		head := make([]byte, len("head\n\n:\n\n"))
		if _, err := io.ReadFull(b.client, head); err != nil || string(head) != "head\n\n:\n\n" {
			t.Errorf("got %q (%v)", head, err)
		}
		checkEvents(t, b.client, 1)
	})
}

// TestOutbox_RejectWritesTheAnswerOnly: and then ends the stream, regardless of earlier calls.
func TestOutbox_RejectWritesTheAnswerOnly(t *testing.T) {
	for name, before := range map[string]func(*Outbox){
		"open":    func(*Outbox) {},
		"closing": func(o *Outbox) { o.Close(raw("bye\n")) },
		"recovering": func(o *Outbox) {
			o.Recover(Replay{UploadID: "a", Frames: []*frame.Frame{data("a", frame.Event, 1, 2*drainPortion)}})
		},
	} {
		onEvents(t, Options{CloseTimeout: time.Second}, true, func(t *testing.T, b bench) {
			send(t, b.box, Queued, numbered("a", frame.Event, 1), control(frame.Ping, ""))
			before(b.box)
			b.box.Reject(raw("no\n"))
			if got, err := io.ReadAll(b.client); err != nil || string(got) != "no\n" {
				t.Errorf("%s: got %q (%v)", name, got, err)
			}
			<-b.box.Done()
		})
	}
}

// TestOutbox_CorkedEnds: an outbox that was aborted, by its owner or a timeout, ends when it is uncorked or rejected.
func TestOutbox_CorkedEnds(t *testing.T) {
	for name, abort := range map[string]func(bench){
		"aborted":   func(b bench) { b.box.Abort() },
		"timed out": func(b bench) { b.box.Close(raw("bye")); <-time.After(time.Minute) }, // synthetic
		"no pool":   func(b bench) { b.pool.Close() },
	} {
		for _, uncork := range []bool{true, false} {
			onEvents(t, Options{CloseTimeout: time.Second}, true, func(t *testing.T, b bench) {
				abort(b)
				select {
				case <-b.box.Done():
					t.Errorf("%s: it has ended before", name)
				default:
				}
				if uncork {
					b.box.Uncork(raw("head"))
				} else {
					b.box.Reject(raw("no"))
				}
				<-b.box.Done()
			})
		}
	}
}

// TestOutbox_CorkedClose: frames queued before Close are written when the outbox is uncorked.
func TestOutbox_CorkedClose(t *testing.T) {
	onEvents(t, Options{}, true, func(t *testing.T, b bench) {
		send(t, b.box, Queued, raw("one\n"))
		b.box.Close(raw("bye\n"))
		b.box.Uncork(raw("head\n"))
		got := make([]byte, len("head\none\nbye\n"))
		if _, err := io.ReadFull(b.client, got); err != nil || string(got) != "head\none\nbye\n" {
			t.Errorf("got %q (%v)", got, err)
		}
		b.client.Close()
		b.box.PeerGone()
		<-b.box.Done()
	})
}
