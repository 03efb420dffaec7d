package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

const (
	// maxFileBytes bounds the file of settings.
	maxFileBytes = 1 << 20
	// maxKeyBytes is longer than any key.
	maxKeyBytes = 64
)

// readFile reads the file of settings that key has named, whose own keys are among names. It also
// returns its errors. The settings are nil if the file as a whole cannot be used.
func readFile(key, path string, names map[string]bool) (map[string]given, []string) {
	root, err := parseFile(path)
	if err != nil {
		return nil, []string{fmt.Sprintf("%s is %q, which %v", key, path, err)}
	}
	f := &fileReader{path: path, names: names, found: make(map[string]given)}
	for i := 0; root != nil && i+1 < len(root.Content); i += 2 {
		f.entry(root.Content[i], root.Content[i+1])
	}
	return f.found, f.complaints
}

// parseFile returns the mapping that the file holds; nil if it is empty.
func parseFile(path string) (*yaml.Node, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("cannot be read: %w", errors.Unwrap(err))
	}
	defer file.Close()
	limited := &io.LimitedReader{R: file, N: maxFileBytes + 1}
	decoder := yaml.NewDecoder(limited)
	var document, second yaml.Node
	err = decoder.Decode(&document)
	if errors.Is(err, io.EOF) {
		return nil, nil
	}
	if err == nil && !errors.Is(decoder.Decode(&second), io.EOF) {
		err = errors.New("it must hold one document")
	}
	switch {
	case limited.N == 0:
		return nil, fmt.Errorf("is larger than %d bytes", maxFileBytes)
	case err != nil && strings.Contains(err.Error(), "unknown anchor"): // it would repeat the value, which may be a secret
		return nil, errors.New("names an anchor that is not there; a value that begins with * must be quoted")
	case err != nil:
		return nil, fmt.Errorf("is not usable YAML: %w", err)
	}
	root := document.Content[0]
	if root.Kind == yaml.ScalarNode && root.Tag == "!!null" { // such as --- and a comment
		return nil, nil
	}
	if root.Kind != yaml.MappingNode {
		return nil, errors.New("must hold keys and values such as addr: 127.0.0.1:8080")
	}
	return root, nil
}

// fileReader collects the settings of a file and the errors in them.
type fileReader struct {
	path       string
	names      map[string]bool
	found      map[string]given
	complaints []string
}

func (f *fileReader) entry(key, value *yaml.Node) {
	where := fmt.Sprintf("%s:%d: %s", f.path, key.Line, key.Value)
	before, twice := f.found[key.Value]
	values, problem := valuesOf(value)
	switch {
	case !f.names[key.Value]:
		f.complain(fmt.Sprintf("%s:%d: unknown key %q%s", f.path, key.Line, key.Value, f.suggestion(key.Value)))
	case twice:
		f.complain(where + " is there a second time, want it once: see " + before.key)
	case problem != "":
		f.complain(where + " " + problem)
	default:
		f.found[key.Value] = given{where, values}
	}
}

func (f *fileReader) complain(text string) { f.complaints = append(f.complaints, text) }

// valuesOf returns the values of a node as text; the flag parses them.
func valuesOf(node *yaml.Node) ([]string, string) {
	const want = "want a value, or a list of values"
	node = resolved(node)
	for _, n := range append([]*yaml.Node{node}, node.Content...) {
		if tag := foreignTag(resolved(n)); tag != "" {
			return nil, fmt.Sprintf("has the tag %q, which is not supported, %s without it", tag, want)
		}
	}
	switch node.Kind {
	case yaml.ScalarNode:
		if node.Tag == "!!null" {
			return nil, "has no value; give it one, or leave the key out"
		}
		return []string{node.Value}, ""
	case yaml.SequenceNode:
		if len(node.Content) == 0 { // which would take the place of the default
			return nil, "is an empty list; give it a value, or leave the key out"
		}
		values := make([]string, 0, len(node.Content))
		for _, item := range node.Content {
			if item = resolved(item); item.Kind != yaml.ScalarNode || item.Tag == "!!null" {
				return nil, "is a list of something else, " + want
			}
			values = append(values, item.Value)
		}
		return values, ""
	}
	return nil, "has keys below it, " + want
}

// foreignTag returns the tag of a node by which its value is made from the text, such as !vault or !!binary, or "".
func foreignTag(node *yaml.Node) string {
	plain := []string{"!", "!!str", "!!int", "!!float", "!!bool", "!!null", "!!timestamp", "!!seq", "!!map"}
	if tag := node.ShortTag(); node.Style&yaml.TaggedStyle != 0 && !slices.Contains(plain, tag) {
		return tag
	}
	return ""
}

// resolved returns the node that an alias stands for, or the node itself.
func resolved(node *yaml.Node) *yaml.Node {
	if node.Kind == yaml.AliasNode {
		return node.Alias
	}
	return node
}

// suggestion names the key that was probably meant, if one is near.
func (f *fileReader) suggestion(key string) string {
	best := nearest(key, f.names, 2)
	if best == "" {
		return "; keys are the names of flags, which shoal serve --help lists"
	}
	return fmt.Sprintf(", did you mean %q?", best)
}

// nearest returns the known name that a mistyped one was probably meant to be: one that differs in at most that
// many bytes, or "".
func nearest(name string, known map[string]bool, most int) string {
	if len(name) > maxKeyBytes { // no known name is near, and comparing would take long
		return ""
	}
	best, distance := "", most+1
	for _, k := range slices.Sorted(maps.Keys(known)) {
		if d := editDistance(name, k); d < distance {
			best, distance = k, d
		}
	}
	return best
}

// editDistance returns how many bytes must be inserted, removed or replaced to turn a into b.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := diagonal
			if a[i] != b[j] {
				replaced++
			}
			diagonal = row[j+1]
			row[j+1] = min(replaced, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
