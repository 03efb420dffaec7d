package natsbroker

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// TestOptions_StreamErrorNamesBound: a bound that is beyond what a server, an account or a cluster has room for, or that an
// account requires, is named by its option.
func TestOptions_StreamErrorNamesBound(t *testing.T) {
	const none = "no suitable peers for placement"
	for _, c := range []struct {
		bytes  int64
		refuse jetstream.APIError
		want   string
	}{
		{5, jetstream.APIError{ErrorCode: 10002}, "lower --the-MaxBytes, which is 5"},
		{5, jetstream.APIError{ErrorCode: 10023}, "lower --the-MaxBytes, which is 5"},
		{5, jetstream.APIError{ErrorCode: 10028}, "lower --the-MaxBytes, which is 5"},
		{5, jetstream.APIError{ErrorCode: 10047}, "lower --the-MaxBytes, which is 5"},
		{5, jetstream.APIError{ErrorCode: 10122}, "lower --the-MaxBytes, which is 5"},
		{5, jetstream.APIError{ErrorCode: 10005, Description: none + ", insufficient storage"}, "lower --the-MaxBytes, which is 5"},
		{5, jetstream.APIError{ErrorCode: 10005, Description: none + ", peer offline"}, ""},
		{0, jetstream.APIError{ErrorCode: 10113}, "set --the-MaxBytes"},
	} {
		opt := Options{MaxBytes: c.bytes, OptionName: func(option string) string { return "--the-" + option }}
		text := opt.streamError(&c.refuse).Error()
		if c.want == "" && strings.Contains(text, "--the") || !strings.Contains(text, c.want) {
			t.Errorf("the error of %+v is %q, want %q in it", c.refuse, text, c.want)
		}
	}
}

// TestSupervisor_AnsweringStreamEndsTheHurry: a call that failed before the stream has responded does not shorten the wait
// of a later check.
func TestSupervisor_AnsweringStreamEndsTheHurry(t *testing.T) {
	l := &replicas{t: t}
	var failing atomic.Pointer[session]
	l.instead = map[string]func(*nats.Msg) []*nats.Msg{"$JS.API.STREAM.INFO.SHOAL": func(m *nats.Msg) []*nats.Msg {
		if s := failing.Swap(nil); s != nil {
			s.leaderless <- struct{}{} // once the failure before is known
		}
		return l.info(m)
	}}
	b, _ := l.run(time.Hour)
	s := b.session.Load()
	v := &supervisor{opt: l.opt, streamManager: streamManager{Options: l.opt}}
	s.leaderless <- struct{}{}
	failing.Store(s)
	if _, err := v.awaitStream(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if len(s.leaderless) > 0 {
		t.Error("the failure is left for the next check")
	}
}
