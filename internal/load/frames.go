package load

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/shoal-go/shoal/internal/wsframe"
)

// The opcodes of RFC 6455.
const (
	opContinuation = 0x0
	opText         = 0x1
	opBinary       = 0x2
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xA
)

const (
	finBit, reservedBits, opcodeBits = 0x80, 0x70, 0x0F
	maskBit, lengthBits              = 0x80, 0x7F

	// shortHead is the length of the shortest header, maxHead that of the longest.
	shortHead, maxHead = 2, 10
	// maxControlBytes is the largest payload of a control frame.
	maxControlBytes = 125
	// maxKeptBuffer is the largest buffer that a connection keeps between messages.
	maxKeptBuffer = 4 << 10
)

// message is a complete message or control frame from the server.
type message struct {
	// opcode is the opcode of the first frame.
	opcode byte
	size   uint64
	// payload is nil if it was not kept. It is valid until the next call of next.
	payload []byte
}

// frameReader parses a server's frames from reads of any size. It belongs to one goroutine.
//
// Payloads outside of keepMin and keepMax are skipped. The others are copied only if they arrive in several parts.
type frameReader struct {
	// Payloads of keepMin to keepMax bytes are kept.
	keepMin, keepMax uint64

	// head holds the first headLen bytes of an incomplete header.
	head    [maxHead]byte
	headLen int

	// The current frame, if inside is true.
	inside    bool
	final     bool
	opcode    byte
	left      uint64 // bytes of its payload that have not been read
	control   []byte // received part of a control frame's payload
	fragments bool   // the current message has further frames

	// The current message.
	messageOpcode byte
	size          uint64 // of its frames so far
	partial       []byte // received part of its payload, if it is kept
}

// next parses data up to the end of the first message or control frame and returns the number of bytes parsed. ok is
// false if all of data belongs to an incomplete one. After an error, a violation of the protocol by the server, the
// connection cannot be used any more.
func (f *frameReader) next(data []byte) (m message, ok bool, n int, err error) {
	for {
		if !f.inside {
			taken, err := f.readHead(data[n:])
			n += taken
			if err != nil || !f.inside {
				return message{}, false, n, err
			}
		}
		part := data[n:]
		if uint64(len(part)) > f.left {
			part = part[:f.left]
		}
		n += len(part)
		f.left -= uint64(len(part))
		if m, ok = f.addPayload(part); ok || n == len(data) {
			return m, ok, n, nil
		}
	}
}

// skipMessages counts the complete messages of one frame at the beginning of data whose payloads are not kept, and
// returns their size in bytes. It is a faster version of next.
func (f *frameReader) skipMessages(data []byte) (messages uint64, n int) {
	if f.inside || f.headLen > 0 || f.fragments {
		return 0, 0
	}
	for len(data)-n >= shortHead+2 {
		rest := data[n:]
		head, size := shortHead, int(rest[1])
		if size == 126 {
			head, size = shortHead+2, int(binary.BigEndian.Uint16(rest[shortHead:]))
		}
		whole := rest[0] == finBit|opText || rest[0] == finBit|opBinary
		if !whole || rest[1] > 126 || len(rest)-head < size || f.keeps(size) {
			break
		}
		messages++
		n += head + size
	}
	return messages, n
}

// keeps reports whether the payload of a complete message of that size is kept.
func (f *frameReader) keeps(size int) bool {
	n := uint64(size) //nolint:gosec // a length is not negative
	return n >= f.keepMin && n <= f.keepMax
}

// readHead reads a header or the available part of it.
func (f *frameReader) readHead(data []byte) (n int, err error) {
	src := data
	if f.headLen > 0 {
		src = f.head[:f.headLen+copy(f.head[f.headLen:], data)]
	}
	size := headSize(src)
	if len(src) < size {
		f.headLen = copy(f.head[:], src)
		return len(data), nil
	}
	n, f.headLen = size-f.headLen, 0
	return n, f.open(src[:size])
}

// headSize returns the length of the header with these first bytes.
func headSize(src []byte) int {
	if len(src) < shortHead {
		return shortHead
	}
	switch src[1] & lengthBits {
	case 126:
		return shortHead + 2
	case 127:
		return shortHead + 8
	}
	return shortHead
}

// open starts the frame with this header.
func (f *frameReader) open(head []byte) error {
	length := uint64(head[1] & lengthBits)
	switch len(head) {
	case shortHead + 2:
		length = uint64(binary.BigEndian.Uint16(head[shortHead:]))
	case shortHead + 8:
		length = binary.BigEndian.Uint64(head[shortHead:])
	}
	f.final, f.opcode = head[0]&finBit != 0, head[0]&opcodeBits
	switch {
	case head[0]&reservedBits != 0:
		return errors.New("the server sent a frame with reserved bits")
	case head[1]&maskBit != 0:
		return errors.New("the server sent a masked frame")
	case f.opcode >= opClose:
		if err := f.openControl(length); err != nil {
			return err
		}
	default:
		if err := f.openData(length); err != nil {
			return err
		}
	}
	f.inside, f.left = true, length
	return nil
}

func (f *frameReader) openControl(length uint64) error {
	switch {
	case f.opcode > opPong:
		return fmt.Errorf("the server sent a frame of the unknown opcode %d", f.opcode)
	case !f.final || length > maxControlBytes:
		return errors.New("the server sent a control frame that is fragmented or too long")
	}
	f.control = f.control[:0]
	return nil
}

func (f *frameReader) openData(length uint64) error {
	switch {
	case f.opcode > opBinary:
		return fmt.Errorf("the server sent a frame of the unknown opcode %d", f.opcode)
	case (f.opcode == opContinuation) != f.fragments:
		return errors.New("the server sent the frames of a message out of order")
	case length > maxMessageBytes || f.size+length > maxMessageBytes && f.fragments:
		return fmt.Errorf("the server sent a message of more than %d bytes", maxMessageBytes)
	}
	if !f.fragments {
		f.messageOpcode, f.size = f.opcode, 0
		f.partial = f.partial[:0]
		if cap(f.partial) > maxKeptBuffer {
			f.partial = nil
		}
	}
	f.size += length
	f.fragments = !f.final
	return nil
}

// addPayload adds the next part of the current frame's payload. It returns the message if that is complete.
func (f *frameReader) addPayload(part []byte) (m message, ok bool) {
	if f.opcode >= opClose {
		return f.addControlPayload(part)
	}
	keep := f.size <= f.keepMax && (f.size >= f.keepMin || !f.final)
	if f.left == 0 {
		f.inside = false
		if f.final {
			m = message{opcode: f.messageOpcode, size: f.size}
			if keep {
				m.payload = join(&f.partial, part)
			}
			return m, true
		}
	}
	if keep {
		f.partial = append(f.partial, part...)
	}
	return message{}, false
}

func (f *frameReader) addControlPayload(part []byte) (message, bool) {
	if f.left > 0 {
		f.control = append(f.control, part...)
		return message{}, false
	}
	f.inside = false
	payload := join(&f.control, part)
	return message{opcode: f.opcode, size: uint64(len(payload)), payload: payload}, true
}

// join returns the stored parts followed by the last one, which is returned itself if nothing is stored.
func join(held *[]byte, last []byte) []byte {
	if len(*held) == 0 {
		return last
	}
	*held = append(*held, last...)
	return *held
}

// appendFrame appends a client's frame, which must be masked (RFC 6455, 5.3).
func appendFrame(dst []byte, opcode byte, mask [4]byte, payload []byte) []byte {
	return wsframe.AppendMasked(dst, finBit|opcode, mask, payload)
}
