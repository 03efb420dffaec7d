package rules

import (
	"fmt"
	"path"
	"strings"
)

// module is the path of the library's module, which the paths of all packages of the repository begin with.
const module = "github.com/shoal-go/shoal"

// importRule forbids imports to the packages in and below a folder, except where another rule has a longer folder.
// Tests are exempt.
type importRule struct {
	folder string
	// deny lists the forbidden paths with all below them, allow lists those among them that are permitted. A path of
	// this module begins with "./", or is ".".
	deny, allow []string
	reason      string
}

// importRules is the direction of imports.
func importRules() []importRule {
	const (
		below   = "it stands below everything of this module"
		adapter = "an exporter uses the public packages only, as one in another repository would"
	)
	return []importRule{
		{"shard", []string{".", "net", "encoding/json", "time"}, []string{"./shard"},
			"the registry knows no sockets, no JSON, no clock, and nothing else of this module"},
		{"manager", []string{
			"./server", "net/http", "github.com/lxzan/gws", "github.com/redis", "github.com/gomodule/redigo",
			"github.com/nats-io",
		}, nil, "the domain knows neither the edge nor a broker's client"},
		{"broker", []string{"."}, []string{"./broker"},
			"a broker carries channels and bytes, and knows nothing of this module"},
		{"server", []string{"./shard", "./broker"}, nil,
			"the edge reaches the registry and the brokers through manager only"},
		{"server/shoalprom", []string{"./shard", "./internal"}, nil, adapter},
		{"server/shoaltrace", []string{"./shard", "./broker", "./internal"}, nil, adapter},
		{"client", []string{"./server", "./manager", "./shard"}, nil,
			"a client shares the wire with the server, and no code"},
		{"cmd", []string{"./shard", "./internal/frame", "./internal/history", "./internal/outbox"}, nil,
			"a command puts the public packages together and stays out of what lies under them"},
		{"cmd/shoal/internal/dashboard", []string{"./shard", "./broker", "./internal"}, []string{"./internal/demo"},
			"the dashboard shows data of manager and server; it shares the style of the demo page"},
		{"internal/frame", []string{"."}, []string{"./internal/frame"}, below},
		{"internal/history", []string{"."}, []string{"./internal/history"}, below},
		{"internal/replay", []string{"."}, []string{"./internal/replay", "./internal/frame"},
			"a queue of frames knows nothing of this module but internal/frame"},
		{"internal/outbox", []string{"."}, []string{"./internal/outbox", "./internal/replay", "./internal/frame"},
			"a queue of frames knows nothing of this module but internal/frame and internal/replay"},
		{"internal/coalesce", []string{"."}, nil, below},
		{"internal/deadline", []string{"."}, nil, below},
		{"internal/dispatch", []string{"."}, nil, below},
		{"internal/workqueue", []string{"."}, nil, below},
		{"internal/strictjson", []string{"."}, []string{"./internal/strictjson", "./internal/logs"}, below},
		{"internal/reload", []string{"."}, nil, below},
		{"internal/logs", []string{"."}, nil, below},
		{"internal/printable", []string{"."}, nil, below},
		{"internal/testlog", []string{"."}, nil, below},
		{"internal/wsframe", []string{"."}, nil, below},
		{"internal/typecheck", []string{"."}, nil, below},
	}
}

// forbiddenImports reports imports against importRules.
func forbiddenImports(t tree) []string {
	var violations []string
	for _, f := range t.files {
		rule := ruleOf(f.dir())
		if f.isTest() {
			continue
		}
		for _, imported := range f.imports() {
			if matches(rule.deny, imported) && !matches(rule.allow, imported) {
				violations = append(violations, fmt.Sprintf("%s: must not import %s: %s", f.path, imported, rule.reason))
			}
		}
	}
	return violations
}

// ruleOf returns the rule of a folder: the one with the longest path.
func ruleOf(folder string) (longest importRule) {
	for _, rule := range importRules() {
		if len(rule.folder) > len(longest.folder) && contains(rule.folder, folder) {
			longest = rule
		}
	}
	return longest
}

// matches reports whether a list contains the path or one above it.
func matches(list []string, imported string) bool {
	for _, entry := range list {
		if strings.HasPrefix(entry, ".") {
			entry = path.Join(module, entry)
		}
		if contains(entry, imported) {
			return true
		}
	}
	return false
}

// contains reports whether a path is another or below it.
func contains(folder, name string) bool {
	rest, ok := strings.CutPrefix(name, folder)
	return ok && (rest == "" || rest[0] == '/')
}
