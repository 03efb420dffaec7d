package server

import "encoding/binary"

// boundary follows a client's bytes to know where a message ends (RFC 6455, 5.2): what gws makes of them it does
// not say. The zero value stands ahead of a message. Of bytes that break the rules it may think what it likes,
// because gws then ends the connection.
type boundary struct {
	// header are the bytes of a header that has not come completely.
	header [maxFrameHeader]byte
	have   uint8
	// payload is how much of a frame is still to come.
	payload uint64
	// fragmented: a message has begun and its last frame has not.
	fragmented bool
}

// maxFrameHeader is the longest header that a client sends: two bytes, a 64-bit length and a mask.
const maxFrameHeader = 14

// whole reports whether all that has come is whole messages.
func (b *boundary) whole() bool { return b.have == 0 && b.payload == 0 && !b.fragmented }

// pass takes the next bytes into account.
func (b *boundary) pass(p []byte) {
	for len(p) > 0 {
		if n := min(b.payload, uint64(len(p))); n > 0 {
			b.payload -= n
			p = p[n:]
			continue
		}
		b.header[b.have] = p[0]
		b.have++
		p = p[1:]
		if b.have >= 2 && int(b.have) == b.headerLen() {
			b.begin()
		}
	}
}

// The second byte of a header holds a length up to 125, or says how long the length behind it is.
const (
	masked     = 0x80
	lengthBits = 0x7F
	length16   = 126
	length64   = 127
)

func (b *boundary) headerLen() int {
	n := 2
	switch b.header[1] & lengthBits {
	case length16:
		n += 2
	case length64:
		n += 8
	}
	if b.header[1]&masked != 0 {
		n += 4
	}
	return n
}

// begin takes a complete header into account.
func (b *boundary) begin() {
	const final, opcode, control = 0x80, 0x0F, 0x08
	switch n := b.header[1] & lengthBits; n {
	case length16:
		b.payload = uint64(binary.BigEndian.Uint16(b.header[2:]))
	case length64:
		b.payload = binary.BigEndian.Uint64(b.header[2:])
	default:
		b.payload = uint64(n)
	}
	if b.header[0]&opcode < control { // control frames may stand between the frames of a message
		b.fragmented = b.header[0]&final == 0
	}
	b.have = 0
}
