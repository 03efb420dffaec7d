package sim

import (
	"fmt"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
)

// defaultSeeds is the number of histories of an ordinary run.
const defaultSeeds = 200

// TestSim_KeepsEveryPromise executes the histories of many seeds: SHOAL_SIM_SEEDS says how many, or which
// ("1000", "5000-9000"). SHOAL_SIM_ONLY limits the operations to some indexes, as the report of a violation shows.
func TestSim_KeepsEveryPromise(t *testing.T) {
	first, last, err := seeds(os.Getenv("SHOAL_SIM_SEEDS"))
	if err != nil {
		t.Fatal(err)
	}
	only := os.Getenv("SHOAL_SIM_ONLY")
	own := httptest.NewTLSServer(nil)
	cert := own.TLS.Certificates[0]
	own.Close()
	execute := func(t *testing.T, h History) (violation string, after int) {
		synctest.Test(t, func(*testing.T) { violation, after = Run(h, &cert) })
		return violation, after
	}
	const lanes = 4
	for lane := range uint64(lanes) {
		t.Run(fmt.Sprint("lane", lane), func(t *testing.T) {
			t.Parallel()
			for seed := first + lane; seed <= last; seed += lanes {
				h := Draw(seed)
				if only != "" {
					h = h.Only(numbers(t, only)...)
				}
				violation, after := execute(t, h)
				if violation == "" {
					continue
				}
				h = Shrink(h.Only(h.Kept()[:min(after+1, len(h.Kept()))]...), func(h History) bool {
					shorter, _ := execute(t, h)
					return shorter != ""
				})
				t.Fatalf("seed %d: %s\nreplay: SHOAL_SIM_SEEDS=%d-%d SHOAL_SIM_ONLY=%s go test ./internal/sim\n%v",
					seed, violation, seed, seed, strings.Trim(strings.Join(strings.Fields(fmt.Sprint(h.Kept())), ","), "[]"), h)
			}
		})
	}
}

// seeds parses a number of seeds or a range.
func seeds(text string) (first, last uint64, err error) {
	if text == "" {
		return 1, defaultSeeds, nil
	}
	from, to, isRange := strings.Cut(text, "-")
	if !isRange {
		from, to = "1", text
	}
	if first, err = strconv.ParseUint(from, 10, 64); err == nil {
		last, err = strconv.ParseUint(to, 10, 64)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("SHOAL_SIM_SEEDS is %q, must be a number of seeds or a range such as 5000-9000", text)
	}
	return first, last, nil
}

func numbers(t *testing.T, text string) (all []int) {
	t.Helper()
	for part := range strings.SplitSeq(text, ",") {
		n, err := strconv.Atoi(part)
		if err != nil {
			t.Fatalf("SHOAL_SIM_ONLY is %q, must be numbers separated by commas", text)
		}
		all = append(all, n)
	}
	return all
}
