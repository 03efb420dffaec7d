package nodes

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/shoal-go/shoal/internal/frame"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/message"
)

// answer is the encoded result of a request.
type answer struct {
	Error  string
	Answer Answer
}

// talk sends requests to a process and returns its answers, without its greeting.
func talk(t *testing.T, o Options, requests ...Request) []answer {
	t.Helper()
	var in, out bytes.Buffer
	for _, q := range requests {
		if err := json.NewEncoder(&in).Encode(q); err != nil {
			t.Fatal(err)
		}
	}
	if err := Run(t.Context(), o, &in, &out); err != nil {
		t.Fatal(err)
	}
	var all []answer
	for line := range strings.Lines(out.String()) {
		var a answer
		if err := json.Unmarshal([]byte(line), &a); err != nil {
			t.Fatal(err)
		}
		all = append(all, a)
	}
	return all[1:]
}

func TestAllThatIsPublishedComes(t *testing.T) {
	const briefly, patience = 20 * time.Millisecond, 20 * time.Second
	got := talk(t, Options{Broker: Memory},
		Request{Do: Follow, Uploads: 3},
		Request{Do: Probe},
		Request{Do: Publish, Uploads: 3, Bytes: 256, Publishers: 5, For: briefly},
		Request{Do: Schedule, Uploads: 3, Bytes: 256, Publishers: 2, For: briefly, Rate: 1000},
		Request{Do: Wait, Total: 1, For: patience},
		Request{Do: Quit})
	for i, a := range got {
		if a.Error != "" {
			t.Fatalf("answer %d is %+v", i, a)
		}
	}
	published, scheduled := got[2].Answer, got[3].Answer
	if published.Published == 0 || published.Began == 0 || scheduled.Published != 20 {
		t.Errorf("published: %+v, %+v", published, scheduled)
	}
	total := published.Published + scheduled.Published
	// Some may still be on the way; the next test waits for all.
	if a := got[5].Answer; a.Received > total || a.Disorder != 0 || a.CPU == 0 {
		t.Errorf("in the end there is %+v of %d", a, total)
	}
}

func TestWaitingForAll(t *testing.T) {
	const patience = 20 * time.Second
	got := talk(t, Options{Broker: Memory},
		Request{Do: Follow, Uploads: 2},
		Request{Do: Schedule, Uploads: 2, Bytes: 256, Publishers: 1, For: 10 * time.Millisecond, Rate: 5000},
		Request{Do: Wait, Total: 50, For: patience},
		Request{Do: Reset},
		Request{Do: Wait, Total: 51, For: time.Millisecond})
	waited, forgotten := got[2].Answer, got[3].Answer
	if waited.Received != 50 || waited.Disorder != 0 || waited.Last == 0 || waited.P50 <= 0 || waited.P999 < waited.P50 {
		t.Errorf("all that has come is %+v", waited)
	}
	if forgotten.P50 != 0 || got[4].Answer.Received != 50 {
		t.Errorf("afterwards there is %+v, %+v", forgotten, got[4])
	}
}

// Lost, repeated and overtaking messages are noticed, by publisher.
func TestDisorderIsCounted(t *testing.T) {
	s := &sink{times: newReceiver().times, newest: make([]uint64, MaxPublishers)}
	send := func(who, n uint64) {
		m := message.Message{Channel: "u0", Sent: 1, Number: n*MaxPublishers + who, Size: message.MinSize}
		s.Send(frame.ForUpload(frame.Message{UploadID: "u0", Body: m.AppendEvent(nil)}))
	}
	for _, step := range []struct{ who, n, want uint64 }{
		{0, 0, 0}, {0, 1, 0}, {7, 1, 0}, {0, 2, 0}, {7, 3, 1}, {0, 2, 2}, {7, 4, 2}, {0, 5, 3}, {0, 4, 4},
	} {
		send(step.who, step.n)
		if got := s.disorder.Load(); got != step.want {
			t.Errorf("after number %d of publisher %d, %d are out of order, want %d", step.n, step.who, got, step.want)
		}
	}
	if got := s.got.Load(); got != 8 {
		t.Errorf("%d have come, want 8: a greeting does not count", got)
	}
}

func TestRun_UnknownBroker(t *testing.T) {
	if err := Run(t.Context(), Options{Broker: "pigeons"}, nil, nil); err == nil || !strings.Contains(err.Error(), "pigeons") {
		t.Errorf("the error is %v", err)
	}
}

// A server in this process serves a node, alone and as one of a cluster.
func TestServersOfNATS(t *testing.T) {
	asked, ask := io.Pipe()
	answers, answer := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- RunServer(asked, answer) }()
	var ready struct{ Answer ServerAnswer }
	if err := json.NewDecoder(answers).Decode(&ready); err != nil {
		t.Fatal(err)
	}
	got := talk(t, Options{Broker: NATS, URL: "nats://" + ready.Answer.Addr}, Request{Do: Follow, Uploads: 2}, Request{Do: Probe})
	if got[0].Error != "" || got[1].Error != "" {
		t.Errorf("the answers are %+v", got)
	}
	if err := ask.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	got = talk(t, Options{Broker: Embedded}, Request{Do: Follow, Uploads: 2}, Request{Do: Probe})
	if got[0].Error != "" || got[1].Error != "" {
		t.Errorf("the answers of an embedded server are %+v", got)
	}
}
