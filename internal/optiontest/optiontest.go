// Package optiontest checks that all options of this module follow one rule: 0 is the documented default, and a
// negative value switches a limit off where the comment says so, or is refused.
package optiontest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

// defaultStated matches a comment that states the default of 0.
var defaultStated = regexp.MustCompile(`\b0( or negative)?: |\(0: `)

// Check tries 0 and -1 in every numeric field of an options struct, whose declaration is in the Go file source. base
// are valid options; create returns the error of the function that takes them, and releases its result. A field
// that accepts -1 must explain negative values in its comment, and an error must name the field.
func Check[T any](t *testing.T, source string, base func() T, create func(T) error) {
	t.Helper()
	comments := fieldComments(t, source, reflect.TypeFor[T]().Name())
	kind := reflect.TypeFor[T]()
	checked := 0
	for i := range kind.NumField() {
		field := kind.Field(i)
		if !field.IsExported() || !(field.Type.Kind() >= reflect.Int && field.Type.Kind() <= reflect.Int64 ||
			field.Type.Kind() == reflect.Float64) {
			continue
		}
		checked++
		comment := comments[field.Name]
		if !defaultStated.MatchString(comment) {
			t.Errorf("%s: the comment does not state the default as \"0: …\": %q", field.Name, comment)
		}
		try := func(n int) error {
			o := base()
			v := reflect.ValueOf(&o).Elem().Field(i)
			v.Set(reflect.ValueOf(n).Convert(v.Type()))
			return create(o)
		}
		if err := try(0); err != nil {
			t.Errorf("%s: 0 is refused: %v", field.Name, err)
		}
		documented := strings.Contains(strings.ToLower(comment), "negative")
		switch err := try(-1); {
		case err == nil && !documented:
			t.Errorf("%s: -1 is accepted, but the comment does not say what negative values mean", field.Name)
		case err != nil && documented:
			t.Errorf("%s: -1 is refused, but the comment says what negative values mean: %v", field.Name, err)
		case err != nil && !strings.Contains(err.Error(), field.Name):
			t.Errorf("%s: the error of -1 does not name the field: %v", field.Name, err)
		}
	}
	if checked == 0 {
		t.Errorf("%s has no numeric field", kind)
	}
}

// fieldComments returns the comments of a struct's fields. A field without one shares that of the field above it.
func fieldComments(t *testing.T, source, name string) map[string]string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), source, nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	comments := map[string]string{}
	ast.Inspect(file, func(node ast.Node) bool {
		spec, ok := node.(*ast.TypeSpec)
		if !ok || spec.Name.Name != name {
			return true
		}
		body, ok := spec.Type.(*ast.StructType)
		if !ok {
			return true
		}
		above := ""
		for _, field := range body.Fields.List {
			if field.Doc != nil {
				above = strings.Join(strings.Fields(field.Doc.Text()), " ")
			}
			for _, ident := range field.Names {
				comments[ident.Name] = above
			}
		}
		return false
	})
	return comments
}
