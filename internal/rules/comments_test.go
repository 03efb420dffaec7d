package rules

import (
	"fmt"
	"go/ast"
	"slices"
	"strings"
	"unicode"
)

// misnamedComments reports comments of declarations whose first word is not a declared name, so that no comment stays with
// another declaration than its own after a name was changed or code was moved. A comment in a group that heads several
// lines is exempt. The comment of a test states a property: it may begin with any word but the name of another test.
func misnamedComments(t tree) []string {
	var violations []string
	for _, f := range t.files {
		if f.generated() {
			continue
		}
		check := func(doc *ast.CommentGroup, names ...*ast.Ident) {
			word := firstWord(doc)
			named := func(name *ast.Ident) bool { return name.Name == word }
			if word != "" && !slices.ContainsFunc(names, named) {
				violations = append(violations,
					fmt.Sprintf("%s:%d: the comment of %s begins with %q", f.path, f.line(doc.Pos()), names[0].Name, word))
			}
		}
		for _, declaration := range f.syntax.Decls {
			switch d := declaration.(type) {
			case *ast.FuncDecl:
				if !f.isTest() || !namesTest(d.Name.Name) || namesTest(firstWord(d.Doc)) {
					check(d.Doc, d.Name)
				}
			case *ast.GenDecl:
				for i, spec := range d.Specs {
					if doc, names := documentation(d, spec); !f.heads(d.Specs[i:]) {
						check(doc, names...)
					}
				}
			}
		}
	}
	return violations
}

// documentation returns the comment of a type, or of constants or variables, and their names.
func documentation(d *ast.GenDecl, spec ast.Spec) (doc *ast.CommentGroup, names []*ast.Ident) {
	switch s := spec.(type) {
	case *ast.TypeSpec:
		doc, names = s.Doc, []*ast.Ident{s.Name}
	case *ast.ValueSpec:
		doc, names = s.Doc, s.Names
	}
	if !d.Lparen.IsValid() {
		doc = d.Doc
	}
	return doc, names
}

// heads reports whether the comment of the first of the specs is that of the second too: it has none, and is on the
// next line.
func (f file) heads(specs []ast.Spec) bool {
	return len(specs) > 1 && f.line(specs[1].Pos()) == f.line(specs[0].End())+1
}

// namesTest reports whether a word is the name of a function that the go command runs as a test.
func namesTest(word string) bool {
	for _, kind := range []string{"Test", "Fuzz", "Benchmark", "Example"} {
		if rest, ok := strings.CutPrefix(word, kind); ok && rest != "" && !unicode.IsLower(rune(rest[0])) {
			return true
		}
	}
	return word == "Example"
}

// firstWord returns the first word of a comment behind an article, without the punctuation that follows it; "" for a
// comment without text, such as a directive.
func firstWord(doc *ast.CommentGroup) string {
	words := strings.Fields(doc.Text())
	if len(words) > 1 && slices.Contains([]string{"A", "An", "The"}, words[0]) {
		words = words[1:]
	}
	if len(words) == 0 {
		return ""
	}
	inName := func(r rune) bool { return r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r) }
	return words[0][:len(words[0])-len(strings.TrimLeftFunc(words[0], inName))]
}
