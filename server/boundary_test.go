package server

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

// Whatever pieces a client's bytes come in, a message is whole exactly when its last byte has come.
func TestBoundary(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var stream []byte
	ends := map[int]bool{0: true} // where all that has come is whole messages
	for range 300 {
		frames := 1 + random.IntN(3)
		for i := range frames {
			opcode := byte(0)
			if i == 0 {
				opcode = 1
			}
			if i == frames-1 {
				opcode |= 0x80
			}
			stream = appendMasked(stream, opcode, payloadLength(random))
			if i == frames-1 {
				ends[len(stream)] = true
			}
			if random.IntN(3) == 0 {
				stream = appendMasked(stream, 0x89, random.IntN(126))
				ends[len(stream)] = i == frames-1
			}
		}
	}
	for range 20 {
		var b boundary
		for at := 0; at < len(stream); {
			n := min(1+random.IntN(1<<random.IntN(12)), len(stream)-at)
			b.pass(stream[at : at+n])
			at += n
			if b.whole() != ends[at] {
				t.Fatalf("after %d bytes whole() = %t, want %t", at, b.whole(), ends[at])
			}
		}
	}
}

// payloadLength returns a length, those at which the header changes more often than others.
func payloadLength(random *rand.Rand) int {
	lengths := []int{0, 1, 125, 126, 127, 300, 1<<16 - 1, 1 << 16, random.IntN(2000)}
	return lengths[random.IntN(len(lengths))]
}

func appendMasked(dst []byte, first byte, n int) []byte {
	switch {
	case n < 126:
		dst = append(dst, first, 0x80|byte(n))
	case n < 1<<16:
		dst = binary.BigEndian.AppendUint16(append(dst, first, 0x80|126), uint16(n))
	default:
		dst = binary.BigEndian.AppendUint64(append(dst, first, 0x80|127), uint64(n))
	}
	return append(dst, make([]byte, 4+n)...)
}
