package natsbroker_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/broker/brokertest"
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

	as := serveLimited(t)
	shorten(t, as("operator").URL)
	wantOnce(t, join(t, as("limited")), broker.ErrKeysUnsupported)
}

// serveLimited starts a server with a stream, which the user operator may update and the user limited may not. It
// returns the options of a node by its user.
func serveLimited(t *testing.T) (as func(user string) natsbroker.Options) {
	t.Helper()
	s := serve(t, func(o *server.Options) {
		o.Users = []*server.User{
			{Username: "operator", Password: "operator"},
			{Username: "limited", Password: "limited", Permissions: &server.Permissions{
				Publish: &server.SubjectPermission{Allow: []string{">"}, Deny: []string{"$JS.API.STREAM.UPDATE.>"}},
			}},
		}
	})
	as = func(user string) natsbroker.Options {
		opt := quick(s)
		opt.URL = strings.Replace(s.ClientURL(), "nats://", "nats://"+user+":"+user+"@", 1)
		return opt
	}
	join(t, as("operator")).stop()
	return as
}

// TestStoreOnce_FollowsTheWindow: an operator may change the window while a node runs that may not.
func TestStoreOnce_FollowsTheWindow(t *testing.T) {
	as := serveLimited(t)
	n := join(t, as("limited"))
	keys := 0
	awaitOnce := func(want error) {
		t.Helper()
		brokertest.Eventually(t, fmt.Sprintf("StoreOnce with the error %v", want), func() error {
			keys++
			once := broker.Once{Key: fmt.Sprint(keys), Digest: "one"}
			if _, _, err := n.StoreOnce(t.Context(), "upload:x", []byte("1"), once); !errors.Is(err, want) {
				return errNotYet
			}
			return nil
		})
	}
	awaitOnce(nil)
	js := shorten(t, as("operator").URL)
	awaitOnce(broker.ErrKeysUnsupported)
	change(t, js, func(c *jetstream.StreamConfig) { c.Duplicates = c.MaxAge })
	awaitOnce(nil)
}

// shorten makes the stream's duplicate window short.
func shorten(t *testing.T, url string) jetstream.JetStream {
	t.Helper()
	js := jetStreamAt(t, url)
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
