package natsbroker_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/broker/natsbroker"
)

// A stream with a short duplicate window, as earlier versions made it, gets a longer one.
func TestStoreOnce_WidensTheWindowOfAnExistingStream(t *testing.T) {
	s := serve(t)
	join(t, quick(s)).stop()
	js := shorten(t, s.ClientURL())
	wantOnce(t, join(t, quick(s)), nil)
	stream, err := js.Stream(t.Context(), "SHOAL")
	if err != nil || stream.CachedInfo().Config.Duplicates != 10*time.Minute {
		t.Errorf("the stream is %+v, error %v", stream.CachedInfo(), err)
	}
}

// Where the server limits the window, or the node may not change the stream, all but StoreOnce works.
func TestStoreOnce_SaysThatTheWindowIsTooShort(t *testing.T) {
	limited := serve(t, func(o *server.Options) { o.JetStreamLimits.Duplicates = time.Second })
	wantOnce(t, join(t, quick(limited)), broker.ErrKeysUnsupported)

	s := serve(t, func(o *server.Options) {
		o.Users = []*server.User{
			{Username: "operator", Password: "operator"},
			{Username: "limited", Password: "limited", Permissions: &server.Permissions{
				Publish: &server.SubjectPermission{Allow: []string{">"}, Deny: []string{"$JS.API.STREAM.UPDATE.>"}},
			}},
		}
	})
	as := func(user string) natsbroker.Options {
		opt := quick(s)
		opt.URL = strings.Replace(s.ClientURL(), "nats://", "nats://"+user+":"+user+"@", 1)
		return opt
	}
	join(t, as("operator")).stop()
	shorten(t, as("operator").URL)
	wantOnce(t, join(t, as("limited")), broker.ErrKeysUnsupported)
}

// shorten makes the stream's duplicate window short.
func shorten(t *testing.T, url string) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(connect(t, url))
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), "SHOAL")
	if err != nil {
		t.Fatal(err)
	}
	config := stream.CachedInfo().Config
	config.Duplicates = time.Second
	if _, err := js.UpdateStream(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	return js
}

// wantOnce checks StoreOnce's error, and that messages are stored in any case.
func wantOnce(t *testing.T, n *node, want error) {
	t.Helper()
	if _, err := n.Store(t.Context(), "upload:x", []byte("1")); err != nil {
		t.Errorf("Store returned %v", err)
	}
	_, _, err := n.StoreOnce(t.Context(), "upload:x", []byte("2"), broker.Once{Key: "key", Digest: "one"})
	if !errors.Is(err, want) || errors.Is(err, broker.ErrUnavailable) {
		t.Errorf("StoreOnce returned %v, want %v", err, want)
	}
}
