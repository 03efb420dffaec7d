package report

import (
	"testing"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
)

// The rates of S4 are derived from a run of S2 that is not among S2's own results.
func TestSelectPrefersARunOfMoreThanAYardstick(t *testing.T) {
	record := func(run, kind string) results.Record {
		return results.Record{Run: run, Scenario: "S2", System: "x", Kind: kind}
	}
	d, err := Select([]results.Record{
		record("1", "own"), record("2", "own"), record("2", "yardstick"), record("3", "yardstick"),
	}, "")
	if err != nil {
		t.Fatal(err)
	}
	if len(d.records) != 2 || d.records[0].Run != "2" || d.records[1].Run != "2" {
		t.Errorf("selected %v, want the two of run 2", d.records)
	}
	if d, err = Select([]results.Record{record("3", "yardstick")}, ""); err != nil || len(d.records) != 1 {
		t.Errorf("selected %v, %v, want the only one there is", d.records, err)
	}
}
