package brokertest

import (
	"strconv"
	"strings"
	"testing"
)

func TestLedger(t *testing.T) {
	// Messages 0 to 5 were stored, 3 was not acknowledged. "-" is an announced loss.
	for sights, complaint := range map[string]string{
		"0 1 2 3 4 5":   "",
		"0 1 2 4 5":     "",
		"0 1 2 4 3 5":   "", // it stood before a socket for a while
		"0 1 - 4 5":     "",
		"- 4 5":         "",
		"0 1 2 4 -":     "",
		"0 1 2 4":       "message 5 is missing at the end",
		"0 2 4 5":       "message 1 is missing before 2",
		"0 - 1 4 5":     "message 2 is missing before 4",
		"0 1 2 2 4 5":   "message 2 was seen twice",
		"0 1 2 3 3 4 5": "message 3 was seen twice",
		"3 0 1 2 4 5":   "message 0 is missing before 3",
		"0 - 2 1 4 5":   "message 1 was seen after 2, out of order",
		"0 1 2 4 5 6":   `"6" was seen, which was never stored`,
	} {
		l := &ledger{acked: []bool{true, true, true, false, true, true}}
		var seen []Sight
		for i, word := range strings.Fields(sights) {
			sight := Sight{Offset: uint64(i + 1), Payload: []byte(word)}
			if word == "-" {
				sight = Sight{Lost: "a new epoch"}
			}
			seen = append(seen, sight)
		}
		got := ""
		if err := l.check(seen, true); err != nil {
			got = err.Error()
		}
		if complaint == "" && got != "" || !strings.Contains(got, complaint) {
			t.Errorf("of %q the ledger says %q, want %q", sights, got, complaint)
		}
	}
	l := &ledger{acked: []bool{true, true}}
	backwards := []Sight{{Offset: 2, Payload: []byte(strconv.Itoa(0))}, {Offset: 1, Payload: []byte(strconv.Itoa(1))}}
	if err := l.check(backwards, false); err == nil || !strings.Contains(err.Error(), "not above") {
		t.Errorf("of offsets that fall the ledger says %v", err)
	}
	if err := l.check([]Sight{{Lost: "a new epoch"}}, false); err == nil || !strings.Contains(err.Error(), "need not be") {
		t.Errorf("of a loss without reason the ledger says %v", err)
	}
}
