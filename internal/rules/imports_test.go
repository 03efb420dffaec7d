package rules

import (
	"fmt"
	"strings"
)

const module = "github.com/shoal-go/shoal"

// direction says what the shipped code of one folder, and of all folders below it, must not import. Tests
// may: they put things together that know nothing of each other.
type direction struct {
	folder string
	reason string
	alone  bool     // imports nothing of this module but its own folder and those of but
	but    []string // import paths, each standing for all below it too
	never  []string // likewise
}

// directions is the picture of who may know whom, row by row. The linters' configuration holds it once
// more, and a test compares the two.
func directions() []direction {
	return []direction{{
		folder: "shard",
		reason: "the registry knows no sockets, no JSON, no clock, and of this module only internal/hash",
		alone:  true,
		but:    ours("internal/hash"),
		never:  []string{"net", "encoding/json", "time"},
	}, {
		folder: "manager",
		reason: "the domain knows neither the edge nor a broker's client",
		never: append(ours("server"), "net/http", "github.com/lxzan/gws",
			"github.com/redis", "github.com/gomodule/redigo", "github.com/nats-io"),
	}, {
		folder: "broker",
		reason: "a broker carries channels and bytes, and knows nothing of this module",
		alone:  true,
	}, {
		folder: "server",
		reason: "the edge reaches the registry and the brokers through manager only",
		never:  ours("shard", "broker"),
	}, {
		folder: "client",
		reason: "a client shares the wire with the server, and no code",
		never:  ours("server", "manager", "shard"),
	}, {
		folder: "cmd",
		reason: "a command puts the public packages together and stays out of what lies under them",
		never:  ours("shard", "internal/frame", "internal/history", "internal/outbox"),
	}, {
		folder: "internal/hash",
		reason: "it stands below everything of this module",
		alone:  true,
	}, {
		folder: "internal/frame",
		reason: "it stands below everything of this module",
		alone:  true,
	}, {
		folder: "internal/outbox",
		reason: "a queue of frames knows nothing of this module but internal/frame",
		alone:  true,
		but:    ours("internal/frame"),
	}, {
		folder: "internal/history",
		reason: "it stands below everything of this module",
		alone:  true,
	}}
}

// ours makes import paths of folders of this module.
func ours(folders ...string) []string {
	paths := make([]string, len(folders))
	for i, folder := range folders {
		paths[i] = module + "/" + folder
	}
	return paths
}

// allows reports whether a file that the direction holds for may import the package.
func (d direction) allows(imported string) bool {
	if within(imported, d.never...) {
		return false
	}
	return !d.alone || !within(imported, module) || within(imported, ours(d.folder)...) || within(imported, d.but...)
}

// within reports whether a path is one of the roots or lies below one.
func within(name string, roots ...string) bool {
	for _, root := range roots {
		if name == root || strings.HasPrefix(name, root+"/") {
			return true
		}
	}
	return false
}

// wrongWayImports complains of imports against the direction.
func wrongWayImports(t tree) []string {
	var complaints []string
	for _, f := range t.files {
		for _, d := range directions() {
			if f.isTest() || !within(f.dir(), d.folder) {
				continue
			}
			for _, imported := range f.imports() {
				if !d.allows(imported) {
					complaints = append(complaints, fmt.Sprintf("%s: must not import %s: %s", f.path, imported, d.reason))
				}
			}
		}
	}
	return complaints
}

// depguard writes the directions as the settings of the linter of that name.
func depguard(directions []direction) string {
	var b strings.Builder
	b.WriteString("    depguard:\n      rules:\n")
	for _, d := range directions {
		deny := d.never
		fmt.Fprintf(&b, "        %s:\n          list-mode: lax\n", d.folder)
		fmt.Fprintf(&b, "          files: [\"!$test\", \"${config-path}/%s/**\"]\n", d.folder)
		if d.alone {
			fmt.Fprintf(&b, "          allow: [%s]\n", strings.Join(append(ours(d.folder), d.but...), ", "))
			deny = append([]string{module}, deny...)
		}
		b.WriteString("          deny:\n")
		for _, denied := range deny {
			fmt.Fprintf(&b, "            - pkg: %s\n              desc: %q\n", denied, d.reason)
		}
	}
	return b.String()
}
