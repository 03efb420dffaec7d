package wsframe

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The examples of RFC 6455, 5.7, and the bounds of each form of the length.
func TestFrames_AreEncodedAndRead(t *testing.T) {
	if got := Append(nil, Text, []byte("Hello")); !bytes.Equal(got, []byte("\x81\x05Hello")) {
		t.Errorf("the unmasked frame is %x", got)
	}
	masked := []byte("\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58")
	if got := AppendMasked(nil, Text, [4]byte{0x37, 0xfa, 0x21, 0x3d}, []byte("Hello")); !bytes.Equal(got, masked) {
		t.Errorf("the masked frame is %x", got)
	}
	for _, n := range []int{0, 1, 125, 126, 127, 65535, 65536} {
		payload := bytes.Repeat([]byte("x"), n)
		for _, want := range []Frame{{Pong, false, payload}, {Pong, true, payload}} {
			encoded := Append(nil, Pong, payload)
			if want.Masked {
				encoded = AppendMasked(nil, Pong, [4]byte{1, 2, 3, 4}, payload)
			}
			stream := bytes.NewReader(append(encoded, 'x'))
			got, err := Read(stream, 65536)
			if err != nil || got.First != want.First || got.Masked != want.Masked || !bytes.Equal(got.Payload, payload) || stream.Len() != 1 {
				t.Errorf("%d bytes are read as %x with %d bytes, %v", n, got.First, len(got.Payload), err)
			}
		}
	}
	if f := (Frame{First: Close}); f.Opcode() != 8 {
		t.Errorf("the opcode of a close frame is %d", f.Opcode())
	}
}

func TestRead_RefusesLongAndIncompleteFrames(t *testing.T) {
	if _, err := Read(bytes.NewReader([]byte("\x81\x7f\xff\xff\xff\xff\xff\xff\xff\xff")), 65536); !errors.Is(err, ErrTooLong) {
		t.Errorf("the error of an endless frame is %v", err)
	}
	whole := AppendMasked(nil, Text, [4]byte{1}, make([]byte, 126))
	for n := range whole {
		want := io.ErrUnexpectedEOF
		if n == 0 {
			want = io.EOF
		}
		if _, err := Read(bytes.NewReader(whole[:n]), 126); err == nil || !errors.Is(err, want) {
			t.Fatalf("the error of %d of %d bytes is %v, want %v", n, len(whole), err, want)
		}
	}
}
