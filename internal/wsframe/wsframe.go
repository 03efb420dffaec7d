// Package wsframe encodes and decodes single WebSocket frames (RFC 6455, 5.2) for load generators, simulated clients
// and tests, which also need frames that the server would not write or accept.
package wsframe

import (
	"encoding/binary"
	"errors"
	"io"
)

// The first bytes of whole messages and control frames: the final bit and the opcode.
const (
	Text  = 0x81
	Close = 0x88
	Ping  = 0x89
	Pong  = 0x8A
)

// maskBit is set in the second byte of a client's frame.
const maskBit = 0x80

// ErrTooLong is the error of Read for a payload beyond its bound.
var ErrTooLong = errors.New("wsframe: the payload is too long")

// Append appends a server's frame with this first byte.
func Append(dst []byte, first byte, payload []byte) []byte {
	return append(appendLength(append(dst, first), 0, len(payload)), payload...)
}

// AppendMasked appends a client's frame with this first byte, whose payload is masked.
func AppendMasked(dst []byte, first byte, mask [4]byte, payload []byte) []byte {
	dst = append(appendLength(append(dst, first), maskBit, len(payload)), mask[:]...)
	for i, b := range payload {
		dst = append(dst, b^mask[i&3])
	}
	return dst
}

// appendLength appends the bit of the mask with the length of a payload.
func appendLength(dst []byte, bit byte, n int) []byte {
	switch {
	case n < 126:
		return append(dst, bit|byte(n)) //nolint:gosec // n is below 126
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(dst, bit|126), uint16(n))
	}
	return binary.BigEndian.AppendUint64(append(dst, bit|127), uint64(n))
}

// Frame is a frame as it was read.
type Frame struct {
	First   byte
	Masked  bool
	Payload []byte // without its mask
}

// Opcode returns the opcode.
func (f Frame) Opcode() byte { return f.First & 0x0F }

// Read reads one frame with a payload of at most this many bytes. The error is io.EOF only between two frames.
func Read(r io.Reader, most uint64) (f Frame, err error) {
	var head [8]byte
	if _, err := io.ReadFull(r, head[:2]); err != nil {
		return f, err
	}
	defer func() {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
	}()
	f.First, f.Masked = head[0], head[1]&maskBit != 0
	size := uint64(head[1] &^ maskBit)
	if size >= 126 {
		extended := head[:2]
		if size == 127 {
			extended = head[:8]
		}
		if _, err := io.ReadFull(r, extended); err != nil {
			return f, err
		}
		size = 0
		for _, b := range extended {
			size = size<<8 | uint64(b)
		}
	}
	if size > most {
		return f, ErrTooLong
	}
	var mask [4]byte
	if f.Masked {
		if _, err := io.ReadFull(r, mask[:]); err != nil {
			return f, err
		}
	}
	f.Payload = make([]byte, size)
	_, err = io.ReadFull(r, f.Payload)
	for i := range f.Payload {
		f.Payload[i] ^= mask[i&3]
	}
	return f, err
}
