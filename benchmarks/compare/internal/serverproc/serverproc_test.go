package serverproc

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// talk serves a system that receives these lines, and returns its answers.
func talk(t *testing.T, system string, lines ...string) []string {
	t.Helper()
	var out bytes.Buffer
	in := strings.NewReader(strings.Join(lines, "\n") + "\n")
	if err := Run(Options{System: system, SendBuffer: 4096}, in, &out); err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(out.String()), "\n")
}

func TestAnswers(t *testing.T) {
	said := talk(t, "write-loop",
		`{"do":"publish","channels":1,"messages":3,"bytes":256}`,
		`{"do":"schedule","channels":1,"messages":3,"bytes":256,"rate":1000}`,
		`{"do":"direct","channels":1,"clients":2,"messages":5,"bytes":256,"rate":10000}`,
		`{"do":"look","clean":true}`,
		`{"do":"quit"}`,
		`{"do":"look"}`)
	if len(said) != 6 {
		t.Fatalf("there are %d answers: %q", len(said), said)
	}
	for i, want := range []string{`"addr":"127.0.0.1:`, `"ended":`, `"late":`, `"received":410,"planned":{"count":10,`, `"rss":`, `"goroutines":`} {
		if !strings.Contains(said[i], want) || strings.Contains(said[i], `"error"`) {
			t.Errorf("answer %d is %s, want something with %s", i, said[i], want)
		}
	}
}

func TestRequestsThatMakeNoSense(t *testing.T) {
	for request, want := range map[string]string{
		`{"do":"sing"}`: `cannot be done`,
		`{"do":"profile","file":"/nonexistent/folder/profile"}`: "cannot be written",
	} {
		if said := talk(t, "gws", request); !strings.Contains(said[1], want) {
			t.Errorf("the answer to %s is %s, want something with %q", request, said[1], want)
		}
	}
}

func TestProfile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "cpu.pprof")
	talk(t, "gws", `{"do":"profile","file":"`+file+`"}`)
	if info, err := os.Stat(file); err != nil || info.Size() == 0 {
		t.Errorf("the profile is %v, %v", info, err)
	}
}

func TestUnknownSystem(t *testing.T) {
	if err := Run(Options{System: "nobody"}, strings.NewReader(""), &bytes.Buffer{}); err == nil {
		t.Error("nobody serves")
	}
}
