// Package rules contains only tests. They enforce the rules of this repository that the linters do not: its layout,
// the direction of imports, the length of files and lines, the contents of comments, names in pages, and tests that
// neither sleep, skip themselves nor leak goroutines.
package rules
