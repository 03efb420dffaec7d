package outbox

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/shoal-go/shoal/internal/frame"
	"github.com/shoal-go/shoal/internal/wsframe"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// received is one frame as a client sees it.
type received struct {
	opcode frame.Opcode
	body   []byte
}

// closeCode returns the code of a close frame, or 0.
func (r received) closeCode() uint16 {
	if r.opcode != frame.Close || len(r.body) < 2 {
		return 0
	}
	return binary.BigEndian.Uint16(r.body)
}

// message is the body of the tests' data frames.
type message struct {
	Upload  string `json:"u"`
	Number  int    `json:"n"`
	Skipped int    `json:"skipped"`
	Pad     string `json:"pad"`
	At      int    `json:"at"` // the position that an acknowledgement announces
}

func (r received) message(t testing.TB) message {
	t.Helper()
	var m message
	if err := json.Unmarshal(r.body, &m); err != nil {
		t.Fatalf("the body of a frame is not a message: %v", err)
	}
	return m
}

// data returns a frame whose body is about pad bytes long.
func data(upload string, class frame.Class, number, pad int) *frame.Frame {
	return keyed(upload, "", class, number, pad)
}

// keyed is like data, with a state key.
func keyed(upload, key string, class frame.Class, number, pad int) *frame.Frame {
	body := fmt.Appendf(nil, `{"u":%q,"n":%d,"pad":%q}`, upload, number, strings.Repeat("x", pad))
	return frame.ForUpload(frame.Message{UploadID: upload, StateKey: key, Class: class, Body: body})
}

var errNotAFrame = errors.New("not a frame as a server sends it")

// readFrame reads one whole frame and rejects invalid ones.
func readFrame(r io.Reader) (received, error) {
	f, err := wsframe.Read(r, 1<<24)
	if err == nil && (f.First&0xF0 != 0x80 || f.Masked) {
		err = errNotAFrame
	}
	return received{frame.Opcode(f.Opcode()), f.Payload}, err
}

// readFrames reads frames up to the end of the stream, which must not be inside of one.
func readFrames(r io.Reader) ([]received, error) {
	var all []received
	for {
		f, err := readFrame(r)
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		all = append(all, f)
	}
}

// mustRead reads n frames.
func mustRead(t testing.TB, r io.Reader, n int) []received {
	t.Helper()
	all := make([]received, n)
	for i := range all {
		var err error
		if all[i], err = readFrame(r); err != nil {
			t.Fatalf("frame %d of %d: %v", i+1, n, err)
		}
	}
	return all
}

// bodies returns the frames' bodies, a line each.
func bodies(all []received) string {
	var b bytes.Buffer
	for _, r := range all {
		fmt.Fprintf(&b, "%s\n", r.body)
	}
	return b.String()
}

// numbers returns the numbers of the messages, followed by "+k" if a message replaced k others.
func numbers(t testing.TB, all []received) string {
	t.Helper()
	var words []string
	for _, r := range all {
		m := r.message(t)
		word := fmt.Sprint(m.Upload, m.Number)
		if m.Skipped > 0 {
			word += fmt.Sprintf("+%d", m.Skipped)
		}
		words = append(words, word)
	}
	return strings.Join(words, " ")
}

// withoutBurst makes the limits apply at once.
func (o Options) withoutBurst() Options {
	o = o.withDefaults()
	o.MaxBurstBytes, o.MaxBurstMessages = o.MaxBytes, o.MaxMessages
	return o
}

func send(t testing.TB, o *Outbox, want Outcome, frames ...*frame.Frame) {
	t.Helper()
	for i, f := range frames {
		if got := o.Send(f); got != want {
			t.Fatalf("Send of frame %d returned %d, want %d", i, got, want)
		}
	}
}

// eventually waits until the condition holds.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	give := time.After(30 * time.Second)
	for !condition() {
		select {
		case <-tick.C:
		case <-give:
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// readUntilGone is the reader that every outbox has beside it.
func readUntilGone(o *Outbox, conn net.Conn) {
	_, _ = io.Copy(io.Discard, conn)
	o.PeerGone()
}
