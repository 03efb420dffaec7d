package rules

import (
	"os"
	"strings"
	"testing"
	"testing/fstest"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// repository is the root of this repository, relative to the working directory of its tests.
const repository = "../.."

func TestRules_HoldForThisRepository(t *testing.T) {
	loaded, err := load(os.DirFS(repository))
	if err != nil {
		t.Fatal(err)
	}
	if len(loaded.files) == 0 {
		t.Fatal("no Go file found")
	}
	for name, rule := range map[string]func(tree) []string{
		"top level":        unexpectedTopLevel,
		"file length":      longFiles,
		"package comments": undocumentedPackages,
		"sleeping tests":   sleepingTests,
		"skipping tests":   skippingTests,
		"leak detection":   testsWithoutLeakCheck,
	} {
		t.Run(name, func(t *testing.T) {
			for _, violation := range rule(loaded) {
				t.Error(violation)
			}
		})
	}
}

func TestLoad_IgnoresForeignFiles(t *testing.T) {
	loaded := plant(t, map[string]string{
		"go.mod":                              "",
		"shard/shard.go":                      "package shard",
		"shard/testdata/broken.go":            "not Go at all",
		"internal/demo/node_modules/a/a.go":   "not Go at all",
		".ci/run":                             "",
		"bin/shoal":                           "",
		"dist/shoal.go":                       "not Go at all",
		"_old/old.go":                         "not Go at all",
		"cpu.prof":                            "",
		"shard.test":                          "",
		"internal/demo/browser/demo.test.mjs": "",
	})
	if got := strings.Join(loaded.top, " "); got != "go.mod internal shard" {
		t.Errorf("top level is %q", got)
	}
	if len(loaded.files) != 1 || loaded.files[0].path != "shard/shard.go" {
		t.Errorf("files are %v", loaded.files)
	}
}

func TestLoad_NamesFileThatCannotBeParsed(t *testing.T) {
	_, err := load(fstest.MapFS{"shard/broken.go": {Data: []byte("not Go at all")}})
	if err == nil || !strings.Contains(err.Error(), "shard/broken.go") {
		t.Errorf("the error is %v", err)
	}
}

// plant loads a repository with these files.
func plant(t *testing.T, sources map[string]string) tree {
	t.Helper()
	files := fstest.MapFS{}
	for name, source := range sources {
		files[name] = &fstest.MapFile{Data: []byte(source)}
	}
	loaded, err := load(files)
	if err != nil {
		t.Fatal(err)
	}
	return loaded
}
