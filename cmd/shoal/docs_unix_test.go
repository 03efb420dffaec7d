//go:build unix

package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// asPattern returns the regular expression of an output in which … stands for any text within a line.
func asPattern(text string) string {
	return "^" + strings.ReplaceAll(regexp.QuoteMeta(text), "…", ".*") + "$"
}

// The commands and the program of the page print the output that stands below them.
func TestDocs_ClientsPageIsTrue(t *testing.T) {
	s := serveDev(t)
	folder := t.TempDir()
	sh := newDocsShell(t, s)
	var program []string
	output, ran := "", false
	for _, f := range readFences(t, "docs/clients.md") {
		switch f.language {
		case "sh":
			output, ran = sh.run(f), true
		case "go":
			path := filepath.Join(folder, fmt.Sprintf("part%d.go", len(program)))
			source := strings.ReplaceAll(f.text, "http://127.0.0.1:8080", s.url)
			if err := os.WriteFile(path, []byte(source), 0o600); err != nil {
				t.Fatal(err)
			}
			program = append(program, path)
		case "text":
			if len(program) > 0 {
				output, ran = runProgram(t, program), true
				program = nil
			}
			if !ran {
				continue // a picture of the screen
			}
			if !regexp.MustCompile(asPattern(f.text)).MatchString(output) {
				t.Errorf("line %d: printed\n%swant\n%s", f.line, output, f.text)
			}
			ran = false
		}
	}
	if ran || len(program) > 0 {
		t.Error("an output is missing at the end of the page")
	}
}

// runProgram compiles and runs a program with the packages of this repository, and returns its output.
func runProgram(t *testing.T, files []string) string {
	t.Helper()
	command := exec.Command("go", append([]string{"run"}, files...)...)
	command.Dir = "../.."
	out, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

// fence is a fenced block of a page: its language, its text and its place.
type fence struct {
	page, language, text string
	line                 int
}

var fences = regexp.MustCompile("(?ms)^```(\\w*)\n(.*?)^```$")

// shellCommand matches a command in a block without a language.
var shellCommand = regexp.MustCompile(`(?m)^(\w+=\S+ )*(bin/shoal|curl|export|go|make|npm|shoal) `)

// readFences returns the blocks of a page, whose path starts at the root of the repository.
func readFences(t *testing.T, page string) (all []fence) {
	t.Helper()
	text := []byte(read(t, page))
	for _, at := range fences.FindAllSubmatchIndex(text, -1) {
		all = append(all, fence{
			page: page, language: string(text[at[2]:at[3]]), text: string(text[at[4]:at[5]]),
			line: bytes.Count(text[:at[0]], []byte("\n")) + 1,
		})
	}
	return all
}

// isProgram reports whether a block is one that a reader would execute.
func (f fence) isProgram() bool {
	return f.language == "" && shellCommand.MatchString(f.text) || slices.Contains([]string{"sh", "bash", "go", "js", "ts", "tsx", "python", "yaml"}, f.language)
}

// pageTests are the tests that execute every block of a language in a page.
var pageTests = map[string]string{
	"docs/clients.md sh":         "cmd/shoal/docs_unix_test.go TestDocs_ClientsPageIsTrue",
	"docs/clients.md go":         "cmd/shoal/docs_unix_test.go TestDocs_ClientsPageIsTrue",
	"docs/embedding.md go":       "examples/docs_test.go TestDocs_ShowPartsOfTheExamples",
	"docs/http-api.md sh":        "server/api_docs_test.go TestAPI_ExamplesOfThePage",
	"docs/http-api.md python":    "server/api_docs_test.go TestAPI_ExamplesOfThePage",
	"docs/http-api.md js":        "server/api_docs_test.go TestAPI_ExamplesOfThePage",
	"docs/sse.md sh":             "cmd/shoal/docs_unix_test.go TestDocs_SSE",
	"docs/getting-started.md sh": "cmd/shoal/docs_unix_test.go TestDocs_GettingStarted",
}

// treatment is how TestDocs_EachBlockIsExecuted treats the blocks of a page that start with a text.
type treatment struct {
	page, start string
	// do executes a block. If it is nil, the block is not executed, for this reason.
	do     func(t *testing.T, sh *docsShell, f fence)
	reason string
}

const jsReadmeTest = "client/js/test/servers/readme.test.ts runs it"

var treatments = []treatment{
	{page: "README.md", start: "go get ", reason: "needs a release: make release ARGS=check does it"},
	{page: "README.md", start: "make run", do: namesExist},
	{page: "README.md", start: "m, err := manager.New", do: isPartOf("server/example_test.go")},
	{page: "README.md", start: "bin/shoal publish demo", do: runs},
	{page: "README.md", start: "SHOAL_JWT_SECRET=", do: isValidServe},
	{page: "README.md", start: "bin/shoal serve --broker", do: isValidServe},
	{page: "docs/scaling.md", start: "make cluster", do: namesExist},
	{page: "docs/scaling.md", start: "shoal serve --addr", do: isValidServe},
	{page: "docs/scaling.md", start: "SHOAL_BROKER=", do: isValidServe},
	{page: "docs/scaling.md", start: "shoal bench", do: parses},
	{page: "docs/configuration.md", start: "addr:", do: isValidFile},
	{page: "docs/sse.md", start: "const source", do: isJavaScript},
	{page: "docs/releasing.md", start: "", do: namesExist, reason: "publishes a release"},
	{page: "docs/operating.md", start: "", do: namesExist, reason: "takes minutes and root"},
	{page: "docs/moving-from-python.md", start: "shoal serve", do: isValidServe},
	{page: "docs/tracing.md", start: "shoal serve", do: isValidServe},
	{page: "docs/http-api.md", start: "export", reason: "server/api_docs_test.go sets these variables"},
	{page: "benchmarks/compare/README.md", start: "go run . run", reason: "takes hours"},
	{page: "fuzz/README.md", start: "go test ./fuzz", do: namesExist, reason: "takes hours"},
	{page: "docs/reliability.md", start: "go run ./fuzz/chaos", do: namesExist, reason: "takes a quarter of an hour"},
	{page: "client/js/README.md", start: "shoal serve --dev", do: parses},
	{page: "client/js/README.md", start: "npm init", reason: jsReadmeTest},
	{page: "client/js/README.md", start: "shoal publish --dev", reason: jsReadmeTest},
	{page: "client/js/README.md", start: "const stop", reason: "a fragment; client/js/test/unit calls it"},
	{page: "client/js/README.md", start: "type Log", reason: "a fragment; client/js/test/unit has own types"},
	{page: "client/js/README.md", start: "import { ShoalProvider", reason: "the program is client/js/test/vite-app"},
	{page: "client/js/README.md", start: "import { tabs }", reason: "client/js/test/servers does it in Chromium"},
}

// Each block of a program, a command or a configuration in the documentation is executed by a test, or the table above
// gives the reason why not.
func TestDocs_EachBlockIsExecuted(t *testing.T) {
	sh := newDocsShell(t, serveDev(t))
	used := map[int]bool{}
	for _, page := range pages(t) {
		for _, f := range readFences(t, page) {
			if place, found := pageTests[page+" "+f.language]; found {
				file, name, _ := strings.Cut(place, " ")
				if !strings.Contains(read(t, file), "func "+name+"(") {
					t.Errorf("%s:%d: there is no test %s", page, f.line, place)
				}
				continue
			}
			i := slices.IndexFunc(treatments, func(r treatment) bool {
				return r.page == page && strings.HasPrefix(f.text, r.start)
			})
			switch {
			case !f.isProgram():
			case i < 0:
				t.Errorf("%s:%d: no test executes this block: add it to the table of treatments:\n%s", page, f.line, f.text)
			default:
				used[i] = true
				if do := treatments[i].do; do != nil {
					do(t, sh, f)
				}
			}
		}
	}
	for i, r := range treatments {
		if !used[i] {
			t.Errorf("%s has no block that starts with %q", r.page, r.start)
		}
		if r.do == nil && r.reason == "" {
			t.Errorf("%s: %q is not executed without a reason", r.page, r.start)
		}
	}
}

// docsShell runs commands of the documentation, with this program as shoal and a development server.
type docsShell struct {
	t    *testing.T
	url  string
	path string
}

func newDocsShell(t *testing.T, s *served) *docsShell {
	t.Helper()
	folder := t.TempDir()
	command := fmt.Sprintf("#!/bin/sh\n%s=1 exec %s \"$@\"\n", asCommand, os.Args[0])
	if err := os.WriteFile(filepath.Join(folder, "shoal"), []byte(command), 0o700); err != nil {
		t.Fatal(err)
	}
	return &docsShell{t, s.url, folder + ":" + os.Getenv("PATH")}
}

// run runs a block, which must succeed, and returns its output.
func (sh *docsShell) run(f fence, env ...string) string {
	sh.t.Helper()
	text := strings.NewReplacer("bin/shoal", "shoal", "http://127.0.0.1:8080", sh.url).Replace(f.text)
	script := exec.CommandContext(sh.t.Context(), "bash", "-euo", "pipefail", "-c", text)
	script.Env = append(append(os.Environ(), "PATH="+sh.path, "SHOAL_URL="+sh.url), env...)
	out, err := script.CombinedOutput()
	if err != nil {
		sh.t.Fatalf("%s:%d: %v\n%s", f.page, f.line, err, out)
	}
	return string(out)
}

func runs(_ *testing.T, sh *docsShell, f fence) { sh.run(f) }

// isValidServe has shoal check the settings of a command line of serve, in which … stands for settings that the page
// gives elsewhere.
func isValidServe(_ *testing.T, sh *docsShell, f fence) {
	f.text = regexp.MustCompile(`(?m) +# .*$`).ReplaceAllString(f.text, "")
	f.text = strings.NewReplacer("shoal serve", "shoal check-config",
		"--cluster-route …", "--cluster-route 10.0.0.1:6222 --cluster-route 10.0.0.2:6222 --cluster-route 10.0.0.3:6222",
		"--jwt-secret …", "--jwt-secret "+goodSecret, "--api-key …", "--api-key key", " …", "").Replace(f.text)
	for command := range strings.SplitSeq(strings.ReplaceAll(f.text, "\\\n", ""), "\n") {
		f.text = command
		env := []string{"SHOAL_JWT_SECRET=" + goodSecret, "SHOAL_AUTHORIZE=claims"}
		if strings.Contains(command, "--cluster-addr") {
			env = append(env, "SHOAL_CLUSTER_SECRET="+goodSecret)
		}
		sh.run(f, env...)
	}
}

// isValidFile has shoal check a file of settings.
func isValidFile(t *testing.T, _ *docsShell, f fence) {
	t.Helper()
	r := shoal(t, nil, "", "check-config", "--config="+writeFile(t, "shoal.yaml", f.text))
	if r.status != statusDone {
		t.Errorf("%s:%d: %s", f.page, f.line, r.err)
	}
}

// parses checks the flags of a command that would run for too long.
func parses(t *testing.T, _ *docsShell, f fence) {
	t.Helper()
	parser, err := newParser(newSettings(nil), streams{}, func(int) {})
	if err != nil {
		t.Fatal(err)
	}
	words := strings.Fields(strings.ReplaceAll(f.text, "\\\n", " "))
	if _, err := parser.Parse(words[1:]); err != nil || words[0] != "shoal" {
		t.Errorf("%s:%d: %v", f.page, f.line, err)
	}
}

// isPartOf returns a treatment: the block is a part of a file that is compiled and tested, but for its white space.
func isPartOf(file string) func(*testing.T, *docsShell, fence) {
	return func(t *testing.T, _ *docsShell, f fence) {
		t.Helper()
		source := withoutSpace(read(t, file))
		for part := range strings.SplitSeq(f.text, "\n\n") {
			if !strings.Contains(source, withoutSpace(part)) {
				t.Errorf("%s:%d: not a part of %s:\n%s", f.page, f.line, file, part)
			}
		}
	}
}

func withoutSpace(text string) string { return strings.Join(strings.Fields(text), " ") }

// isJavaScript checks the syntax of a program that needs a page around it.
func isJavaScript(t *testing.T, _ *docsShell, f fence) {
	t.Helper()
	check := exec.CommandContext(t.Context(), "node", "--check", writeFile(t, "block.mjs", f.text))
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("%s:%d: %v (this test needs Node.js)\n%s", f.page, f.line, err, out)
	}
}

// namesExist checks that the make targets, scripts and packages that a block names exist.
func namesExist(t *testing.T, _ *docsShell, f fence) {
	t.Helper()
	makefile := read(t, "Makefile")
	for _, m := range regexp.MustCompile(`(?m)^(?:\w+=\S+ )*make ([a-z-]+)`).FindAllStringSubmatch(f.text, -1) {
		if !strings.Contains(makefile, "\n"+m[1]+":") {
			t.Errorf("%s:%d: the Makefile has no target %s", f.page, f.line, m[1])
		}
	}
	paths := regexp.MustCompile(`(?m)(?:^| )(\./[\w./-]+|\.ci/[\w.-]+|deploy/[\w.-]+)`)
	for _, path := range paths.FindAllStringSubmatch(f.text, -1) {
		if _, err := os.Stat(repository + path[1]); err != nil {
			t.Errorf("%s:%d: %v", f.page, f.line, err)
		}
	}
}

// The commands of the page print the output that stands below them. The first two are the installation and this test's
// server.
func TestDocs_GettingStarted(t *testing.T) {
	sh := newDocsShell(t, serveDev(t))
	output, commands := "", 0
	for _, f := range readFences(t, "docs/getting-started.md") {
		switch {
		case f.language == "text":
			pattern := regexp.MustCompile(`(?:^|\n)` + strings.TrimPrefix(asPattern(strings.TrimSpace(f.text)), "^"))
			if !pattern.MatchString(output) {
				t.Errorf("line %d: printed\n%s\nwant at the end\n%s", f.line, output, f.text)
			}
		case commands == 0 && strings.HasPrefix(f.text, "go install "),
			commands == 1 && f.text == "shoal serve --dev\n":
			commands++
		default:
			commands++
			output = strings.TrimSpace(sh.run(f))
		}
	}
	if commands != 6 {
		t.Errorf("the page has %d commands, want 6", commands)
	}
}

// shellBlocks returns the blocks of a page that are marked as sh.
func shellBlocks(page string) (blocks []string) {
	for _, part := range strings.Split(page, "```sh\n")[1:] {
		block, _, _ := strings.Cut(part, "```")
		blocks = append(blocks, block)
	}
	return blocks
}

// The commands of docs/sse.md print the output that the page shows.
func TestDocs_SSE(t *testing.T) {
	page := read(t, "docs/sse.md")
	blocks := shellBlocks(page)
	if len(blocks) != 2 {
		t.Fatalf("%d blocks, want 2", len(blocks))
	}
	s := serveDev(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	command := func(block string) *exec.Cmd {
		c := exec.CommandContext(ctx, "bash", "-c", strings.Replace(block, "\ncurl -sN", "\nexec curl -sN", 1))
		c.Env = append(os.Environ(), "SHOAL_URL="+s.url)
		c.Stderr = os.Stderr
		return c
	}
	follow := command(blocks[0])
	out, err := follow.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := follow.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = follow.Process.Kill()
		_, _ = io.Copy(io.Discard, out)
		_ = follow.Wait()
	}()
	lines := bufio.NewScanner(out)
	until := func(text string) {
		t.Helper()
		for lines.Scan() {
			if strings.Contains(lines.Text(), text) {
				return
			}
		}
		t.Fatalf("the output ended without %s: %v", text, lines.Err())
	}
	until(`data: {"action":"subscribed","upload_id":"film"`)
	if text, err := command(blocks[1]).Output(); err != nil || !strings.Contains(string(text), `"accepted":1`) {
		t.Fatalf("publishing: %v, %s", err, text)
	}
	const message = `data: {"action":"note","text":"hello","offset":1,"upload_id":"film"}`
	if !strings.Contains(page, message) {
		t.Errorf("the page does not show %s", message)
	}
	until(message)
}
