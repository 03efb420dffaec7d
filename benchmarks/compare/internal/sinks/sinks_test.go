package sinks

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// answer is the encoded result of a request.
type answer struct {
	Error  string
	Answer Answer
}

// talk sends requests to a process and returns its answers, from its greeting on.
func talk(t *testing.T, requests ...Request) []answer {
	t.Helper()
	var in, out bytes.Buffer
	for _, q := range requests {
		if err := json.NewEncoder(&in).Encode(q); err != nil {
			t.Fatal(err)
		}
	}
	if err := Run(&in, &out); err != nil {
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
	return all
}

func TestAllThatIsDone(t *testing.T) {
	const briefly = 5 * time.Millisecond
	got := talk(t,
		Request{Do: Connect, Connections: 3000, Weigh: true},
		Request{Do: Subscribe, Uploads: 3, Bytes: 256, Shuffled: true, Weigh: true},
		Request{Do: Fill, Weigh: true},
		Request{Do: Broadcast, For: briefly},
		Request{Do: Publish, For: briefly, Collect: true},
		Request{Do: Churn, For: briefly},
		Request{Do: Quit},
		Request{Do: Churn, For: briefly})
	if len(got) != 8 {
		t.Fatalf("there are %d answers: %+v", len(got), got)
	}
	for i, a := range got[1:7] {
		if a.Error != "" || i < 6 && (a.Answer.Operations == 0 || a.Answer.Took <= 0) {
			t.Errorf("answer %d is %+v", i+1, a)
		}
	}
	connected, subscribed, filled, broadcast, published := got[1].Answer, got[2].Answer, got[3].Answer, got[4].Answer, got[5].Answer
	if connected.Operations != 3000 || subscribed.Operations != 3000 || filled.Operations != 3 {
		t.Errorf("%d came, %d subscribed, %d messages were stored", connected.Operations, subscribed.Operations, filled.Operations)
	}
	if broadcast.Operations%1000 != 0 {
		t.Errorf("%d receivers of broadcasts to 1000", broadcast.Operations)
	}
	if connected.Grown < 3000*50 || subscribed.Grown < 3000*50 || subscribed.Heap <= connected.Heap {
		t.Errorf("the heap grew by %d and %d to %d", connected.Grown, subscribed.Grown, subscribed.Heap)
	}
	if published.Collected <= 0 || published.Pause <= 0 || published.Pause > published.Collected {
		t.Errorf("collecting took %v, with a pause of %v", published.Collected, published.Pause)
	}
	if got[6].Answer.Subscriptions != 3000 || got[6].Answer.Resident == 0 {
		t.Errorf("in the end there is %+v", got[6].Answer)
	}
}

func TestShuffledOrderHoldsEveryone(t *testing.T) {
	p := &process{conns: make([]*sink, 100)}
	shuffled, sorted := p.order(true), p.order(false)
	if slices.Equal(shuffled, sorted) || !slices.IsSorted(sorted) {
		t.Errorf("the orders are %v and %v", shuffled, sorted)
	}
	slices.Sort(shuffled)
	if !slices.Equal(shuffled, sorted) {
		t.Errorf("the shuffled order holds %v", shuffled)
	}
}

// A failure ends the work and is reported.
func TestRunWorkersStopsAtFailures(t *testing.T) {
	broken := fmt.Errorf("broken")
	if _, err := runWorkers(Request{For: time.Hour}, func(draw) error { return broken }); err == nil {
		t.Error("nobody was told")
	}
	if _, err := each(3, func(i int) error { return broken }); err == nil {
		t.Error("nobody was told")
	}
}
