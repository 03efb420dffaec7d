// Package logs limits the rate of log lines that clients and services can cause.
package logs

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// Sampled bounds the log lines of one kind of event that clients or a broken service can cause at any rate: one line
// per interval, which says how many it stands for. The zero value logs one line per second.
type Sampled struct {
	// Interval is the minimum time between two lines. 0: one second.
	Interval time.Duration

	mu         sync.Mutex // protects the fields below; the logger is called without it
	last       time.Time
	suppressed uint64
}

// Log writes a line, or counts it for the next one.
func (l *Sampled) Log(logger *slog.Logger, level slog.Level, message string, attrs ...any) {
	interval := l.Interval
	if interval == 0 {
		interval = time.Second
	}
	now := time.Now()
	l.mu.Lock()
	if !l.last.IsZero() && now.Sub(l.last) < interval {
		l.suppressed++
		l.mu.Unlock()
		return
	}
	suppressed := l.suppressed
	l.last, l.suppressed = now, 0
	l.mu.Unlock()
	if suppressed > 0 {
		attrs = append(attrs, "suppressed", suppressed)
	}
	logger.Log(context.Background(), level, message, attrs...)
}

// Truncate returns the beginning of a text of an outsider, short enough for a log line or an error.
func Truncate(s string) string {
	const most = 256
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
