// Package rules holds no code that anything imports: its tests enforce what the compiler does not, the
// direction of imports, the layout of the repository and the manners of its tests. The linters know the
// direction too; here it holds wherever the tests run, without a linter at hand.
package rules
