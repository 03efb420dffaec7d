// Package rules contains only tests. They enforce the rules of this repository that the linters do not: its layout,
// the length of its files, package comments, and tests that neither sleep, skip themselves nor leak goroutines. The
// direction of imports is enforced by depguard, see .golangci.yml.
package rules
