package rules

import (
	"fmt"
	"go/ast"
	"regexp"
	"slices"
	"strings"
)

// publicFolders are the folders of the packages that programs import.
func publicFolders() []string {
	return []string{
		"shard", "manager", "manager/managertest", "manager/outqueue", "client", "server", "server/jwtauth",
		"server/shoalprom", "server/shoaltrace", "broker", "broker/natsbroker", "broker/natsbroker/embedded",
		"broker/redisbroker",
	}
}

// A comment says about errors, or about blocking, with one of these words.
var (
	errorWords = regexp.MustCompile(`\b[Ee]rrors?\b|\b[Ff]ails?\b|\bErr[A-Z]|\w+Error\b|\bnil\b`)
	blockWords = regexp.MustCompile(`\b[Bb]locks?\b|\bctx\b|\bcontext\b|\bwaits?\b|\bat once\b`)
)

// undocumentedResults reports exported functions and methods of public packages that return an error, or take a context,
// and whose comment says nothing about errors, or about blocking. A method may leave that to the comment of its type, or
// implement an interface that it names.
func undocumentedResults(t tree) []string {
	types := map[string]string{} // comments, by folder and name
	for _, f := range t.files {
		eachType(f, func(spec *ast.TypeSpec, doc string) { types[f.dir()+"."+spec.Name.Name] = doc })
	}
	var violations []string
	for _, f := range t.files {
		if f.isTest() || !slices.Contains(publicFolders(), f.dir()) {
			continue
		}
		check := func(name *ast.Ident, owner string, signature *ast.FuncType, doc string) {
			if !name.IsExported() || owner != "" && !ast.IsExported(owner) || strings.Contains(doc, name.Name+" implements ") {
				return
			}
			if slices.Contains([]string{"Error", "Unwrap"}, name.Name) && owner != "" {
				return // of an error
			}
			said := doc + types[f.dir()+"."+owner]
			if has(signature.Results, "error") && !errorWords.MatchString(said) {
				violations = append(violations, fmt.Sprintf("%s:%d: the comment of %s does not say about its error", f.path, f.line(name.Pos()), name.Name))
			}
			if has(signature.Params, "context.Context") && !blockWords.MatchString(said) {
				violations = append(violations, fmt.Sprintf("%s:%d: the comment of %s does not say whether it blocks", f.path, f.line(name.Pos()), name.Name))
			}
		}
		for _, declaration := range f.syntax.Decls {
			if d, ok := declaration.(*ast.FuncDecl); ok {
				check(d.Name, receiver(d), d.Type, d.Doc.Text())
			}
		}
		eachType(f, func(spec *ast.TypeSpec, doc string) {
			switch kind := spec.Type.(type) {
			case *ast.FuncType:
				check(spec.Name, "", kind, doc)
			case *ast.InterfaceType:
				for _, method := range kind.Methods.List {
					if signature, ok := method.Type.(*ast.FuncType); ok {
						check(method.Names[0], spec.Name.Name, signature, method.Doc.Text())
					}
				}
			}
		})
	}
	return violations
}

// eachType calls do for each type that a file declares, with its comment.
func eachType(f file, do func(spec *ast.TypeSpec, doc string)) {
	for _, declaration := range f.syntax.Decls {
		d, ok := declaration.(*ast.GenDecl)
		if !ok {
			continue
		}
		for _, spec := range d.Specs {
			if s, ok := spec.(*ast.TypeSpec); ok {
				doc, _ := documentation(d, s)
				do(s, doc.Text())
			}
		}
	}
}

// receiver returns the name of the type that a method belongs to, "" for a function.
func receiver(d *ast.FuncDecl) string {
	if d.Recv == nil {
		return ""
	}
	kind := d.Recv.List[0].Type
	for {
		switch k := kind.(type) {
		case *ast.StarExpr:
			kind = k.X
		case *ast.IndexExpr:
			kind = k.X
		case *ast.IndexListExpr:
			kind = k.X
		case *ast.Ident:
			return k.Name
		default:
			return ""
		}
	}
}

// has reports whether one of the parameters or results is of a type.
func has(fields *ast.FieldList, kind string) bool {
	if fields == nil {
		return false
	}
	return slices.ContainsFunc(fields.List, func(field *ast.Field) bool {
		switch k := field.Type.(type) {
		case *ast.Ident:
			return k.Name == kind
		case *ast.SelectorExpr:
			qualifier, ok := k.X.(*ast.Ident)
			return ok && qualifier.Name+"."+k.Sel.Name == kind
		default:
			return false
		}
	})
}
