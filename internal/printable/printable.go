// Package printable makes the text of another program safe for a terminal, a log or an error.
package printable

import (
	"strings"
	"unicode"
)

// Text replaces the characters of a text that cannot be printed, and bytes that are no UTF-8, by spaces.
func Text(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) && r != unicode.ReplacementChar {
			return r
		}
		return ' '
	}, text)
}

// Beginning is Text of at most the first n bytes.
func Beginning(text string, n int) string { return Text(text[:min(len(text), n)]) }
