package rules

import (
	"go/ast"
	"slices"
)

// sleepingTests complains of tests that sleep: they are slow where all is well and fail where a machine is
// busy. In a synctest bubble, where the clock moves by itself, they receive from time.After instead.
func sleepingTests(t tree) []string {
	return eachTestFile(t, func(f file) string {
		sleeps := false
		ast.Inspect(f.syntax, func(node ast.Node) bool {
			call, ok := node.(*ast.CallExpr)
			sleeps = sleeps || ok && f.calls(call, "time", "Sleep")
			return true
		})
		if sleeps {
			return "must not call time.Sleep: wait for a condition, or in a synctest bubble receive from time.After"
		}
		return ""
	})
}

// skippingTests complains of tests that can skip themselves: what is skipped is not tested, and nobody sees it.
func skippingTests(t tree) []string {
	return eachTestFile(t, func(f file) string {
		skips := false
		ast.Inspect(f.syntax, func(node ast.Node) bool {
			call, ok := node.(*ast.CallExpr)
			skips = skips || ok && skipsTest(call)
			return true
		})
		if skips {
			return "must not skip: a test that lacks something fails and says what"
		}
		return ""
	})
}

// skipsTest reports whether the call skips the test whose *testing.T, or the like, the enclosing function
// was given. Other types have a Skip as well, so the parameter's type decides.
func skipsTest(call *ast.CallExpr) bool {
	selector, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || !slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, selector.Sel.Name) {
		return false
	}
	receiver, ok := selector.X.(*ast.Ident)
	if !ok || receiver.Obj == nil {
		return false
	}
	parameter, ok := receiver.Obj.Decl.(*ast.Field)
	if !ok {
		return false
	}
	kind := parameter.Type
	if pointer, ok := kind.(*ast.StarExpr); ok {
		kind = pointer.X
	}
	qualified, ok := kind.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	qualifier, ok := qualified.X.(*ast.Ident)
	return ok && qualifier.Name == "testing"
}

// leakBlindTests complains of packages whose tests do not look for goroutines left behind.
func leakBlindTests(t tree) []string {
	var folders, complaints []string
	watched := map[string]bool{}
	for _, f := range t.files {
		if !f.isTest() {
			continue
		}
		if !slices.Contains(folders, f.dir()) {
			folders = append(folders, f.dir())
		}
		watched[f.dir()] = watched[f.dir()] || verifiesLeaks(f)
	}
	for _, folder := range folders {
		if !watched[folder] {
			complaints = append(complaints, folder+": its tests need a TestMain that calls goleak.VerifyTestMain(m)")
		}
	}
	return complaints
}

// verifiesLeaks reports whether the file holds a TestMain that looks for leaked goroutines.
func verifiesLeaks(f file) bool {
	found := false
	for _, declaration := range f.syntax.Decls {
		function, ok := declaration.(*ast.FuncDecl)
		if !ok || function.Name.Name != "TestMain" {
			continue
		}
		ast.Inspect(function, func(node ast.Node) bool {
			call, ok := node.(*ast.CallExpr)
			found = found || ok && f.calls(call, "go.uber.org/goleak", "VerifyTestMain")
			return true
		})
	}
	return found
}

// eachTestFile collects what complain has to say of each test file; "" is nothing.
func eachTestFile(t tree, complain func(file) string) []string {
	var complaints []string
	for _, f := range t.files {
		if !f.isTest() || f.generated() {
			continue
		}
		if complaint := complain(f); complaint != "" {
			complaints = append(complaints, f.path+": "+complaint)
		}
	}
	return complaints
}
