package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"go.yaml.in/yaml/v3"
)

// repository is the root of this repository, relative to the working directory of its tests.
const repository = "../../"

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(repository + path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// exported returns the help of the metrics that a server exports, by name.
func exported(t *testing.T, s *served) map[string]string {
	t.Helper()
	status, text := call(t, "GET", s.admin+"/metrics", "", "")
	if status != 200 {
		t.Fatalf("/metrics answers %d", status)
	}
	found := map[string]string{}
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, "# HELP "); ok {
			name, help, _ := strings.Cut(strings.TrimSpace(rest), " ")
			found[name] = help
		}
	}
	return found
}

// metricNames returns the metrics that an expression of PromQL names.
func metricNames(expression string) []string {
	return regexp.MustCompile(`\b(shoal|process|go)_[a-z0-9_]+`).FindAllString(expression, -1)
}

type alertRules struct {
	Groups []struct {
		Rules []struct {
			Alert       string
			Expr        string
			Annotations map[string]string
		}
	}
}

func alerts(t *testing.T) (rules alertRules) {
	t.Helper()
	if err := yaml.Unmarshal([]byte(read(t, "deploy/alerts.yml")), &rules); err != nil {
		t.Fatal(err)
	}
	return rules
}

// Every metric that an alert or a panel uses is exported by a server, from its start on.
func TestDeploy_UsesExportedMetrics(t *testing.T) {
	names := exported(t, serveDev(t))
	check := func(where, expression string) {
		for _, name := range metricNames(expression) {
			base := name
			for _, suffix := range []string{"_bucket", "_count", "_sum"} {
				base = strings.TrimSuffix(base, suffix)
			}
			if names[name] == "" && names[base] == "" {
				t.Errorf("%s uses %s, which is not exported", where, name)
			}
		}
	}
	for _, group := range alerts(t).Groups {
		for _, rule := range group.Rules {
			check("alert "+rule.Alert, rule.Expr)
		}
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal([]byte(read(t, "deploy/grafana.json")), &dashboard); err != nil {
		t.Fatal(err)
	}
	if len(dashboard.Panels) == 0 {
		t.Error("the dashboard has no panels")
	}
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			check("panel "+panel.Title, target.Expr)
		}
	}
}

// Every alert has a paragraph in the runbook, and its annotation names it.
func TestDeploy_AlertsAreInTheRunbook(t *testing.T) {
	runbook := read(t, "docs/runbook.md")
	for _, group := range alerts(t).Groups {
		for _, rule := range group.Rules {
			heading := "\n### " + rule.Alert + "\n\n"
			_, paragraph, found := strings.Cut(runbook, heading)
			if !found || len(strings.TrimSpace(paragraph)) < 40 || strings.HasPrefix(paragraph, "#") {
				t.Errorf("docs/runbook.md has no paragraph %s", rule.Alert)
			}
			if want := "docs/runbook.md#" + strings.ToLower(rule.Alert); rule.Annotations["runbook"] != want {
				t.Errorf("the alert %s names %q, want %q", rule.Alert, rule.Annotations["runbook"], want)
			}
		}
	}
}

func TestDeploy_AlertsPassPromtool(t *testing.T) {
	tool, err := exec.Command(repository + ".ci/promtool.sh").Output()
	if err != nil {
		t.Fatalf("promtool cannot be found: %v", err)
	}
	for _, args := range [][]string{
		{"check", "rules", repository + "deploy/alerts.yml"}, {"test", "rules", "testdata/alerts.yml"},
	} {
		if out, err := exec.Command(strings.TrimSpace(string(tool)), args...).CombinedOutput(); err != nil {
			t.Errorf("%v:\n%s", err, out)
		}
	}
}

// updateDocs has the tests write the generated documents instead of comparing them.
var updateDocs = os.Getenv("SHOAL_UPDATE_DOCS") != ""

// wantGenerated compares the part of a document after a marker with the text that it should have.
func wantGenerated(t *testing.T, path, want string) {
	t.Helper()
	const marker = "<!-- generated: SHOAL_UPDATE_DOCS=1 go test -run Docs ./cmd/shoal -->\n"
	head, got, found := strings.Cut(read(t, path), marker)
	if !found {
		t.Fatalf("%s has no line %s", path, marker)
	}
	if got == "\n"+want {
		return
	}
	if !updateDocs {
		t.Fatalf("%s differs from the code; write it with SHOAL_UPDATE_DOCS=1 go test -run Docs ./cmd/shoal", path)
	}
	if err := os.WriteFile(repository+path, []byte(head+marker+"\n"+want), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestDocs_MetricsAreThoseOfTheServer(t *testing.T) {
	names := exported(t, serveDev(t))
	table := "| metric | meaning |\n| --- | --- |\n"
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if strings.HasPrefix(name, "shoal_") {
			table += fmt.Sprintf("| `%s` | %s |\n", name, strings.ReplaceAll(names[name], "|", `\|`))
		}
	}
	wantGenerated(t, "docs/metrics.md", table)
}

// configurationTable lists the flags of a command as kong knows them, those of serve with the ones that a reload applies.
func configurationTable(command *kong.Node) string {
	table := "| flag and key | variable | default | meaning |\n| --- | --- | --- | --- |\n"
	reload := func(string) string { return "" }
	if command.Name == "serve" {
		table = "| flag and key | variable | default | reload | meaning |\n| --- | --- | --- | --- | --- |\n"
		reload = func(flag string) string {
			if reloadable[flag] {
				return "yes | "
			}
			return "– | "
		}
	}
	for _, flag := range command.Flags {
		if flag.Name == "help" {
			continue
		}
		value := "–"
		if flag.Default != "" {
			value = "`" + flag.Default + "`"
		}
		help := strings.NewReplacer("|", `\|`, "<", "&lt;").Replace(flag.Help)
		table += fmt.Sprintf("| `--%s` | `%s` | %s | %s%s |\n", flag.Name, variable(flag.Name), value, reload(flag.Name), help)
	}
	return table
}

func TestDocs_ConfigurationIsThatOfTheCommand(t *testing.T) {
	parser, err := newParser(newSettings(nil), streams{}, func(int) {})
	if err != nil {
		t.Fatal(err)
	}
	var text string
	for _, command := range parser.Model.Children {
		if command.Name == "check-config" { // it has the flags of serve
			continue
		}
		if len(command.Flags) > 0 {
			text += "## shoal " + command.Name + "\n\n" + command.Help + "\n\n" + configurationTable(command) + "\n"
		}
	}
	wantGenerated(t, "docs/configuration.md", strings.TrimSuffix(text, "\n"))
}

// Labels have a fixed set of values, independent of requests.
func TestMetrics_RoutesAreBounded(t *testing.T) {
	for path, want := range map[string]string{
		"/v1/uploads/a/messages":      "/v1/uploads/{id}/messages",
		"/v1/uploads/a":               "/v1/uploads/{id}",
		"/v1/stats":                   "/v1/stats",
		"/v1/uploads/a/b":             "other",
		"/v1/uploads/a/messages/more": "/v1/uploads/{id}/messages",
		"/v1/what-you-like":           "other",
		"/v1/":                        "other",
		"/%761/%75ploads/a%2Fb":       "/v1/uploads/{id}",
		"/ws/uploads":                 "",
		"/events/uploads/a/v1/stats":  "",
		"/v1":                         "",
		"/":                           "",
	} {
		for _, prefix := range []string{"", "/api/v1"} {
			if got := route(prefix, prefix+path); got != want {
				t.Errorf("%s behind %q has the route %q, want %q", path, prefix, got, want)
			}
		}
	}
}

func TestMetrics_FollowTheServer(t *testing.T) {
	s := serveDev(t)
	c := login(t, s.url)
	c.send(`{"action":"subscribe_upload","upload_id":"a"}`)
	value := func(series string) string {
		_, text := call(t, "GET", s.admin+"/metrics", "", "")
		for line := range strings.Lines(text) {
			if rest, ok := strings.CutPrefix(line, series+" "); ok {
				return strings.TrimSpace(rest)
			}
		}
		return ""
	}
	for value("shoal_subscriptions") != "1" {
	}
	call(t, "POST", s.url+"/v1/uploads/a/messages", "dev", `{"action":"note"}`)
	c.receive("note")
	for series, want := range map[string]string{
		`shoal_connections{subprotocol="base",transport="websocket"}`: "1",
		`shoal_messages_in_total{class="event",door="publish"}`:       "1",
		`shoal_deliveries_total{outcome="queued"}`:                    "1",
		`shoal_authentication_seconds_count{outcome="allowed"}`:       "1",
		`shoal_history_uploads`:                                       "1",
		`shoal_ready`:                                                 "1",
		`shoal_broker_healthy`:                                        "1",
		`shoal_refusals_total{limit="max_connections"}`:               "0",
		`shoal_http_request_seconds_count{code="202",method="post",route="/v1/uploads/{id}/messages"}`: "1",
	} {
		if got := value(series); got != want {
			t.Errorf("%s is %q, want %q", series, got, want)
		}
	}
	for value("shoal_residence_seconds_count") == "0" { // not every write is in the sample
		call(t, "POST", s.url+"/v1/uploads/a/messages", "dev", `{"action":"note"}`)
	}
}
