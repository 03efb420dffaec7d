package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Test files of another system are checked, and files of this system are not.
func TestCheck_ReportsErrorsInTestsOfAnotherSystem(t *testing.T) {
	folder := t.TempDir()
	for name, text := range map[string]string{
		"go.mod":              "module example.org/a\n\ngo 1.26.0\n",
		"a.go":                "package a\n",
		"a_linux.go":          "package a\n\nvar _ = missingOnLinux\n",
		"a_windows_test.go":   "package a\n\nimport \"testing\"\n\nfunc TestA(*testing.T) { missingInTest() }\n",
		"out_windows_test.go": "package a_test\n\nvar _ = missingOutside\n",
	} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("GOWORK", "off")
	t.Setenv("GOFLAGS", "")

	var output strings.Builder
	if err := check(&output, folder, "windows", "./..."); err == nil || err.Error() != "errors: 2" {
		t.Errorf("errors for windows: got %v, want 2", err)
	}
	for _, symbol := range []string{"missingInTest", "missingOutside"} {
		if !strings.Contains(output.String(), "undefined: "+symbol) {
			t.Errorf("%s is not reported:\n%s", symbol, output.String())
		}
	}
	if err := check(&output, folder, "darwin", "./..."); err != nil {
		t.Errorf("errors for darwin: %v\n%s", err, output.String())
	}
	if err := check(&output, folder, "darwin", "./none/..."); err == nil {
		t.Error("patterns that match nothing pass")
	}
}
