package natsbroker

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/nats-io/nats-server/v2/server"
)

// channelOf is the inverse of baseSubject.
func channelOf(t *testing.T, subject string) string {
	t.Helper()
	if !strings.HasPrefix(subject, uploadKind+".") {
		subject = strings.TrimPrefix(subject, othersPrefix)
	}
	kind, id, _ := strings.Cut(subject, ".")
	return decode(t, kind) + ":" + decode(t, id)
}

func decode(t *testing.T, token string) string {
	t.Helper()
	var b strings.Builder
	for i := 0; i < len(token); i++ {
		if token[i] != '%' {
			b.WriteByte(token[i])
			continue
		}
		const hex = "0123456789ABCDEF"
		if i+2 >= len(token) {
			t.Fatalf("%q ends within an encoded byte", token)
		}
		b.WriteByte(byte(strings.IndexByte(hex, token[i+1])<<4 | strings.IndexByte(hex, token[i+2])))
		i += 2
	}
	return b.String()
}

func FuzzSubject(f *testing.F) {
	for _, id := range []string{
		"a", "a.b", "a..b", ".", "..", ".a", "a.", "*", ">", "a.*", "%", "%2E", "a b", "é", "日本", "\x00", "\xff",
		`"\`, "\u2028", strings.Repeat(".", 255), strings.Repeat("\xff", 255), "fence",
	} {
		f.Add("upload", id)
		f.Add("user", id)
	}
	f.Fuzz(func(t *testing.T, kind, id string) {
		if kind == "" || id == "" || strings.Contains(kind, ":") || strings.Contains(kind, ".") {
			return
		}
		channel := kind + ":" + id
		subject := baseSubject(channel)
		if back := channelOf(t, subject); back != channel {
			t.Errorf("%q became %q, and that %q", channel, subject, back)
		}
		if !server.IsValidLiteralSubject(subject) || !utf8.ValidString(subject) ||
			strings.ContainsAny(subject, " \t\r\n\f\x00") {
			t.Errorf("%q became %q, which is no subject", channel, subject)
		}
		if longest := 3*len(channel) + len(othersPrefix); len(subject) > longest {
			t.Errorf("%q became %d bytes, want at most %d", channel, len(subject), longest)
		}
	})
}

func TestBaseSubject_KeepsPlainIDs(t *testing.T) {
	for channel, want := range map[string]string{
		"upload:4711":     "upload.4711",
		"upload:a.b:c-_é": "upload.a.b:c-_é",
		"upload:a b":      "upload.a%20b",
		"shoal:node":      "shoal.shoal.node",
	} {
		if got := baseSubject(channel); got != want {
			t.Errorf("%q became %q, want %q", channel, got, want)
		}
	}
}
