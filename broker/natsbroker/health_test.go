package natsbroker_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
)

// TestBroker_PermissionTakenAway: a connected node whose user may no longer publish to some subjects is unhealthy, for a
// reason that names the missing permission, and is healthy once the user may again.
func TestBroker_PermissionTakenAway(t *testing.T) {
	for denied, publish := range map[string]func(context.Context, *node) error{
		"upload.>": func(ctx context.Context, n *node) error {
			_, err := n.Store(ctx, "upload:x", []byte("1"))
			return err
		},
		"live.>": func(ctx context.Context, n *node) error { return n.Publish(ctx, "upload:x", []byte("1")) },
	} {
		t.Run(denied, func(t *testing.T) {
			var opt *server.Options
			s := serve(t, func(o *server.Options) {
				o.Users = []*server.User{{Username: "limited", Password: "limited", Permissions: &server.Permissions{
					Publish: &server.SubjectPermission{Deny: []string{"unused"}},
				}}}
				opt = o.Clone()
			})
			address, ok := s.Addr().(*net.TCPAddr)
			if !ok {
				t.Fatal("the server does not listen")
			}
			deny := func(subject string) {
				next := opt.Clone()
				next.Port = address.Port
				next.Users[0].Permissions.Publish.Deny = []string{subject}
				if err := s.ReloadOptions(next); err != nil {
					t.Fatal(err)
				}
			}
			o := quick(s)
			o.URL = "nats://limited:limited@" + address.String()
			n := join(t, o)
			n.store(t, "upload:x", "0")
			deny(denied)
			ctx, cancel := context.WithCancel(t.Context())
			called := make(chan struct{})
			go func() { // a refused request has no response
				defer close(called)
				_ = publish(ctx, n)
			}()
			n.Await(t, "bad health that names the permission", func() bool {
				fault := n.Fault()
				return fault != nil && strings.Contains(fault.Error(), "missing permissions") &&
					strings.Contains(fault.Error(), strings.TrimSuffix(denied, ">"))
			})
			cancel()
			<-called
			deny("unused")
			n.awaitHealth(t, true)
			n.store(t, "upload:x", "2")
		})
	}
}

// TestBroker_FullStorageIsHealthyOnlyWithRoom: a node whose server had no room is healthy again only after the server has
// accepted ten probes in a row.
func TestBroker_FullStorageIsHealthyOnlyWithRoom(t *testing.T) {
	s := serve(t, func(o *server.Options) { o.JetStreamMaxMemory = 1 << 20 })
	opt := quick(s)
	opt.ProbeInterval = 50 * time.Millisecond
	n := join(t, opt)
	payload := []byte(strings.Repeat("x", 1000))
	var err error
	for i := 0; err == nil && i < 2000; i++ {
		_, err = n.Store(t.Context(), fmt.Sprint("upload:", i), payload)
	}
	n.awaitHealth(t, false)
	conn := client(t, s)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), "SHOAL")
	if err != nil {
		t.Fatal(err)
	}
	full := streamState(t, conn).LastSeq // only a message that the server accepts has a sequence
	if err := stream.Purge(t.Context(), jetstream.WithPurgeSubject("upload.>")); err != nil {
		t.Fatal(err)
	}
	n.awaitHealth(t, true)
	if accepted := streamState(t, conn).LastSeq - full; accepted < 10 {
		t.Errorf("the node was healthy after %d accepted probes, want 10 at least", accepted)
	}
	n.store(t, "upload:x", "1")
}
