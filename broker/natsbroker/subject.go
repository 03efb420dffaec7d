package natsbroker

import (
	"strings"
	"unicode/utf8"
)

// Subjects. A stored message goes to the channel's base subject; the stream sends it on to the live one, to
// which nodes are subscribed. The first tokens hold no channel's kind at a place where another could stand.
const (
	livePrefix  = "live."
	epochPrefix = "epoch."
	// othersPrefix stands before the kind of all channels but uploads, whose subjects foreign publishers know.
	othersPrefix = "shoal."
	uploadKind   = "upload"
	probePrefix  = "shoal-probe."
	// fenceSubject is one of the stream's to which nothing is ever stored.
	fenceSubject = epochPrefix + "fence"
)

// baseSubject returns the subject that what is stored of a channel goes to. Different channels have different ones.
func baseSubject(channel string) string {
	kind, id, _ := strings.Cut(channel, ":")
	var b strings.Builder
	if kind != uploadKind {
		b.WriteString(othersPrefix)
	}
	appendToken(&b, kind)
	b.WriteByte('.')
	appendToken(&b, id)
	return b.String()
}

// appendToken appends an id in a form that a subject can hold: what it cannot is percent-encoded, which are white
// space and control characters, wildcards, the percent sign itself, a dot that would make an empty token, and
// bytes that are no UTF-8. Everything else stays as it is, so that plain ids are readable and foreign
// publishers need no rule for them. The length is at most three times that of the id.
func appendToken(b *strings.Builder, id string) {
	for i := 0; i < len(id); {
		c, size := id[i], 1
		encode := c <= ' ' || c == 0x7f || c == '*' || c == '>' || c == '%'
		switch {
		case c == '.':
			encode = i == 0 || i == len(id)-1 || id[i-1] == '.'
		case c >= utf8.RuneSelf:
			var r rune
			r, size = utf8.DecodeRuneInString(id[i:])
			encode = r == utf8.RuneError && size == 1
		}
		if encode {
			const hex = "0123456789ABCDEF"
			b.WriteByte('%')
			b.WriteByte(hex[c>>4])
			b.WriteByte(hex[c&15])
		} else {
			b.WriteString(id[i : i+size])
		}
		i += size
	}
}
