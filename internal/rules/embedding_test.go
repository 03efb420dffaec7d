package rules

import (
	"encoding/json"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// libraryModules are the modules that a program may compile because it imports manager and server: a program that
// authenticates with Identify or a function of its own compiles no JWT library.
func libraryModules() []string {
	return []string{
		"github.com/cespare/xxhash/v2",
		"github.com/dolthub/maphash",
		"github.com/klauspost/compress",
		"github.com/lxzan/gws",
		"github.com/puzpuzpuz/xsync/v3",
		"github.com/shoal-go/shoal",
		"golang.org/x/sys",
		"golang.org/x/time",
	}
}

// tokenModules are the modules that a program may compile because it imports server/jwtauth too.
func tokenModules() []string { return append(libraryModules(), "github.com/golang-jwt/jwt/v5") }

// clientModules are the modules that a program may compile because it imports client.
func clientModules() []string {
	return []string{"github.com/coder/websocket", "github.com/shoal-go/shoal", "golang.org/x/time"}
}

// testModules are the modules that only the tests of the library's module need.
func testModules() []string {
	return []string{
		"github.com/HdrHistogram/hdrhistogram-go",
		"github.com/MicahParks/jwkset",
		"go.uber.org/goleak",
		"golang.org/x/image", // of the demo page
		"pgregory.net/rapid",
	}
}

// An embedder compiles no broker client, NATS server, test proxy or command-line library.
func TestLibrary_CompilesFewModules(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ packages, allowed []string }{
		{[]string{"./manager/...", "./server"}, libraryModules()},
		{[]string{"./server/jwtauth"}, tokenModules()},
		{[]string{"./client"}, clientModules()},
	} {
		list := exec.Command("go", "list", "-deps", "-f", "{{with .Module}}{{.Path}}{{end}}")
		list.Args = append(list.Args, c.packages...)
		for _, module := range strings.Fields(string(output(t, list))) {
			if !slices.Contains(c.allowed, module) {
				t.Errorf("%v compile %s, which is not on the list", c.packages, module)
			}
		}
	}
}

// The library's go.mod requires no other module either, so an embedder's go.sum stays short.
func TestLibrary_RequiresFewModules(t *testing.T) {
	t.Parallel()
	allowed := slices.Concat(tokenModules(), clientModules(), testModules())
	var file struct{ Require []struct{ Path string } }
	if err := json.Unmarshal(output(t, exec.Command("go", "mod", "edit", "-json")), &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Require) == 0 {
		t.Error("go.mod requires no module")
	}
	for _, module := range file.Require {
		if !slices.Contains(allowed, module.Path) {
			t.Errorf("go.mod requires %s, which is not on the list", module.Path)
		}
	}
}

// output runs a command in the root of the repository and returns its standard output.
func output(t *testing.T, command *exec.Cmd) []byte {
	t.Helper()
	command.Dir = "../.."
	out, err := command.Output()
	if err != nil {
		t.Fatalf("%s: %v", command, err)
	}
	return out
}
