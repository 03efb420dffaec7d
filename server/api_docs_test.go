package server_test

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// example is a program of a page, and the output that the page shows for it.
type example struct{ language, text, output string }

// examples returns the programs of a page that are followed by their output.
func examples(t *testing.T, page string) (all []example) {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```(sh|python|js)\n(.*?)```\n\n```json\n(.*?)```").FindAllStringSubmatch(string(text), -1)
	for _, b := range blocks {
		all = append(all, example{b[1], b[2], b[3]})
	}
	return all
}

// The examples of the page about the HTTP API work, in their order, and print the output on the page.
func TestAPI_ExamplesOfThePage(t *testing.T) {
	n := start(t)
	commands := map[string][]string{"sh": {"bash", "-eu"}, "python": {"python3"}, "js": {"node", "--input-type=module"}}
	epoch := regexp.MustCompile(`"epoch":"[^"]+"`)
	all := examples(t, "../docs/http-api.md")
	for _, e := range all {
		command := exec.CommandContext(t.Context(), commands[e.language][0], commands[e.language][1:]...)
		command.Stdin = strings.NewReader(e.text)
		command.Env = append(os.Environ(), "SHOAL_URL=http://"+n.host, "SHOAL_API_KEY=key")
		out, err := command.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s\nThe test needs bash, curl 7.76, python3 and node 18, or newer.\n%s", err, out, e.text)
		}
		got := epoch.ReplaceAllString(strings.TrimSpace(string(out)), `"epoch":"EPOCH"`)
		if got != strings.TrimSpace(e.output) {
			t.Errorf("the example\n%s\nprints\n%s\nwant\n%s", e.text, got, e.output)
		}
	}
	if len(all) != 5 {
		t.Errorf("%d examples were found", len(all))
	}
}
