package results

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRecordsComeBack(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "results")
	var want []Record
	for i, run := range []string{"b", "a"} {
		r := Record{
			Schema: Schema, Run: run, Time: time.Date(2026, 1, 1+i, 0, 0, 0, 0, time.UTC), Scenario: "S4", System: "gws",
			Kind: "peer", Repeat: 1, Params: Params{Connections: 5000, Stalled: 0.05, Rate: 9.5},
			Metrics: map[Metric]float64{P99: 1.5}, Error: "none", Provenance: Here(t.Context()).Of("github.com/lxzan/gws"),
		}
		file, err := Create(folder, run)
		if err != nil {
			t.Fatal(err)
		}
		if err := Add(file, r); err != nil {
			t.Fatal(err)
		}
		if err := file.Close(); err != nil {
			t.Fatal(err)
		}
		want = append(want, r)
	}
	got, err := Load(folder)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v\nwant %+v", got, err, want)
	}
	if _, err := Create(folder, "a"); err == nil {
		t.Error("results are overwritten")
	}
}

func TestWhatIsNoResultIsNamed(t *testing.T) {
	for content, want := range map[string]string{
		"":                           "there are none",
		"{\"schema\":1}\nnonsense\n": "line 2",
		"{\"schema\":7}\n":           "the schema is 7",
	} {
		folder := t.TempDir()
		if err := os.WriteFile(filepath.Join(folder, "x.jsonl"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(folder); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error is %v, want one with %q", err, want)
		}
	}
}

func TestProvenanceIsFull(t *testing.T) {
	p := Here(t.Context())
	for name, value := range map[string]string{"commit": p.Commit, "go": p.Go, "os": p.OS, "kernel": p.Kernel, "cpu": p.CPU} {
		if value == "" {
			t.Errorf("%s is not known", name)
		}
	}
	if p.Cores < 1 || p.GOMAXPROCS < 1 || len(p.Command) == 0 {
		t.Errorf("got %+v", p)
	}
	if v := p.Of("example.com/nobody").Version; v != unknown {
		t.Errorf("the version of nobody is %s", v)
	}
}

func TestCaches(t *testing.T) {
	folder := t.TempDir()
	for name, text := range map[string]string{
		"index0/level": "1\n", "index0/size": "32K\n", "index0/type": "Data\n",
		"index1/level": "2\n", "index1/size": "16K\n", "index1/type": "Instruction\n",
		"index2/level": "2\n", "index2/size": "512K\n", "index2/type": "Unified\n",
		"index3/level": "4\n", "index3/size": "large\n", "index3/type": "Unified\n",
	} {
		file := filepath.Join(folder, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for level, want := range map[int]int64{1: 32 << 10, 2: 512 << 10, 3: 0, 4: 0} {
		if got := cache(folder, level); got != want {
			t.Errorf("the cache of level %d has %d bytes, want %d", level, got, want)
		}
	}
	if got := cache(filepath.Join(folder, "nowhere"), 2); got != 0 {
		t.Errorf("without caches there are %d bytes", got)
	}
}
