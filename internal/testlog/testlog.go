// Package testlog has a log that a test reads while the tested code writes it.
package testlog

import (
	"bytes"
	"strings"
	"sync"
)

// Buffer is the log. Its methods may be called from any goroutine.
type Buffer struct {
	mu   sync.Mutex // protects text
	text bytes.Buffer
}

// Write adds lines.
func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

// String returns everything written so far.
func (b *Buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// Count returns how often a text occurs in everything written so far.
func (b *Buffer) Count(text string) int { return strings.Count(b.String(), text) }
