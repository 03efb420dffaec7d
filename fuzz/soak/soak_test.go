package main

import (
	"encoding/json"
	"errors"
	"io"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSoak_ReturnsToBaseline(t *testing.T) {
	samples, err := soak(t.Context(), config{
		duration: 6 * time.Second, cycles: 3, audience: 40, rate: 200, broker: "nats-embedded", out: io.Discard,
	})
	if err != nil {
		t.Fatal(err)
	}
	last := samples[len(samples)-1]
	if last.clients != 0 || last.delivered == 0 {
		t.Errorf("the last measurement is %+v", last)
	}
}

// A resource that grows from cycle to cycle is named.
func TestSoak_NamesTheResourceThatGrew(t *testing.T) {
	end := make(chan struct{})
	defer close(end)
	leak := func([]sample) error {
		for range 200 {
			go func() { <-end }()
		}
		return nil
	}
	_, err := soak(t.Context(), config{
		duration: time.Second, cycles: 3, audience: 4, rate: 10, broker: "nats-embedded", out: io.Discard, each: leak,
	})
	if err == nil || !strings.Contains(err.Error(), "goroutines grew") {
		t.Errorf("the error is %v, want one that names goroutines", err)
	}
}

func TestConfig_NamesInvalidValues(t *testing.T) {
	for want, c := range map[string]config{
		"-cycles":   {cycles: 1, audience: 1, rate: 2, duration: time.Minute},
		"-clients":  {cycles: 2, audience: 0, rate: 2, duration: time.Minute},
		"-rate":     {cycles: 2, audience: 1, rate: 1, duration: time.Minute},
		"-duration": {cycles: 2, audience: 1, rate: 2, duration: time.Millisecond},
		"-broker":   {cycles: 2, audience: 1, rate: 2, duration: time.Minute, broker: "pigeon"},
	} {
		if _, err := soak(t.Context(), c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error is %v, want %s", err, want)
		}
	}
}

// The chart has a line with a point for each measurement, and an empty file is an error.
func TestDraw_ShowsEachMeasurement(t *testing.T) {
	name := filepath.Join(t.TempDir(), "soak.csv")
	if err := writeFile(name, []sample{{at: time.Second, clients: 1}, {at: 2 * time.Second, clients: 2}}); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := draw(name, &b); err != nil {
		t.Fatal(err)
	}
	if got := regexp.MustCompile(`points="(\S+ ){2}"`).FindAllString(b.String(), -1); len(got) != 6 {
		t.Errorf("the lines %q are drawn, want 6 of two points:\n%s", got, b.String())
	}
	if err := writeFile(name, nil); err != nil {
		t.Fatal(err)
	}
	if err := draw(name, io.Discard); err == nil {
		t.Error("a file without measurements is drawn")
	}
}

// A client notices a message that is missing, comes twice or comes late, unless the server has announced a gap or the
// publisher does not know whether the message was stored.
func TestTake_FindsWhatMayNotHappen(t *testing.T) {
	note := func(offset uint64, n, stored int) message {
		return message{Action: "note", UploadID: "u", position: position{Offset: offset}, N: n, Stored: stored}
	}
	var resumed message
	if err := json.Unmarshal([]byte(`{"action":"resumed","uploads":{"u":{"recovered":true}}}`), &resumed); err != nil {
		t.Fatal(err)
	}
	gap := message{Action: "subscribed", UploadID: "u", position: position{"two", 9}}
	for name, c := range map[string]struct {
		second []message
		want   string
	}{
		"next":         {[]message{note(5, 8, 7)}, ""},
		"missing":      {[]message{note(6, 9, 8)}, "8 is missing"},
		"unsure":       {[]message{note(6, 9, 7)}, ""},
		"twice":        {[]message{note(4, 7, 6)}, "offset 4 after 4"},
		"repeated":     {[]message{note(5, 7, 6)}, "message 7 again"},
		"announced":    {[]message{gap, note(1, 20, 19)}, ""},
		"late":         {[]message{gap, note(2, 20, 19), note(3, 19, 18)}, "message 19 again or late"},
		"another user": {[]message{{Action: "note", UploadID: "other", N: 3}}, ""},
		"resumed":      {[]message{resumed, note(4, 7, 6)}, "offset 4 after 4"},
	} {
		at := map[string]*place{"u": {position: position{"one", 4}, begun: true, newest: 7}}
		var err error
		for _, m := range c.second {
			err = errors.Join(err, take(m, at))
		}
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: the error is %v, want %q", name, err, c.want)
		}
	}
}

// Messages that come before the answer to resume belong to another connection of the user.
func TestTake_WaitsForTheAnswer(t *testing.T) {
	at := map[string]*place{"u": {position: position{"one", 4}, newest: 7}}
	if err := take(message{Action: "note", UploadID: "u", position: position{Offset: 9}, N: 12, Stored: 11}, at); err != nil {
		t.Error(err)
	}
	if at["u"].Offset != 4 || at["u"].newest != 7 {
		t.Errorf("the place is %+v, want the one before", *at["u"])
	}
}
