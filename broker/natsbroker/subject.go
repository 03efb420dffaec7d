package natsbroker

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Subjects. A message is stored on the channel's base subject; the stream republishes it on the live subject, to
// which nodes subscribe. The first tokens never hold a channel's kind where another token could be.
const (
	livePrefix  = "live."
	epochPrefix = "epoch."
	// othersPrefix precedes the kind of every channel except uploads, whose subjects foreign publishers know.
	othersPrefix = "shoal."
	uploadKind   = "upload"
	probePrefix  = "shoal-probe."
	// streamEpochSubject holds the epoch of the stream itself; see streamEpoch.
	streamEpochSubject = epochPrefix + "stream"
	// storeProbeSubject holds the newest message of the probe that stores.
	storeProbeSubject = epochPrefix + "probe"
	// fenceSubject belongs to the stream, but nothing is ever stored there.
	fenceSubject = epochPrefix + "fence"
	// forgottenSubject announces Forget to nodes that are not subscribed to the channel. No live subject of a
	// channel has as few tokens.
	forgottenSubject = livePrefix + "forgotten"
)

// Permissions returns the subjects that the NATS user of a node must be allowed to publish to and subscribe to, for a
// stream of this name (Options.Stream). Run tries each of them, except those that create and enlarge the stream,
// and its error names the missing ones. STREAM.CREATE and STREAM.UPDATE are not needed if an operator creates
// the stream.
func Permissions(stream string) (publish, subscribe []string) {
	return []string{
		uploadKind + ".>", othersPrefix + ">", epochPrefix + ">", livePrefix + ">", probePrefix + ">", "_INBOX.>",
		"$JS.API.STREAM.INFO." + stream, "$JS.API.STREAM.CREATE." + stream, "$JS.API.STREAM.UPDATE." + stream,
		"$JS.API.DIRECT.GET." + stream, "$JS.API.DIRECT.GET." + stream + ".>",
	}, []string{livePrefix + ">", probePrefix + ">", "_INBOX.>"}
}

// errChannel means that a name is not a channel. Such a name could exceed the server's limit of a protocol line,
// whereupon the server closes the connection.
var errChannel = errors.New("a channel is kind:id with an id of 1 to 255 bytes")

// checkChannel returns an error that wraps errChannel unless the name has the form of a channel.
func checkChannel(channel string) error {
	const longestKind, longestID = 64, 255
	kind, id, _ := strings.Cut(channel, ":")
	if kind == "" || len(kind) > longestKind || id == "" || len(id) > longestID {
		return fmt.Errorf("natsbroker: channel %.40q: %w", channel, errChannel)
	}
	return nil
}

// baseSubject returns the subject that a channel's messages are stored on. It is unique to the channel.
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

// appendToken appends an id, percent-encoding the bytes that a subject cannot hold: white space, control characters,
// wildcards, the percent sign, invalid UTF-8, and dots that would make an empty token. Plain ids stay readable,
// and foreign publishers need no rule for them. The result is at most three times as long as the id.
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
