package manager

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/shard"
)

func TestOptions_HaveTheDocumentedDefaults(t *testing.T) {
	got := Options{}.withDefaults()
	got.Logger = nil
	want := Options{
		HistoryMessages: 64, HistoryBytes: 1 << 20, HistoryTTL: 10 * time.Minute, HistoryTotalBytes: 1 << 30,
		MaxUploads: 1_000_000, MaxKeys: 100_000, MaxMessageBytes: 64 << 10,
		MaxConnectionsPerUser: 32, EvictSilentAfter: 30 * time.Second, MaxSubscriptionsPerUser: 1024, PendingTTL: time.Minute, MaxPending: 100_000,
		NodeName: "local",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the defaults are %+v, want %+v", got, want)
	}
}

func TestNew_NamesEveryInvalidOption(t *testing.T) {
	m, err := New(Options{
		Shards: -1, HistoryMessages: -1, HistoryTTL: time.Microsecond, MaxMessageBytes: 1023, PendingTTL: -time.Second,
		NodeName: "a b", Broker: broker.NewMemory(broker.MemoryOptions{}).Node(),
		HistoryBytes: 5000, HistoryTotalBytes: 4999,
	})
	if m != nil || err == nil {
		t.Fatal("such options are accepted")
	}
	for _, complaint := range []string{
		"Options.Shards is -1, want 0 to 65536", "Options.HistoryMessages is -1",
		"Options.HistoryTTL is 1µs", "Options.MaxMessageBytes is 1023, want at least 1024", "Options.PendingTTL is -1s",
		`Options.NodeName is "a b", want 1 to 128 letters`, "Options.HistoryTotalBytes is 4999, want at least HistoryBytes",
	} {
		if !strings.Contains(err.Error(), complaint) {
			t.Errorf("missing is %q in\n%v", complaint, err)
		}
	}
	if _, err := New(Options{Shards: shard.MaxShards + 1}); err == nil {
		t.Error("too many shards are accepted")
	}
	_, err = New(Options{Broker: (*broker.MemoryNode)(nil), Tracer: (*fakeTracer)(nil)})
	for _, complaint := range []string{"Options.Broker is a nil *broker.MemoryNode", "Options.Tracer is a nil *manager.fakeTracer"} {
		if err == nil || !strings.Contains(err.Error(), complaint) {
			t.Errorf("missing is %q in\n%v", complaint, err)
		}
	}
}

// The history of one upload may take all the memory of histories, and by default takes no more.
func TestOptions_HistoryBytesFitHistoryTotalBytes(t *testing.T) {
	for _, o := range []struct{ bytes, total, want int }{
		{0, 5000, 5000}, {5000, 5000, 5000}, {-1, 5000, math.MaxInt}, {0, -1, 1 << 20}, {2 << 30, -1, 2 << 30}, {0, 2 << 20, 1 << 20},
	} {
		m := open(t, Options{HistoryBytes: o.bytes, HistoryTotalBytes: o.total})
		if got := m.opt.HistoryBytes; got != o.want {
			t.Errorf("HistoryBytes %d of %d: %d bytes, want %d", o.bytes, o.total, got, o.want)
		}
	}
}

func TestOptions_NegativeLimitsOnUsersAreNone(t *testing.T) {
	m := open(t, Options{MaxConnectionsPerUser: -1, MaxSubscriptionsPerUser: -1})
	var conns []*fakeConn
	for range 100 {
		conns = append(conns, connect(t, m, "ann"))
	}
	for i := range 2000 {
		must(t, m.SubscribeUpload(t.Context(), "bob", fmt.Sprint("upload ", i)))
	}
	if got := m.Stats(); len(conns[0].closed()) > 0 || got.Connections != 100 || got.Subscriptions != 2000 {
		t.Errorf("a limit was found: %+v", got)
	}
}

func TestCheckID(t *testing.T) {
	for id, problem := range map[string]string{
		"a":                           "",
		strings.Repeat("x", 255):      "",
		strings.Repeat("🐟", 63):       "",
		"upload/1 \"ü\" \u200b\u2028": "",
		"":                            "must not be empty",
		strings.Repeat("x", 256):      "has 256 bytes, at most 255 are allowed",
		strings.Repeat("🐟", 64):       "has 256 bytes, at most 255 are allowed",
		"\xff":                        "must be valid UTF-8",
		"a\xe2\x82":                   "must be valid UTF-8",
		"\x00":                        "must not contain control characters",
		"a\nb":                        "must not contain control characters",
		"\x1f":                        "must not contain control characters",
		"\x7f":                        "must not contain control characters",
		"\u0080":                      "must not contain control characters",
		"\u009f":                      "must not contain control characters",
		"\u00a0":                      "",
	} {
		err := CheckID("upload_id", id)
		var invalid *InvalidError
		if problem == "" {
			if err != nil {
				t.Errorf("%q is refused: %v", id, err)
			}
		} else if !errors.As(err, &invalid) || invalid.Problem != problem || invalid.Field != "upload_id" {
			t.Errorf("%q: %v, want %q", id, err, problem)
		}
	}
}

func TestInvalidError_NamesTheField(t *testing.T) {
	m := open(t, Options{})
	ctx, c := t.Context(), connect(t, m, "ann")
	ended, cancel := context.WithCancel(ctx)
	cancel()
	for field, errs := range map[string][]error{
		"user_id": {
			m.Connect("", c), m.SubscribeUpload(ctx, "\n", "cat"), m.SubscribeConn(ctx, "", c, "cat", SubscribeOptions{}),
			second(m.SendToUser(t.Context(), "", note(t, 1))),
		},
		"upload_id": {
			m.SubscribeUpload(ctx, "ann", ""), m.SubscribeConn(ctx, "ann", c, "\x00", SubscribeOptions{}), m.Forget(ctx, ""),
			second(m.Publish(ctx, "", note(t, 1))), second(m.SendToUploadSubscribers("\xff", note(t, 1))),
		},
		"connection": {m.Connect("ann", nil)},
		"": {
			second(m.Publish(ctx, "cat", nil)), second(m.SendToUser(t.Context(), "ann", nil)), second(m.Publish(ctx, "cat", Encoded{})),
		},
	} {
		for i, err := range errs {
			var invalid *InvalidError
			if !errors.As(err, &invalid) || invalid.Field != field {
				t.Errorf("call %d for %q: %v", i, field, err)
			}
		}
	}
	for i, err := range []error{
		m.SubscribeUpload(ended, "ann", "cat"), m.SubscribeConn(ended, "ann", c, "cat", SubscribeOptions{}),
		second(m.Publish(ended, "cat", note(t, 1))), second(m.Resume(ended, "ann", c, map[string]Position{"cat": {}})),
	} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("call %d with an ended context: %v", i, err)
		}
	}
	if got := m.Stats(); len(c.frames) > 0 || got.Published > 0 || got.Uploads > 0 {
		t.Errorf("%d frames were sent, there are %+v", len(c.frames), got)
	}
}

func second[T any](_ T, err error) error { return err }

func third[A, B any](_ A, _ B, err error) error { return err }

func TestStats_AsJSON(t *testing.T) {
	m := open(t, Options{})
	connect(t, m, "ann")
	must(t, m.SubscribeUpload(t.Context(), "ann", "cat"))
	must(t, m.SubscribeUpload(t.Context(), "bob", "dog"))
	publish(t, m, "cat", 3)
	got, err := json.Marshal(m.Stats())
	const none = `{"event":0,"state":0,"terminal":0}`
	want := `{"connections":1,"users":2,"uploads":2,"subscriptions":2,"pending":1,` +
		`"published":3,"queued":3,"conflated":0,"dropped":0,` +
		`"messages":{"publish":{"event":3,"state":0,"terminal":0},"local":` + none + `,"user":` + none +
		`,"broker":` + none + `},"connection_panics":0,` +
		fmt.Sprintf(`"history_uploads":1,"history_messages":3,"history_bytes":%d,"history_evicted":0}`,
			UploadOverhead+len("cat")+3*(MessageOverhead+len(`{"action":"note","n":0,"offset":1,"upload_id":"cat"}`)+2))
	if err != nil || string(got) != want {
		t.Errorf("the stats are %s, %v, want %s", got, err, want)
	}
}

// Without a history nothing is stored, and clients are told that they cannot recover; live messages, their order and
// their offsets are as with one.
func TestOptions_HistoryOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := open(t, Options{HistoryMessages: -1, HistoryBytes: -1})
		first := publish(t, m, "cat", 3)
		c := connect(t, m, "ann")
		must(t, m.SubscribeConn(t.Context(), "ann", c, "cat", SubscribeOptions{Acknowledge: true, Since: &Position{Epoch: first.Epoch, Offset: 1}}))
		last := publish(t, m, "cat", 2)
		if last.Epoch != first.Epoch || last.Offset != 5 {
			t.Errorf("the position is %v after %v", last, first)
		}
		wantConsecutive(t, c.offsets(), 4, 5)
		if got := c.received(t)[0]; got.Action != "subscribed" || got.Recovered || got.Offset != 3 {
			t.Errorf("the acknowledgement is %+v", got)
		}
		if _, pos, known := newest(m, "cat"); !known || pos != last || len(held(m, "cat", Position{}).Messages) > 0 {
			t.Errorf("stored are %v at %v", held(m, "cat", Position{}), pos)
		}
		d := connect(t, m, "bob")
		must(t, m.SubscribeConn(t.Context(), "bob", d, "cat", SubscribeOptions{Acknowledge: true, Since: &last}))
		if got := d.received(t)[0]; !got.Recovered {
			t.Errorf("a client that missed nothing is told that it did: %+v", got)
		}
		m.Disconnect("ann", c)
		m.Disconnect("bob", d)
		publish(t, m, "dog", 1)
		<-time.After(2 * time.Minute)
		if n := m.Stats().Uploads; n != 0 {
			t.Errorf("%d uploads are kept", n)
		}
	})
}

// Limits that are off limit nothing.
func TestOptions_NegativeLimitsAreOff(t *testing.T) {
	m := open(t, Options{HistoryBytes: -1, MaxPending: -1, EvictSilentAfter: -1, MaxConnectionsPerUser: 1, StateRate: -1})
	for range 40 {
		publish(t, m, "cat", 1)
	}
	if n := len(held(m, "cat", Position{}).Messages); n != 40 {
		t.Errorf("%d messages are stored, want 40", n)
	}
	must(t, m.Connect("ann", &silent{&fakeConn{}}))
	if err := m.Connect("ann", &fakeConn{}); !errors.Is(err, ErrTooManyConnections) {
		t.Errorf("a silent connection gave way: %v", err)
	}
}

// silent is a connection whose client has never been heard.
type silent struct{ *fakeConn }

func (*silent) SilentFor() time.Duration { return 1 << 60 }
