package natsbroker

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/broker/brokertest"
)

// TestSession_TimesOfMessagesAreLocal: the age of a message is measured by the server's clock, however much that differs.
func TestSession_TimesOfMessagesAreLocal(t *testing.T) {
	for _, ahead := range []time.Duration{0, 11 * time.Minute, -11 * time.Minute} {
		s := new(session)
		s.compareClocks(time.Now().Add(ahead))
		messages := []broker.Stored{{At: time.Now().Add(ahead - time.Minute)}, {At: time.Now().Add(ahead + time.Second)}}
		s.setLocalTimes(messages)
		for _, m := range messages {
			if !strings.Contains(m.At.String(), " m=") {
				t.Errorf("the time %v has no monotonic reading, so the age changes with this machine's clock", m.At)
			}
		}
		age, future := time.Since(messages[0].At), time.Until(messages[1].At)
		if age < 59*time.Second || age > 2*time.Minute || future > 0 {
			t.Errorf("with a server that is ahead by %v the ages are %v and %v, want a minute and none", ahead, age, -future)
		}
	}
	s := new(session)
	s.compareClocks(time.Time{})
	if is := s.localTime(time.Now().Add(-time.Minute)); time.Since(is) > 2*time.Minute {
		t.Errorf("without a statement of the server a minute ago was at %v", is)
	}
}

// replicas simulates a stream of several replicas: the leader has one message of upload:x; the replica that responds
// to reads gets it only after the first read.
type replicas struct {
	t     *testing.T
	opt   Options
	asked atomic.Int64
	// checked counts the requests for the stream's state, cluster names its leader.
	checked atomic.Int64
	cluster atomic.Pointer[jetstream.ClusterInfo]
	// instead replaces answers by subject; nil answers nothing. A question for the newest message on storeProbeSubject is
	// answered by the present leader, unless past is set.
	instead map[string]func(*nats.Msg) []*nats.Msg
	past    bool
	// conn is the connection that answers, and answers how, by subject.
	conn     *nats.Conn
	requests chan *nats.Msg
	answers  map[string]func(*nats.Msg) []*nats.Msg
}

const leaderSequence = "7"

func (l *replicas) answer(subject string, with func(m *nats.Msg) []*nats.Msg) {
	if other, ok := l.instead[subject]; ok {
		with = other
	}
	if subject == storeProbeSubject && !l.past {
		stored := with
		with = func(m *nats.Msg) []*nats.Msg {
			if isQuestion(m) {
				return refusal("1000")
			}
			return stored(m)
		}
	}
	l.answers[subject] = with
	if _, err := l.conn.ChanSubscribe(subject, l.requests); err != nil {
		l.t.Fatal(err)
	}
}

// answerAll answers requests in the order of their arrival, as a server does, until the test ends.
func (l *replicas) answerAll() {
	for {
		select {
		case m := <-l.requests:
			for _, answer := range l.answers[m.Subject](m) {
				// A request may come while the test closes the connections.
				if err := m.RespondMsg(answer); err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
					l.t.Errorf("answering %s: %v", m.Subject, err)
				}
			}
		case <-l.t.Context().Done():
			return
		}
	}
}

func (l *replicas) info(*nats.Msg) []*nats.Msg { return l.infoAt(9) }

// infoAt is the state of the stream with a last sequence.
func (l *replicas) infoAt(last uint64) []*nats.Msg {
	l.checked.Add(1)
	data, err := json.Marshal(jetstream.StreamInfo{
		Config: l.opt.wanted(), Created: time.Unix(1, 0), Cluster: l.cluster.Load(),
		State: jetstream.StreamState{LastSeq: last},
	})
	if err != nil {
		l.t.Error(err)
	}
	return []*nats.Msg{{Data: data}}
}

func (l *replicas) refuse(*nats.Msg) []*nats.Msg { return refusal(leaderSequence) }

// refusal is the answer of a leader whose last sequence on a subject is another one.
func refusal(last string) []*nats.Msg {
	return []*nats.Msg{{Data: []byte(`{"error":{"err_code":10071,"description":"wrong last sequence: ` + last + `"}}`)}}
}

// isQuestion reports whether a message is one of refusedPublish.
func isQuestion(m *nats.Msg) bool {
	return header(m, expectedHeader) == header(refusedPublish(""), expectedHeader)
}

// acknowledgement is the answer of a leader that has stored a message.
func acknowledgement(sequence int64) []*nats.Msg {
	return []*nats.Msg{{Data: fmt.Appendf(nil, `{"stream":"SHOAL","seq":%d}`, sequence)}}
}

// epochMessage is the answer to a read of the stream's epoch.
func epochMessage(name, sequence string) []*nats.Msg {
	return []*nats.Msg{{Header: nats.Header{sequenceHeader: {sequence}}, Data: []byte(name)}}
}

func (l *replicas) batch(m *nats.Msg) []*nats.Msg {
	if strings.Contains(string(m.Data), streamEpochSubject) {
		return epochMessage("e", "1")
	}
	if l.asked.Add(1) == 1 {
		return []*nats.Msg{{Header: nats.Header{statusHeader: {statusNotFound}}}}
	}
	kept := nats.Header{sequenceHeader: {leaderSequence}, timeHeader: {time.Unix(2, 0).Format(time.RFC3339Nano)}}
	return []*nats.Msg{{Header: kept, Data: []byte("{}")}, {Header: nats.Header{statusHeader: {statusEnd}}}}
}

func (l *replicas) record(*nats.Msg) []*nats.Msg {
	now := time.Now().Format(time.RFC3339Nano)
	return []*nats.Msg{{Header: nats.Header{sequenceHeader: {"3"}, timeHeader: {now}}, Data: []byte("e 0 0")}}
}

// serveWithoutJetStream runs a server, for which the test itself answers requests, until the test ends.
func serveWithoutJetStream(t *testing.T) *server.Server {
	t.Helper()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	return s
}

// run runs a node with the stream until the test ends.
func (l *replicas) run(interval time.Duration) (*Broker, *brokertest.Recorder) {
	t := l.t
	t.Helper()
	s := serveWithoutJetStream(t)
	l.opt = Options{URL: s.ClientURL(), Replicas: 3, ProbeInterval: interval}.withDefaults()
	conn, err := nats.Connect(l.opt.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	l.conn, l.requests, l.answers = conn, make(chan *nats.Msg, 1024), make(map[string]func(*nats.Msg) []*nats.Msg)
	l.answer("$JS.API.STREAM.INFO.SHOAL", l.info)
	l.answer("upload.x", l.refuse)
	l.answer(storeProbeSubject, func(*nats.Msg) []*nats.Msg { return acknowledgement(9) })
	l.answer("$JS.API.DIRECT.GET.SHOAL", l.batch)
	l.answer("$JS.API.DIRECT.GET.SHOAL.epoch.upload.x", l.record)
	l.answer("$JS.API.DIRECT.GET.SHOAL.upload.x", func(*nats.Msg) []*nats.Msg { return nil })
	l.answer("$JS.API.DIRECT.GET.SHOAL.epoch.stream", func(*nats.Msg) []*nats.Msg { return epochMessage("e", "1") })
	for _, subject := range []string{"epoch.upload.x", "epoch.stream"} {
		l.answer(subject, func(m *nats.Msg) []*nats.Msg { return refusal("3") })
	}
	var answering sync.WaitGroup
	answering.Go(l.answerAll)
	t.Cleanup(answering.Wait)
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	b, err := New(l.opt)
	if err != nil {
		t.Fatal(err)
	}
	r, ended := brokertest.NewRecorder(), make(chan error, 1)
	go func() { ended <- b.Run(t.Context(), r) }()
	t.Cleanup(func() { // after the test's context has ended
		if err := <-ended; err != nil {
			t.Errorf("Run returned %v, want nil", err)
		}
	})
	r.Await(t, "the connection", r.Healthy)
	return b, r
}

// TestBroker_HistoryIncludesLeadersMessages: a replica that lags behind the leader is asked again.
func TestBroker_HistoryIncludesLeadersMessages(t *testing.T) {
	b, _ := (&replicas{t: t}).run(time.Second)
	k, err := b.History(t.Context(), "upload:x", broker.Position{})
	if err != nil || len(k.Messages) != 1 {
		t.Errorf("the history is %+v, error %v, want the message that the leader has", k, err)
	}
}

// TestSupervisor_ChangeOfLeaderIsInterruption: a leader that fails may not have sent what the stream stores by then,
// also if the same server leads again.
func TestSupervisor_ChangeOfLeaderIsInterruption(t *testing.T) {
	l := &replicas{t: t}
	_, r := l.run(20 * time.Millisecond)
	l.cluster.Store(&jetstream.ClusterInfo{Leader: "a"}) // the answer to the creation of a stream names no leader
	before := l.checked.Load()
	brokertest.Eventually(t, "two checks", func() error {
		if n := l.checked.Load() - before; n < 2 {
			return fmt.Errorf("%d checks so far", n)
		}
		return nil
	})
	if n := len(r.Interruptions()); n > 0 {
		t.Errorf("%d interruptions were reported with one leader, want none", n)
	}
	for i, next := range []jetstream.ClusterInfo{
		{Leader: "b", LeaderSince: new(time.Unix(7, 0))}, {Leader: "b", LeaderSince: new(time.Unix(8, 0))},
	} {
		l.cluster.Store(&next)
		r.Await(t, "an interruption", func() bool { return len(r.Interruptions()) == i+1 })
	}
}

// A call is blamed on refusals of its own time only, however many others there were before.
func TestRefusals_OfSubject(t *testing.T) {
	violation := func(subject string) error { return fmt.Errorf("permissions violation for publish to %q", subject) }
	var r refusals
	r.add(violation("a"))
	mark := r.total()
	if err := r.of("a", mark); err != nil {
		t.Errorf("an old refusal is returned: %v", err)
	}
	for i := range maxRefusals + 1 {
		r.add(violation(strconv.Itoa(i)))
	}
	for subject, want := range map[string]bool{"a": false, "0": false, "1": true, strconv.Itoa(maxRefusals): true} {
		if err := r.of(subject, mark); (err != nil) != want {
			t.Errorf("subject %s: got %v", subject, err)
		}
	}
}
