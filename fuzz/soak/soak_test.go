package main

import (
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSoak_ReturnsToBaseline(t *testing.T) {
	samples, err := soak(t.Context(), config{duration: 3 * time.Second, cycles: 3, audience: 40, out: io.Discard})
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
	leak := func() {
		for range 200 {
			go func() { <-end }()
		}
	}
	_, err := soak(t.Context(), config{duration: time.Second, cycles: 3, audience: 4, out: io.Discard, each: leak})
	if err == nil || !strings.Contains(err.Error(), "goroutines grew") {
		t.Errorf("the error is %v, want one that names goroutines", err)
	}
}

func TestConfig_NamesInvalidValues(t *testing.T) {
	for want, c := range map[string]config{
		"-cycles":   {cycles: 1, audience: 1, duration: time.Minute},
		"-clients":  {cycles: 2, audience: 0, duration: time.Minute},
		"-duration": {cycles: 2, audience: 1, duration: time.Millisecond},
	} {
		if err := c.validate(); err == nil || !strings.Contains(err.Error(), want) {
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
	if got := strings.Count(b.String(), "<polyline"); got != 5 || !strings.Contains(b.String(), "460.0,") {
		t.Errorf("%d lines are drawn, want 5:\n%s", got, b.String())
	}
	if err := writeFile(name, nil); err != nil {
		t.Fatal(err)
	}
	if err := draw(name, io.Discard); err == nil {
		t.Error("a file without measurements is drawn")
	}
}
