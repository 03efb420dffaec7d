package redisbroker_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/shoal-go/shoal/broker/redisbroker/internal/redistest"
)

// token returns the token of the server's present term.
func token(server *redistest.Server) string {
	process := infoField(server.Do("INFO", "server"), "run_id")[:16]
	loaded := infoField(server.Do("INFO", "persistence"), "rdb_last_load_keys_loaded")
	return server.Do("EVAL", "return redis.sha1hex(ARGV[1]):sub(1, 16)", "0", process+loaded)
}

// A stream lives as long as the newest message in it is to be kept, regardless of its writer and of how long ago it was
// that a message came.
func TestStream_ExpiresWithItsMessages(t *testing.T) {
	const key = "shoal.kept:upload:x"
	server := redistest.Start(t)
	opt := options(server) // messages are kept for ten minutes
	n := join(t, opt)
	now := server.Do("EVAL", "return redis.call('TIME')[1] .. '000'", "0")
	for name, field := range map[string]string{
		"ours, of another window": token(server) + "1700000000000",
		"ours, only a position":   token(server),
		"of another term, new":    "0123456789abcdef" + now,
		"none at all":             "",
	} {
		server.Do("DEL", key)
		if field != "" {
			server.Do("XADD", key, "1700000000000000-7", field, "one")
			server.Do("PEXPIRE", key, "60000")
		}
		store(t, n, "upload:x", "two")
		if left, err := strconv.Atoi(server.Do("PTTL", key)); err != nil || left < 600_000 {
			t.Errorf("%s: the stream lives for %d ms more, want ten minutes", name, left)
		}
	}
}

func TestStream_IsTrimmed(t *testing.T) {
	server := redistest.Start(t)
	opt := options(server)
	opt.Messages = 10
	n := join(t, opt)
	for i := range 500 {
		store(t, n, "upload:x", strconv.Itoa(i))
	}
	k := history(t, n, "upload:x")
	if len(k.Messages) != 10 || k.Floor != 490 || k.Offset != 500 || string(k.Messages[0].Payload) != "490" {
		t.Errorf("the history is %s, want the last ten messages", describe(k))
	}
	// Redis trims by nodes, of a hundred entries by default.
	if length, err := strconv.Atoi(server.Do("XLEN", "shoal.kept:upload:x")); err != nil || length > 110 {
		t.Errorf("the stream has %d entries, want ten and a node at most", length)
	}
}

// A channel's name may look as if a cluster's tag stood in front of it.
func TestStream_NameThatBeginsWithBraces(t *testing.T) {
	server := redistest.Start(t)
	n := join(t, options(server))
	for i, x := range []string{"{5}x", "{}x", "{x", "}x", "{5}{6}"} {
		subscribe(t, n, x)
		at := store(t, n, x, fmt.Sprint(i))
		redistest.Eventually(t, "the message to "+x+" has come", func() bool { return len(n.Messages(x)) == 1 })
		if got := n.Messages(x)[0]; got.Position != at {
			t.Errorf("the message to %s came at %v, want %v", x, got.Position, at)
		}
	}
}

// TestStream_EntriesOfOthersBlockNothing: entries that another program adds to the stream of a followed channel are no
// messages, and no call fails because of them. Where the stream takes no further entry, the error names the remedy.
func TestStream_EntriesOfOthersBlockNothing(t *testing.T) {
	server := redistest.Start(t)
	n := join(t, options(server))
	for i, field := range []string{
		"a", "a-field-that-is-longer-than-a-token", "0123456789abcdef", "0123456789abcdef1e999",
	} {
		channel := fmt.Sprint("upload:", i)
		key := "shoal.kept:" + channel
		subscribe(t, n, channel)
		store(t, n, channel, "one")
		server.Do("XADD", key, "*", field, "garbage", "other", "garbage")
		if k := history(t, n, channel); describe(k) != "1 above 0: 1=one" {
			t.Errorf("%s: the history is %s, want one message", field, describe(k))
		}
		if at := store(t, n, channel, "two"); at.Offset != 2 {
			t.Errorf("%s: the next message is at %v, want offset 2", field, at)
		}
		server.Do("DEL", key)
		server.Do("XADD", key, "18446744073709551615-18446744073709551615", field, "garbage")
		if _, err := n.Store(t.Context(), channel, nil); err == nil || !strings.Contains(err.Error(), "delete the keys "+key) {
			t.Errorf("%s: Store returned %v, want an error with the remedy", field, err)
		}
	}
}
