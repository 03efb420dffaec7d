package natsbroker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/broker/brokertest"
)

// republish sends a stored message of a subject to the nodes that are subscribed, as the stream's leader does.
func (l *replicas) republish(subject, payload string, sequence int64) {
	l.t.Helper()
	l.republishAt(time.Now(), subject, payload, sequence)
}

// republishAt is republish for a message that was stored at some time.
func (l *replicas) republishAt(at time.Time, subject, payload string, sequence int64) {
	l.t.Helper()
	m := &nats.Msg{Subject: livePrefix + subject, Data: []byte(payload), Header: nats.Header{
		streamHeader: {"SHOAL"}, sequenceHeader: {fmt.Sprint(sequence)}, timeHeader: {at.Format(time.RFC3339Nano)},
	}}
	if err := l.conn.PublishMsg(m); err != nil {
		l.t.Fatal(err)
	}
}

// follow subscribes to a channel and returns when a message at a sequence has arrived.
func (l *replicas) follow(b *Broker, r *brokertest.Recorder, channel string, sequence int64) {
	l.t.Helper()
	if err := b.Subscribe(l.t.Context(), channel); err != nil {
		l.t.Fatal(err)
	}
	l.republish(baseSubject(channel), "newer", sequence)
	r.Await(l.t, "the message", func() bool { return len(r.Payloads(channel)) > 0 })
}

// TestSupervisor_StateOfThePastIsNoLoss: a server whose last sequence is lower than one that has arrived may lag behind,
// or lead no more. The stream has lost messages only if those that it stores now are not newer.
func TestSupervisor_StateOfThePastIsNoLoss(t *testing.T) {
	for _, lost := range []bool{false, true} {
		t.Run(fmt.Sprint("lost=", lost), func(t *testing.T) {
			const arrived = 50 // the state of the stream says 9
			var stored, renewed, probes atomic.Int64
			stored.Store(9)
			l := &replicas{t: t}
			l.instead = map[string]func(*nats.Msg) []*nats.Msg{
				"$JS.API.DIRECT.GET.SHOAL": func(m *nats.Msg) []*nats.Msg {
					if string(m.Data) == fmt.Sprintf(`{"seq":%d}`, arrived) {
						return []*nats.Msg{{Header: nats.Header{statusHeader: {statusNotFound}}}}
					}
					return l.batch(m)
				},
				storeProbeSubject: func(*nats.Msg) []*nats.Msg {
					probes.Add(1)
					return acknowledgement(stored.Add(1))
				},
				streamEpochSubject: func(*nats.Msg) []*nats.Msg {
					renewed.Add(1)
					return refusal("3")
				},
			}
			b, r := l.run(20 * time.Millisecond)
			if !lost {
				stored.Store(arrived)
			}
			l.follow(b, r, "upload:x", arrived)
			before := probes.Load()
			brokertest.Eventually(t, "several checks", func() error {
				if n := probes.Load() - before; n < 6 && renewed.Load() == 0 {
					return fmt.Errorf("%d probes so far", n)
				}
				return nil
			})
			if is := renewed.Load() > 0; is != lost {
				t.Errorf("another epoch was begun: %v, want %v", is, lost)
			}
		})
	}
}

// TestHistory_IncludesWhatHasArrived: a leader that was cut off responds with an older state until it learns of the next
// one. A history that lacks a message which has arrived, or the one at the given position, is read again, unless the
// stream stores a message on the condition that the history is true.
func TestHistory_IncludesWhatHasArrived(t *testing.T) {
	for name, c := range map[string]struct {
		confirmed bool
		follow    bool
		since     broker.Position
		want      uint64
	}{
		"message has arrived":   {follow: true, want: 12},
		"position is known":     {since: broker.Position{Epoch: "e", Offset: 12}, want: 12},
		"messages were dropped": {follow: true, confirmed: true, want: 7},
		"position of the past":  {since: broker.Position{Epoch: "d", Offset: 12}, want: 7},
	} {
		t.Run(name, func(t *testing.T) {
			const staleReads = 3
			var reads atomic.Int64
			last := func() string {
				if reads.Load() < staleReads {
					return leaderSequence
				}
				return "12"
			}
			l := &replicas{t: t}
			l.instead = map[string]func(*nats.Msg) []*nats.Msg{
				storeProbeSubject: func(m *nats.Msg) []*nats.Msg {
					if header(m, expectedSubjectHeader) != "upload.x" || c.confirmed {
						return acknowledgement(20)
					}
					reads.Add(1)
					return refusal("12")
				},
				"upload.x": func(*nats.Msg) []*nats.Msg { return refusal(last()) },
				"$JS.API.DIRECT.GET.SHOAL": func(m *nats.Msg) []*nats.Msg {
					if strings.Contains(string(m.Data), streamEpochSubject) {
						return epochMessage("e", "1")
					}
					stored := nats.Header{sequenceHeader: {last()}, timeHeader: {time.Now().Format(time.RFC3339Nano)}}
					return []*nats.Msg{{Header: stored, Data: []byte("{}")}, {Header: nats.Header{statusHeader: {statusEnd}}}}
				},
			}
			b, r := l.run(time.Second)
			if c.follow {
				l.follow(b, r, "upload:x", 12)
			}
			h, err := b.History(t.Context(), "upload:x", c.since)
			if err != nil || h.Offset != c.want {
				t.Errorf("the history is at %+v, %v, want offset %d", h.Position, err, c.want)
			}
		})
	}
}

// TestHistory_EpochOfThePastIsNotAdopted: a replica that lags behind responds with an epoch of the stream that has ended.
func TestHistory_EpochOfThePastIsNotAdopted(t *testing.T) {
	const refusals = 3 // after which the replica has caught up
	var renewed atomic.Bool
	var refused atomic.Int64
	epoch := func() []*nats.Msg {
		if renewed.Load() && refused.Load() >= refusals {
			return epochMessage("f", "20")
		}
		return epochMessage("e", "1")
	}
	l := &replicas{t: t}
	l.instead = map[string]func(*nats.Msg) []*nats.Msg{
		storeProbeSubject: func(m *nats.Msg) []*nats.Msg {
			if renewed.Load() && header(m, expectedSubjectHeader) == streamEpochSubject && header(m, expectedHeader) != "20" {
				refused.Add(1)
				return refusal("20")
			}
			return acknowledgement(30)
		},
		"$JS.API.DIRECT.GET.SHOAL.epoch.stream": func(*nats.Msg) []*nats.Msg { return epoch() },
		"$JS.API.DIRECT.GET.SHOAL": func(m *nats.Msg) []*nats.Msg {
			if strings.Contains(string(m.Data), streamEpochSubject) {
				return epoch()
			}
			return l.batch(m)
		},
	}
	b, r := l.run(time.Second)
	if h, err := b.History(t.Context(), "upload:x", broker.Position{}); err != nil || h.Epoch != "e" {
		t.Fatalf("the history is at %+v, %v", h.Position, err)
	}
	renewed.Store(true)
	l.republish(streamEpochSubject, "f", 20)
	r.Await(t, "the new epoch", func() bool { return b.session.Load().epochs.era.Load().epoch == "f" })
	for range 10 {
		if h, err := b.History(t.Context(), "upload:x", broker.Position{}); err != nil || h.Epoch != "f" {
			t.Fatalf("the history is at %+v, %v, want epoch f", h.Position, err)
		}
	}
}

// TestStore_EpochIsTheLeaders: a replica that lags behind responds with the record of an epoch that Forget has ended.
func TestStore_EpochIsTheLeaders(t *testing.T) {
	var reads atomic.Int64
	now := time.Now().Format(time.RFC3339Nano)
	b, _ := (&replicas{t: t, instead: map[string]func(*nats.Msg) []*nats.Msg{
		"upload.x":       func(*nats.Msg) []*nats.Msg { return acknowledgement(40) },
		"epoch.upload.x": func(*nats.Msg) []*nats.Msg { return refusal("31") },
		"$JS.API.DIRECT.GET.SHOAL.epoch.upload.x": func(*nats.Msg) []*nats.Msg {
			if reads.Add(1) < 3 {
				return []*nats.Msg{{Header: nats.Header{sequenceHeader: {"3"}, timeHeader: {now}}, Data: []byte("e-1 2 2")}}
			}
			return []*nats.Msg{{Header: nats.Header{sequenceHeader: {"31"}, timeHeader: {now}}, Data: []byte("e-2 30 30")}}
		},
	}}).run(time.Second)
	if at, err := b.Store(t.Context(), "upload:x", []byte("1")); err != nil || at.Epoch != "e-2" {
		t.Errorf("Store returned %+v, %v, want epoch e-2", at, err)
	}
}

// TestSession_ClocksDoNotOrderMessages: after the stream was lost, the stream's present messages are told from those that
// a node has queued, although the servers that stored them had clocks that differ by an hour.
func TestSession_ClocksDoNotOrderMessages(t *testing.T) {
	var epoch, last atomic.Pointer[string]
	epoch.Store(new("e"))
	last.Store(new("12"))
	now := time.Now()
	stored := func(sequence string, at time.Time, payload string) []*nats.Msg {
		header := nats.Header{sequenceHeader: {sequence}, timeHeader: {at.Format(time.RFC3339Nano)}}
		return []*nats.Msg{{Header: header, Data: []byte(payload)}}
	}
	l := &replicas{t: t, instead: map[string]func(*nats.Msg) []*nats.Msg{
		storeProbeSubject: func(*nats.Msg) []*nats.Msg { return acknowledgement(100) },
		"upload.x":        func(*nats.Msg) []*nats.Msg { return refusal(*last.Load()) },
		"$JS.API.DIRECT.GET.SHOAL.epoch.stream": func(*nats.Msg) []*nats.Msg {
			return stored("20", now, *epoch.Load())
		},
		"$JS.API.DIRECT.GET.SHOAL": func(m *nats.Msg) []*nats.Msg {
			switch string(m.Data) {
			case string(firstRequest(streamEpochSubject)):
				return stored("20", now, *epoch.Load())
			case string(nextRequest("upload.x", 41)):
				return stored("41", now.Add(-time.Hour), "present")
			}
			return []*nats.Msg{{Header: nats.Header{statusHeader: {statusNotFound}}}}
		},
	}}
	b, r := l.run(time.Second)
	l.follow(b, r, "upload:x", 12)
	epoch.Store(new("f"))
	l.republishAt(now, streamEpochSubject, "f", 20)
	l.republishAt(now.Add(time.Hour), "upload.x", "queued", 30)
	r.Await(t, "the queued message", func() bool { return len(r.Payloads("upload:x")) == 2 })
	last.Store(new("41"))
	l.republishAt(now.Add(-time.Hour), "upload.x", "present", 41)
	r.Await(t, "the present message", func() bool { return len(r.Payloads("upload:x")) == 3 })
	for i, want := range []broker.Position{{}, {Epoch: "f", Offset: 41}} {
		if m := r.Messages("upload:x")[1+i]; m.Position != want {
			t.Errorf("the %s message is at %+v, want %+v", m.Payload, m.Position, want)
		}
	}
}

// TestBroker_ReadsFromThePresentLeader: a leader that was cut off responds first, with a state of the past, until it learns
// of the next one. It lacks the newest message that the node has stored to check the stream.
func TestBroker_ReadsFromThePresentLeader(t *testing.T) {
	const checked, stale = 100, 3 // responses of the past
	for name, read := range map[string]func(context.Context, *Broker) (broker.Position, error){
		"Positions": func(ctx context.Context, b *Broker) (broker.Position, error) {
			positions, err := b.Positions(ctx, "upload:x")
			return append(positions, broker.Position{})[0], err
		},
		"History": func(ctx context.Context, b *Broker) (broker.Position, error) {
			h, err := b.History(ctx, "upload:x", broker.Position{Epoch: "e", Offset: 12})
			return h.Position, err
		},
		"Newest": func(ctx context.Context, b *Broker) (broker.Position, error) {
			h, err := b.Newest(ctx, "upload:x")
			return h.Position, err
		},
	} {
		t.Run(name, func(t *testing.T) {
			var asked atomic.Pointer[nats.Msg]
			var questions atomic.Int64
			last := func() string {
				if questions.Load() <= stale {
					return "12"
				}
				return "15"
			}
			stored := func() *nats.Msg {
				now := time.Now().Format(time.RFC3339Nano)
				return &nats.Msg{Header: nats.Header{sequenceHeader: {last()}, timeHeader: {now}}, Data: []byte("{}")}
			}
			l := &replicas{t: t, past: true}
			l.instead = map[string]func(*nats.Msg) []*nats.Msg{
				"upload.x": func(m *nats.Msg) []*nats.Msg {
					asked.Store(m)
					return refusal("12")
				},
				storeProbeSubject: func(m *nats.Msg) []*nats.Msg {
					if !isQuestion(m) {
						return acknowledgement(checked)
					}
					if questions.Add(1) <= stale {
						return refusal("50")
					}
					if question := asked.Swap(nil); question != nil { // the present leader responds to both
						if err := question.RespondMsg(refusal("15")[0]); err != nil {
							t.Error(err)
						}
					}
					return refusal(fmt.Sprint(checked))
				},
				"$JS.API.DIRECT.GET.SHOAL.upload.x": func(*nats.Msg) []*nats.Msg { return []*nats.Msg{stored()} },
				"$JS.API.DIRECT.GET.SHOAL": func(m *nats.Msg) []*nats.Msg {
					end := &nats.Msg{Header: nats.Header{statusHeader: {statusEnd}}}
					switch {
					case string(m.Data) == string(firstRequest(streamEpochSubject)):
						return epochMessage("e", "1")
					case strings.Contains(string(m.Data), "multi_last"):
						return []*nats.Msg{end}
					}
					messages := []*nats.Msg{stored(), end}
					if !strings.Contains(string(m.Data), `"seq":1,`) && last() != "12" { // from the given position on
						before := stored()
						before.Header[sequenceHeader] = []string{"12"}
						messages = append([]*nats.Msg{before}, messages...)
					}
					return messages
				},
			}
			b, _ := l.run(time.Second)
			at, err := read(t.Context(), b)
			if want := (broker.Position{Epoch: "e", Offset: 15}); err != nil || at != want {
				t.Errorf("the position is %+v, %v, want %+v", at, err, want)
			}
		})
	}
}

// TestSupervisor_NextLeaderHasTheMessages: a next leader that lacks a message which has arrived, and has stored others
// since, begins another epoch. Nothing else shows that: its sequences are higher than those before.
func TestSupervisor_NextLeaderHasTheMessages(t *testing.T) {
	for _, replaced := range []bool{false, true} {
		t.Run(fmt.Sprint("replaced=", replaced), func(t *testing.T) {
			var renewed, compared, stored atomic.Int64
			stored.Store(20)
			var newest atomic.Pointer[nats.Msg]
			l := &replicas{t: t}
			l.instead = map[string]func(*nats.Msg) []*nats.Msg{
				"$JS.API.STREAM.INFO.SHOAL": func(*nats.Msg) []*nats.Msg { return l.infoAt(uint64(stored.Load())) },
				storeProbeSubject:           func(*nats.Msg) []*nats.Msg { return acknowledgement(stored.Add(1)) },
				"$JS.API.DIRECT.GET.SHOAL": func(m *nats.Msg) []*nats.Msg {
					if string(m.Data) != `{"seq":12}` {
						return l.batch(m)
					}
					compared.Add(1)
					at := header(newest.Load(), timeHeader)
					if replaced {
						at = time.Unix(1, 0).Format(time.RFC3339Nano)
					}
					return []*nats.Msg{{Header: nats.Header{sequenceHeader: {"12"}, timeHeader: {at}}}}
				},
				streamEpochSubject: func(*nats.Msg) []*nats.Msg {
					renewed.Add(1)
					return refusal("3")
				},
			}
			b, r := l.run(20 * time.Millisecond)
			l.cluster.Store(&jetstream.ClusterInfo{Leader: "a"})
			l.follow(b, r, "upload:x", 12)
			newest.Store(b.session.Load().epochs.era.Load().newest.Load())
			before := l.checked.Load()
			brokertest.Eventually(t, "a check", func() error {
				if l.checked.Load()-before < 2 {
					return errors.New("no check so far")
				}
				return nil
			})
			l.cluster.Store(&jetstream.ClusterInfo{Leader: "b"})
			brokertest.Eventually(t, "a comparison", func() error {
				if compared.Load() == 0 || replaced && renewed.Load() == 0 {
					return fmt.Errorf("compared %d times", compared.Load())
				}
				return nil
			})
			if n := renewed.Load(); !replaced && n > 0 {
				t.Errorf("another epoch was begun %d times, want none", n)
			}
		})
	}
}
