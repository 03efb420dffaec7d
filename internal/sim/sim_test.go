package sim

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"os"
	"reflect"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	debug.SetGCPercent(-1) // a history leaves little behind, so that few collections are needed
	debug.SetMemoryLimit(300 << 20)
	goleak.VerifyTestMain(m)
}

// defaultSeeds is the number of histories of an ordinary run; make test executes 10,000 without the race detector.
const defaultSeeds = 300

// TestSim_KeepsEveryPromise executes the histories of the first seeds: SHOAL_SEEDS says how many instead, or which
// ("1000000", "5000-9000"). SHOAL_SIM_ONLY limits the operations to some indexes, as the report of a violation shows.
func TestSim_KeepsEveryPromise(t *testing.T) {
	first, last, err := seeds(os.Getenv("SHOAL_SEEDS"))
	if err != nil {
		t.Fatal(err)
	}
	only := os.Getenv("SHOAL_SIM_ONLY")
	cert := certificate(t)
	execute := func(t *testing.T, h History) (violation string, after int) {
		synctest.Test(t, func(*testing.T) { violation, after = Run(h, cert) })
		return violation, after
	}
	var executed atomic.Uint64
	start := time.Now()
	const lanes = 4
	t.Run("all", func(t *testing.T) {
		for lane := range uint64(lanes) {
			t.Run(fmt.Sprint("lane", lane), func(t *testing.T) {
				t.Parallel()
				for seed := first + lane; seed <= last; seed += lanes {
					executed.Add(1)
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
					t.Fatalf("seed %d: %s\nreplay: SHOAL_SEEDS=%d-%d SHOAL_SIM_ONLY=%s go test ./internal/sim\n%v",
						seed, violation, seed, seed, strings.Trim(strings.Join(strings.Fields(fmt.Sprint(h.Kept())), ","), "[]"), h)
				}
			})
		}
	})
	t.Logf("%d histories in %v", executed.Load(), time.Since(start).Round(time.Second))
}

// certificate returns one whose signatures cost little.
func certificate(t *testing.T) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	text, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{text}, PrivateKey: key}
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
		return 0, 0, fmt.Errorf("SHOAL_SEEDS is %q, must be a number of seeds or a range such as 5000-9000", text)
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

// A history is a function of its seed.
func TestDraw_IsReproducible(t *testing.T) {
	for seed := range uint64(20) {
		if first, second := Draw(seed), Draw(seed); !reflect.DeepEqual(first, second) {
			t.Errorf("seed %d has two histories:\n%v\n%v", seed, first, second)
		}
	}
}

// Shrink finds the operations that a violation needs, also if it does not show every time.
func TestShrink_KeepsTheCauseOnly(t *testing.T) {
	h := Draw(7)
	need := []int{h.kept[3], h.kept[11], h.kept[len(h.kept)-1]}
	calls := 0
	h = Shrink(h, func(candidate History) bool {
		calls++
		for _, index := range need {
			if !slices.Contains(candidate.Kept(), index) {
				return false
			}
		}
		return calls%2 == 0
	})
	if !slices.Equal(h.Kept(), need) {
		t.Errorf("operations %v are left, want %v", h.Kept(), need)
	}
	if again := Draw(7).Only(need...); again.String() != h.String() {
		t.Errorf("the indexes stand for another history:\n%v\n%v", again, h)
	}
}
