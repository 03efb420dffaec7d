package main

import (
	"errors"
	"fmt"
	"strings"
)

// mutant is one deliberate fault.
type mutant struct {
	name, file, search, replace string
	// tests are sets of arguments for go test.
	tests []string
	// survives is the reason why no test finds the fault; "" if one must.
	survives string
}

// parse parses a list of faults.
func parse(text string) (all []mutant, err error) {
	names := map[string]bool{}
	for _, part := range strings.Split("\n"+text, "\n=== ")[1:] {
		m, err := parseOne(part)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", m.name, err)
		}
		if names[m.name] {
			return nil, fmt.Errorf("%q is listed twice", m.name)
		}
		names[m.name] = true
		all = append(all, m)
	}
	if len(all) == 0 {
		return nil, errors.New("lists no fault")
	}
	return all, nil
}

func parseOne(part string) (m mutant, err error) {
	m.name, part, _ = strings.Cut(part, "\n")
	head, body, ok := strings.Cut(part, "--- search\n")
	if !ok {
		return m, errors.New("has no text to replace")
	}
	if m.search, m.replace, ok = strings.Cut(body, "+++ replace\n"); !ok {
		return m, errors.New("has no replacement")
	}
	m.replace = strings.TrimRight(m.replace, "\n")
	m.search = strings.TrimRight(m.search, "\n")
	for line := range strings.SplitSeq(strings.TrimSpace(head), "\n") {
		key, value, _ := strings.Cut(line, ": ")
		switch key {
		case "file":
			m.file = value
		case "tests":
			m.tests = append(m.tests, value)
		case "survives":
			m.survives = value
		default:
			return m, fmt.Errorf("has an unknown field %q", key)
		}
	}
	if m.file == "" || len(m.tests) == 0 || strings.TrimSpace(m.search) == "" {
		return m, errors.New("needs a file, tests and a text to replace")
	}
	return m, nil
}
