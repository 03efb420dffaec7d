package redisbroker

import (
	"strconv"
	"strings"
	"sync"
)

// Names of this broker's own, beside the channels, which go by their own names. The dot keeps them apart from
// any channel: a channel's kind contains no colon.
const (
	streamPrefix   = "shoal.kept:"  // the key of the stream with a channel's history
	oncePrefix     = "shoal.once:"  // the keys of messages that are stored once
	positionPrefix = "shoal.at:"    // the channel of the positions of stored messages, each published before its message
	probePrefix    = "shoal.probe:" // where a connection receives its own probes
)

// slots is how many slots a cluster's keys are spread over.
const slots = 16384

// naming gives the names that go with a channel. In a cluster all of them have to be in the slot of the channel
// itself, whose name may hold braces of its own; so they begin with a tag of that slot.
type naming struct {
	tags []string // by slot, nil outside a cluster
}

func newNaming(m mode) naming {
	if m == cluster {
		return naming{slotTags()}
	}
	return naming{}
}

func (n naming) key(channel string) string { return streamPrefix + n.tag(channel) + channel }

// once returns the name of the key of a message; it contains no colon, so no two channels share a name.
func (n naming) once(channel, key string) string {
	return oncePrefix + n.tag(channel) + channel + ":" + key
}

func (n naming) positionChannel(channel string) string {
	return positionPrefix + n.tag(channel) + channel
}

func (n naming) tag(channel string) string {
	if n.tags == nil {
		return ""
	}
	return n.tags[slotOf(channel)]
}

// parsePositionChannel returns the channel whose positions are published on the channel of a name, if it is one of
// these.
func (n naming) parsePositionChannel(name string) (channel string, ok bool) {
	channel, ok = strings.CutPrefix(name, positionPrefix)
	if ok && n.tags != nil {
		_, channel, _ = strings.Cut(channel, "}")
	}
	return channel, ok
}

// slotTags returns for each slot a tag that puts a key into it: the smallest number in braces that does.
var slotTags = sync.OnceValue(func() []string {
	tags := make([]string, slots)
	for missing, number := slots, 0; missing > 0; number++ {
		digits := strconv.Itoa(number)
		if slot := crc16(digits) % slots; tags[slot] == "" {
			tags[slot] = "{" + digits + "}"
			missing--
		}
	}
	return tags
})

// slotOf returns the slot of a key or sharded channel: of the text in its first braces, if there is any.
func slotOf(key string) int {
	if open := strings.IndexByte(key, '{'); open >= 0 {
		if length := strings.IndexByte(key[open+1:], '}'); length > 0 {
			key = key[open+1 : open+1+length]
		}
	}
	return int(crc16(key) % slots)
}

// crc16 is the checksum that Redis Cluster spreads keys by: CRC-16/XMODEM.
func crc16(s string) uint16 {
	var crc uint16
	for i := range len(s) {
		crc ^= uint16(s[i]) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
	}
	return crc
}
