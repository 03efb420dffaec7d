//go:build linux

package main

import (
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The account names messages that are missing or come again without an announcement, and accepts those with one.
func TestFollower_AccountNamesProblems(t *testing.T) {
	gap := event{announced: true}
	m := func(n int) event { return event{n: n} }
	for _, test := range []struct {
		log  []event
		want string
	}{
		{[]event{{}, m(1), m(2), m(3)}, ""},
		{[]event{{}, m(1), m(3)}, "3 came after 1, and no gap"},
		{[]event{{}, m(1), m(2), m(2)}, "2 came again after 2"},
		{[]event{{}, m(1), m(2), gap, m(1), m(2), m(5), m(6)}, ""},
		{[]event{{}, m(1), m(2), gap, m(5), m(7)}, "7 came after 5, and no gap"},
	} {
		var a account
		f := follower{name: "f", log: test.log}
		f.addTo(&a)
		switch {
		case test.want == "" && len(a.problems) > 0:
			t.Errorf("%v: %v", test.log, a.problems)
		case test.want != "" && (len(a.problems) != 1 || !strings.Contains(a.problems[0].Error(), test.want)):
			t.Errorf("%v: the problems are %v, want %q", test.log, a.problems, test.want)
		}
	}
}
