package rules

import (
	"go/ast"
	"slices"
)

// sleepingTests reports tests that call time.Sleep: such tests are slow on an idle machine and fail on a busy one. In a
// synctest bubble, where time is simulated, they receive from time.After instead.
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

// skippingTests reports tests that can skip themselves: a skipped test looks like a passed one.
func skippingTests(t tree) []string {
	return eachTestFile(t, func(f file) string {
		skips := false
		ast.Inspect(f.syntax, func(node ast.Node) bool {
			call, ok := node.(*ast.CallExpr)
			skips = skips || ok && skipsTest(call)
			return true
		})
		if skips {
			return "must not skip: a test with an unmet requirement fails and names it"
		}
		return ""
	})
}

// skipsTest reports whether the call skips a test through a parameter of the enclosing function whose type is in
// package testing. Other types have a Skip method too, so the parameter's type is checked.
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

// testsWithoutLeakCheck reports packages whose tests do not check for leaked goroutines.
func testsWithoutLeakCheck(t tree) []string {
	var folders, violations []string
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
			violations = append(violations, folder+": its tests need a TestMain that calls goleak.VerifyTestMain(m)")
		}
	}
	return violations
}

// verifiesLeaks reports whether the file has a TestMain that calls goleak.VerifyTestMain.
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

// eachTestFile calls check for each test file and returns the violations; "" means none.
func eachTestFile(t tree, check func(file) string) []string {
	var violations []string
	for _, f := range t.files {
		if !f.isTest() || f.generated() {
			continue
		}
		if violation := check(f); violation != "" {
			violations = append(violations, f.path+": "+violation)
		}
	}
	return violations
}
