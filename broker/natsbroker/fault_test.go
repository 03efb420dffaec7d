package natsbroker_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/broker/brokertest"
	"github.com/shoal-go/shoal/broker/natsbroker"
)

// client connects to a server as anybody might.
func client(t *testing.T, s *server.Server) *nats.Conn {
	t.Helper()
	return connect(t, s.ClientURL())
}

func connect(t *testing.T, url string) *nats.Conn {
	t.Helper()
	conn, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	closed := make(chan struct{})
	conn.SetClosedHandler(func(*nats.Conn) { close(closed) })
	t.Cleanup(func() {
		conn.Close()
		<-closed
	})
	return conn
}

func TestBroker_StoresForeignMessages(t *testing.T) {
	s := serve(t)
	n := join(t, quick(s))
	n.subscribe(t, "upload:x")
	conn := client(t, s)
	m := &nats.Msg{Subject: "upload.x", Data: []byte("{}"), Header: nats.Header{"Nats-Sequence": {"999"}}}
	if err := errors.Join(conn.PublishMsg(m), conn.Flush()); err != nil {
		t.Fatal(err)
	}
	received := n.awaitPayloads(t, "upload:x", "{}")
	k := n.history(t, "upload:x")
	if len(k.Messages) != 1 || k.Offset == 0 || k.Offset == 999 || received[0].Offset != k.Offset {
		t.Errorf("received %+v, kept %+v, want one message at the stream's offset", received, k)
	}
}

func TestBroker_ServerRestartWithoutDataBeginsEpoch(t *testing.T) {
	s := serve(t)
	n := join(t, quick(s))
	n.subscribe(t, "upload:x", "user:y")
	n.store(t, "upload:x", "1")
	before := n.history(t, "upload:x")
	port := onPort(t, s)
	stop(s)
	n.awaitHealth(t, false)
	if _, err := n.Store(t.Context(), "upload:x", nil); !errors.Is(err, broker.ErrUnavailable) {
		t.Errorf("Store without a server returned %v, want ErrUnavailable", err)
	}
	serve(t, port)
	n.awaitHealth(t, true)
	n.Await(t, "an interruption of all channels", func() bool {
		all := n.Interruptions()
		return len(all) > 0 && len(all[0]) == 0
	})
	if after := n.history(t, "upload:x"); after.Epoch == before.Epoch || len(after.Messages) > 0 || after.Offset != 0 {
		t.Errorf("kept is %+v, want nothing of an epoch other than %q", after, before.Epoch)
	}
	n.store(t, "upload:x", "2")
	if err := n.Publish(t.Context(), "user:y", []byte("3")); err != nil {
		t.Fatal(err)
	}
	n.awaitPayloads(t, "upload:x", "1", "2")
	n.awaitPayloads(t, "user:y", "3")
}

func TestBroker_ConnectsToServerThatStartsLater(t *testing.T) {
	s := serve(t)
	opt, port := quick(s), onPort(t, s)
	stop(s)
	n := start(t, opt, brokertest.NewRecorder())
	n.awaitHealth(t, false)
	serve(t, port)
	n.awaitHealth(t, true)
	n.store(t, "upload:x", "1")
}

func TestBroker_CreatesDeletedStreamAgain(t *testing.T) {
	s := serve(t)
	n := join(t, quick(s))
	n.subscribe(t, "upload:x")
	n.store(t, "upload:x", "1")
	before := n.history(t, "upload:x")
	if err := jetStream(t, s).DeleteStream(t.Context(), "SHOAL"); err != nil {
		t.Fatal(err)
	}
	brokertest.Eventually(t, "History", func() error {
		k, err := n.History(t.Context(), "upload:x", broker.Position{})
		if err == nil && k.Epoch == before.Epoch {
			err = errNotYet
		}
		return err
	})
	n.Await(t, "an interruption", func() bool { return len(n.Interruptions()) > 0 })
	n.awaitHealth(t, true)
}

// permanent returns the error of Run, which must not retry.
func permanent(t *testing.T, opt natsbroker.Options) error {
	t.Helper()
	b, err := natsbroker.New(opt)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	err = b.Run(ctx, brokertest.NewRecorder())
	if err == nil {
		t.Fatal("Run returned nil, want an error at once")
	}
	return err
}

func wantError(t *testing.T, err error, pieces ...string) {
	t.Helper()
	for _, piece := range pieces {
		if !strings.Contains(err.Error(), piece) {
			t.Errorf("the error is %q, want it to name %q", err, piece)
		}
	}
}

func TestBroker_WrongCredentialsEndRun(t *testing.T) {
	s := serve(t, func(o *server.Options) { o.Username, o.Password = "shoal", "right" })
	opt := quick(s)
	opt.URL = strings.Replace(opt.URL, "nats://", "nats://shoal:wrong-secret@", 1)
	err := permanent(t, opt)
	wantError(t, err, "uthorization")
	if strings.Contains(err.Error(), "wrong-secret") {
		t.Errorf("the error %q tells the password", err)
	}
}

func TestBroker_MissingJetStreamEndsRun(t *testing.T) {
	wantError(t, permanent(t, quick(serve(t, func(o *server.Options) { o.JetStream = false }))), "JetStream")
}

func TestBroker_UnsuitableStreamEndsRun(t *testing.T) {
	s := serve(t)
	_, err := jetStream(t, s).CreateStream(t.Context(), jetstream.StreamConfig{
		Name: "SHOAL", Subjects: []string{"upload.>"}, Storage: jetstream.FileStorage,
	})
	if err != nil {
		t.Fatal(err)
	}
	wantError(t, permanent(t, quick(s)), "subjects", "storage", "allow rollup", "republish")
}

func TestBroker_EnlargesStreamAndNeverShrinksIt(t *testing.T) {
	s := serve(t)
	for _, messages := range []int{4, 8, 4} {
		opt := quick(s)
		opt.Messages = messages
		join(t, opt).stop()
	}
	if most := streamInfo(t, jetStream(t, s)).Config.MaxMsgsPerSubject; most != 8+1 {
		t.Errorf("the stream keeps %d messages of a subject, want one more than 8", most)
	}
}

func TestBroker_OldServerEndsRun(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			pretend(conn, "2.9.25")
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-ended
	})
	err = permanent(t, natsbroker.Options{URL: "nats://" + l.Addr().String()})
	wantError(t, err, "2.9.25", "2.12")
}

// pretend is a server of some version that knows how to greet.
func pretend(conn net.Conn, version string) {
	defer conn.Close()
	fmt.Fprintf(conn, "INFO {\"server_id\":\"x\",\"version\":%q,\"headers\":true,\"max_payload\":1048576}\r\n", version)
	lines := bufio.NewScanner(conn)
	for lines.Scan() {
		if lines.Text() == "PING" {
			fmt.Fprint(conn, "PONG\r\n")
		}
	}
}

func TestBroker_CallsWithoutDeadlineEnd(t *testing.T) {
	link := brokertest.NewLink(t, serve(t).Addr().String())
	n := join(t, natsbroker.Options{
		URL: "nats://" + link.Addr(), ProbeInterval: time.Hour, CallTimeout: 100 * time.Millisecond, InFlight: 1,
	})
	link.Silence()
	const callers = 3 // all but one wait for a slot
	ended := make(chan error, callers)
	for range callers {
		go func() {
			_, err := n.Store(context.Background(), "upload:x", nil)
			ended <- err
		}()
	}
	for range callers {
		select {
		case err := <-ended:
			if !errors.Is(err, broker.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Store without an answer returned %v, want ErrUnavailable and DeadlineExceeded", err)
			}
		case <-time.After(patience):
			t.Fatalf("Store without an answer has not returned after %v", patience)
		}
	}
}

func TestBroker_ReportsDroppedMessages(t *testing.T) {
	s := serve(t)
	opt := quick(s)
	opt.PendingMessages = 4
	e, gate := brokertest.NewRecorder(), make(chan struct{})
	e.OnReceive = func(broker.Message) { <-gate }
	slow := start(t, opt, e)
	slow.awaitHealth(t, true)
	fast := join(t, quick(s))
	slow.subscribe(t, "upload:x", "upload:y")
	var last uint64
	for range 20 {
		last = fast.store(t, "upload:x", "1")
	}
	close(gate)
	e.Await(t, "an interruption of the channel", func() bool {
		return slices.ContainsFunc(e.Interruptions(), func(channels []string) bool {
			return slices.Equal(channels, []string{"upload:x"})
		})
	})
	// While the queue is being drained, further messages may be dropped as well.
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	before := make(map[uint64]uint64) // by offset: the one before
	for late := time.Now().Add(patience); !hasOneOf(e.Messages("upload:x"), before); <-again.C {
		if time.Now().After(late) {
			t.Fatalf("after %v still waiting for a next message", patience)
		}
		next := fast.store(t, "upload:x", "2")
		before[next], last = last, next
	}
}

// hasOneOf reports whether the offset and the previous offset of a message are among the given ones.
func hasOneOf(messages []broker.Message, before map[uint64]uint64) bool {
	return slices.ContainsFunc(messages, func(m broker.Message) bool {
		previous, ok := before[m.Offset]
		return ok && m.Prev == previous
	})
}

// TestBroker_MissingPermissionsEndRun: each missing permission is named by the error of Run.
func TestBroker_MissingPermissionsEndRun(t *testing.T) {
	for _, c := range []struct {
		denied string
		deny   func(*server.Permissions, *server.SubjectPermission)
	}{
		{"shoal-probe.", func(p *server.Permissions, s *server.SubjectPermission) { p.Subscribe = s }},
		{"live.", func(p *server.Permissions, s *server.SubjectPermission) { p.Subscribe = s }},
		{"live.", func(p *server.Permissions, s *server.SubjectPermission) { p.Publish = s }},
		{"upload.", func(p *server.Permissions, s *server.SubjectPermission) { p.Publish = s }},
		{"shoal.", func(p *server.Permissions, s *server.SubjectPermission) { p.Publish = s }},
		{"epoch.", func(p *server.Permissions, s *server.SubjectPermission) { p.Publish = s }},
		{"$JS.API.STREAM.INFO.", func(p *server.Permissions, s *server.SubjectPermission) { p.Publish = s }},
		{"$JS.API.DIRECT.GET.", func(p *server.Permissions, s *server.SubjectPermission) { p.Publish = s }},
	} {
		p := new(server.Permissions)
		c.deny(p, &server.SubjectPermission{Deny: []string{c.denied + ">"}})
		s := serve(t, func(o *server.Options) {
			o.Users = []*server.User{{Username: "limited", Password: "limited", Permissions: p}}
		})
		opt := quick(s)
		opt.CallTimeout = 500 * time.Millisecond
		opt.URL = strings.Replace(opt.URL, "nats://", "nats://limited:limited@", 1)
		wantError(t, permanent(t, opt), "ermissions", c.denied)
	}
}

// TestBroker_SealedStreamIsUnhealthy: a stream that an operator has sealed is named by the health.
func TestBroker_SealedStreamIsUnhealthy(t *testing.T) {
	s := serve(t)
	n := join(t, quick(s))
	js := jetStream(t, s)
	change(t, js, func(c *jetstream.StreamConfig) { c.Sealed = true })
	n.Await(t, "bad health that names the seal", func() bool {
		return n.Fault() != nil && strings.Contains(n.Fault().Error(), "sealed true, want false")
	})
	if err := js.DeleteStream(t.Context(), "SHOAL"); err != nil {
		t.Fatal(err)
	}
	n.awaitHealth(t, true)
	n.store(t, "upload:x", "1")
}

// change changes the configuration of the stream.
func change(t *testing.T, js jetstream.JetStream, fn func(*jetstream.StreamConfig)) {
	t.Helper()
	stream, err := js.Stream(t.Context(), "SHOAL")
	if err != nil {
		t.Fatal(err)
	}
	config := stream.CachedInfo().Config
	fn(&config)
	if _, err := js.UpdateStream(t.Context(), config); err != nil {
		t.Fatal(err)
	}
}

// TestBroker_MessagesLargerThanTheStreamAccepts: such a message is refused for good, and the node stays healthy.
func TestBroker_MessagesLargerThanTheStreamAccepts(t *testing.T) {
	s := serve(t)
	n := join(t, quick(s))
	change(t, jetStream(t, s), func(c *jetstream.StreamConfig) { c.MaxMsgSize = 1000 })
	_, err := n.Store(t.Context(), "upload:x", make([]byte, 2000))
	if !errors.Is(err, nats.ErrMaxPayload) || errors.Is(err, broker.ErrUnavailable) ||
		!strings.Contains(err.Error(), "raise max_msg_size of stream SHOAL") {
		t.Errorf("Store returned %v, want an error that no retry fixes, with the remedy", err)
	}
	n.store(t, "upload:x", "1")
	n.subscribe(t, "upload:x")
	if !n.Healthy() {
		t.Errorf("the node is unhealthy: %v", n.Fault())
	}
}

// TestBroker_PositionsFitTheServersPayload: requests for positions stay within a small max_payload.
func TestBroker_PositionsFitTheServersPayload(t *testing.T) {
	n := join(t, quick(serve(t, func(o *server.Options) { o.MaxPayload = 4096 })))
	channels := make([]string, 100)
	for i := range channels {
		channels[i] = fmt.Sprintf("upload:%d-%s", i, strings.Repeat("%", 200))
	}
	n.store(t, channels[99], "1")
	positions, err := n.Positions(t.Context(), channels...)
	if err != nil || len(positions) != 100 || positions[99].Offset == 0 || positions[0].Offset != 0 {
		t.Errorf("the positions are %v, %v", positions, err)
	}
}

func TestBroker_PositionOutlastsMessagesWhileSubscribed(t *testing.T) {
	s := serve(t)
	opt := quick(s)
	opt.TTL = 400 * time.Millisecond
	n := join(t, opt)
	n.subscribe(t, "upload:x")
	n.store(t, "upload:x", "1")
	first := n.history(t, "upload:x")
	<-time.After(3 * opt.TTL)
	k := n.history(t, "upload:x")
	if k.Epoch != first.Epoch || k.Offset != first.Offset || k.Floor != first.Offset || len(k.Messages) > 0 {
		t.Errorf("after the message's time kept is %+v, want nothing above %d of epoch %q", k, first.Offset, first.Epoch)
	}
}
