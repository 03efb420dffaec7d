package redisbroker

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/shoal-go/shoal/internal/optiontest"
)

func TestOptions_URLs(t *testing.T) {
	for raw, want := range map[string]string{
		"redis://h":                                "0 [h:6379]  0 : : false",
		"redis://h:1/3":                            "0 [h:1]  3 : : false",
		"redis://[::1]:1":                          "0 [[::1]:1]  0 : : false",
		"rediss://u:p%40%2F@h":                     "0 [h:6379]  0 u:p@/ : true",
		"redis://:p@q@h/":                          "",
		"redis://:p%40q@h/":                        "0 [h:6379]  0 :p@q : false",
		"redis+sentinel://u:p@a,b:2/main/4":        "1 [a:26379 b:2] main 4 u:p : false",
		"redis+sentinel://a/m?sentinel_password=x": "1 [a:26379] m 0 : :x false",
		"redis+cluster://a:1,b,c":                  "2 [a:1 b:6379 c:6379]  0 : : false",
		"rediss+cluster://a":                       "2 [a:6379]  0 : : true",
	} {
		to, err := parseURL(raw)
		if want == "" {
			want = "0 [h:6379]  0 :p@q : false" // an unescaped @ in a password is allowed
		}
		if got := describe(to); err != nil || got != want {
			t.Errorf("%s means %q (%v), want %q", raw, got, err, want)
		}
	}
}

func TestOptions_InvalidURLsAreRefused(t *testing.T) {
	for raw, want := range map[string]string{
		"":                                        "must begin with",
		"localhost:6379":                          "must begin with",
		"http://h":                                "must be redis://",
		"redis+twins://h":                         "sentinel or cluster",
		"redis://":                                "host or host:port",
		"redis://:secret@":                        "host or host:port",
		"redis://:secret@h:x":                     "host or host:port",
		"redis://:secret@h:99999999":              "from 1 to 65535",
		"redis+cluster://:secret@h:1,h:0":         "from 1 to 65535",
		"redis://:secret%zz@h":                    "percent-encode",
		"redis://:secret@a,b":                     "several servers",
		"redis://:secret@h/x":                     "must be a number",
		"redis://:secret@h/-1":                    "must be a number",
		"redis+cluster://:secret@h/1":             "only 0",
		"redis+sentinel://:secret@h":              "must name the sentinels' master",
		"redis://h?sentinel_password=x":           "means nothing",
		"redis://h?password=secret":               "means nothing",
		"redis://h?insecure_skip_verify=true":     "means nothing",
		"rediss://h?insecure_skip_verify=perhaps": "true or false",
	} {
		_, err := parseURL(raw)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: the error is %v, want it to say %q", raw, err, want)
		} else if strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: the error is %v, which tells too much", raw, err)
		}
	}
}

func TestOptions_AllErrorsAtOnce(t *testing.T) {
	_, err := New(Options{URL: "x", Messages: -1, TTL: -time.Second, ProbeInterval: 1, Timeout: -1, MaxPayload: -1})
	for _, name := range []string{"URL", "Messages is -1", "TTL is -1s", "ProbeInterval is 1ns", "Timeout is -1ns", "MaxPayload is -1"} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("the error is %v, want it to name %s", err, name)
		}
	}
	if _, err := New(Options{URL: "redis://h"}); err != nil {
		t.Errorf("the defaults are refused: %v", err)
	}
}

// 0 and negative values follow the rule of all options.
func TestOptions_FollowOneRule(t *testing.T) {
	base := func() Options { return Options{URL: "redis://h"} }
	optiontest.Check(t, "options.go", base, func(o Options) error {
		_, err := New(o)
		return err
	})
}

func TestCheckVersion(t *testing.T) {
	for version, fine := range map[string]bool{"7.0.0": true, "10.1": true, "6.2.14": false, "": false, "x": false} {
		err := checkVersion("h:1", version)
		if (err == nil) != fine {
			t.Errorf("version %q: %v", version, err)
		}
		if err != nil && (!isFatal(err) || !strings.Contains(err.Error(), "7.0 or newer is needed")) {
			t.Errorf("version %q: %v", version, err)
		}
	}
}

// describe formats a parsed URL.
func describe(to target) string {
	return fmt.Sprintf("%d %v %s %d %s:%s %s:%s %v", to.mode, to.addrs, to.master, to.db, to.user, to.password,
		to.sentinelUser, to.sentinelPassword, to.tls != nil)
}

// Slots as CLUSTER KEYSLOT gives them.
func TestSlotOf(t *testing.T) {
	for key, want := range map[string]int{"123456789": 12739, "foo": 12182, "{foo}bar": 12182, "a{foo}{bar}": 12182} {
		if got := slotOf(key); got != want {
			t.Errorf("the slot of %q is %d, want %d", key, got, want)
		}
	}
	for _, whole := range []string{"{}foo", "foo{", "foo}{", "foo{}{bar}"} {
		if got := slotOf(whole); got != int(crc16(whole)%slots) {
			t.Errorf("the slot of %q is %d, want that of all of it", whole, got)
		}
	}
}

func TestNaming_NamesOfAChannelShareASlot(t *testing.T) {
	n := newNaming(cluster)
	ids := []string{"a", "{a}", "{a}b", "{}", "}{", "{", "}", "a}b", "{{a}}", "{}{a}", "a b:c", "é", strings.Repeat("{", 255)}
	for i := range 1000 {
		ids = append(ids, fmt.Sprint(i))
	}
	for i := range ids {
		ids = append(ids, "upload:"+ids[i])
	}
	for _, channel := range ids {
		for _, name := range []string{n.key(channel), n.positionChannel(channel), n.once(channel, "key")} {
			if slotOf(name) != slotOf(channel) {
				t.Errorf("%q of %q is in slot %d, want %d", name, channel, slotOf(name), slotOf(channel))
			}
		}
		for _, n := range []naming{n, newNaming(single)} {
			if got, ok := n.parsePositionChannel(n.positionChannel(channel)); !ok || got != channel {
				t.Errorf("%q is told to be about %q, want %q", n.positionChannel(channel), got, channel)
			}
		}
		if _, ok := n.parsePositionChannel(channel); ok {
			t.Errorf("%q is taken for a position's channel", channel)
		}
	}
}
