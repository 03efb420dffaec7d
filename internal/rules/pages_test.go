package rules

import (
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// page is one Markdown file.
type page struct {
	path, text string
}

// fence matches a block of code, which has no links or headings.
var fence = regexp.MustCompile("(?ms)^```.*?^```$")

// brokenLinks reports links of pages to files, folders and headings of the repository that do not exist.
func brokenLinks(t tree) []string {
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	var violations []string
	for _, p := range t.pages {
		for _, match := range link.FindAllStringSubmatch(fence.ReplaceAllString(p.text, ""), -1) {
			if strings.Contains(match[1], ":") {
				continue // of another site
			}
			target, heading, _ := strings.Cut(match[1], "#")
			linked := p.path
			if target != "" {
				linked = path.Join(path.Dir(p.path), target)
			}
			switch i := slices.IndexFunc(t.pages, func(other page) bool { return other.path == linked }); {
			case !t.exists(linked):
				violations = append(violations, fmt.Sprintf("%s: links to %s, which does not exist", p.path, match[1]))
			case heading != "" && i >= 0 && !slices.Contains(t.pages[i].headings(), heading):
				violations = append(violations, fmt.Sprintf("%s: links to %s, which has no such heading", p.path, match[1]))
			}
		}
	}
	return violations
}

// exists reports whether the repository has a file or folder.
func (t tree) exists(name string) bool {
	_, err := fs.Stat(t.root, strings.TrimSuffix(name, "/"))
	return err == nil
}

// headings returns the fragments by which a page's headings are linked to.
func (p page) headings() []string {
	var all []string
	heading := regexp.MustCompile(`(?m)^#+ (.*)$`)
	for _, match := range heading.FindAllStringSubmatch(fence.ReplaceAllString(p.text, ""), -1) {
		all = append(all, strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
				return unicode.ToLower(r)
			default:
				return -1
			}
		}, match[1]))
	}
	return all
}

// code matches a span of code within a line.
var code = regexp.MustCompile("`([^`\n]+)`")

// missingPaths reports paths in the code of pages that begin with a name at the top of the repository and exist neither
// from there nor from the folder of the page.
func missingPaths(t tree) []string {
	word := regexp.MustCompile(`^(?:\./|\.\./)*((\.?[\w-][\w.-]*)/[\w./-]*\w)/?$`)
	tag := regexp.MustCompile(`/v\d+\.\d+\.\d+$`) // of a module
	space := func(r rune) bool { return unicode.IsSpace(r) || strings.ContainsRune("()\"'#:,", r) }
	var violations []string
	for _, p := range t.pages {
		spans := fence.FindAllString(p.text, -1)
		for _, match := range code.FindAllStringSubmatch(fence.ReplaceAllString(p.text, ""), -1) {
			spans = append(spans, match[1])
		}
		for _, span := range spans {
			for part := range strings.FieldsFuncSeq(span, space) {
				match := word.FindStringSubmatch(part)
				if match == nil || tag.MatchString(part) {
					continue
				}
				ours := match[2] == ".ci" || match[2] == ".github" || slices.Contains(t.top, match[2])
				if ours && !t.exists(match[1]) && !t.exists(path.Join(path.Dir(p.path), match[1])) {
					violations = append(violations, fmt.Sprintf("%s: names %s, which does not exist", p.path, match[1]))
				}
			}
		}
	}
	return violations
}

// missingTests reports tests that pages name and that do not exist. `TestA_B…` stands for all tests that begin so, and
// `…C` for the test of the same unit as the one before that ends so. Behind the name of a package and a colon, tests are of
// that package until the line or the cell of the table ends.
func missingTests(t tree) []string {
	tests := map[string][]string{}
	for _, f := range t.files {
		for name := range f.syntax.Scope.Objects {
			if f.isTest() && namesTest(name) {
				tests[f.dir()] = append(tests[f.dir()], name)
			}
		}
	}
	word := regexp.MustCompile("`([\\w./-]+)`: |`(…?)(\\w+)(…?)`")
	var violations []string
	for _, p := range t.pages {
		for _, cell := range strings.FieldsFunc(p.text, func(r rune) bool { return r == '|' || r == '\n' }) {
			folder, unit := "", ""
			for _, match := range word.FindAllStringSubmatch(cell, -1) {
				name := match[3]
				switch {
				case match[1] != "":
					folder = match[1]
				case match[2] == "" && namesTest(name):
					unit, _, _ = strings.Cut(name, "_")
					if !slices.ContainsFunc(testsOf(tests, folder), func(test string) bool {
						return test == name || match[4] != "" && strings.HasPrefix(test, name)
					}) {
						violations = append(violations, fmt.Sprintf("%s: names the test %s, which %s does not have", p.path, name, either(folder)))
					}
				case match[2] != "" && unit != "":
					if !slices.ContainsFunc(testsOf(tests, folder), func(test string) bool {
						return strings.HasPrefix(test, unit) && (strings.HasSuffix(test, name) || match[4] != "" && strings.Contains(test, name))
					}) {
						violations = append(violations, fmt.Sprintf("%s: names a test …%s of %s, which %s does not have", p.path, name, unit, either(folder)))
					}
				}
			}
		}
	}
	return violations
}

// testsOf returns the tests in the folders whose path ends with that of a package, in all of them for "".
func testsOf(tests map[string][]string, folder string) []string {
	var all []string
	for dir, names := range tests {
		if folder == "" || dir == folder || strings.HasSuffix(dir, "/"+folder) {
			all = append(all, names...)
		}
	}
	return all
}

// either returns the name of a package, or of the repository for "".
func either(folder string) string {
	if folder == "" {
		return "the repository"
	}
	return folder
}

// unlistedFolders reports folders of internal that the code layout of README.md does not name.
func unlistedFolders(t tree) []string {
	var violations []string
	for _, readme := range t.pages {
		if readme.path != "README.md" {
			continue
		}
		for _, f := range t.files {
			parts := strings.Split(f.path, "/")
			if len(parts) < 3 || parts[0] != "internal" {
				continue
			}
			violation := fmt.Sprintf("README.md: does not name internal/%s in its code layout", parts[1])
			if !strings.Contains(readme.text, "`internal/"+parts[1]+"`") && !slices.Contains(violations, violation) {
				violations = append(violations, violation)
			}
		}
	}
	return violations
}

// unlistedPages reports pages of docs that its table of contents, docs/README.md, does not link to.
func unlistedPages(t tree) []string {
	var violations []string
	for _, contents := range t.pages {
		if contents.path != "docs/README.md" {
			continue
		}
		for _, p := range t.pages {
			if path.Dir(p.path) == "docs" && p.path != contents.path && !strings.Contains(contents.text, "("+path.Base(p.path)+")") {
				violations = append(violations, fmt.Sprintf("%s: %s does not link to it", p.path, contents.path))
			}
		}
	}
	return violations
}
