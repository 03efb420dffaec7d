package server

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// sampledLog bounds the log lines of one kind of event that clients or a broken service can cause at any rate: one
// line per interval, which says how many it stands for. The zero value logs one line per second.
type sampledLog struct {
	// interval is the minimum time between two lines. 0: one second.
	interval time.Duration

	mu         sync.Mutex // protects the fields below; the logger is called without it
	last       time.Time
	suppressed uint64
}

// log writes a line, or counts it for the next one.
func (l *sampledLog) log(logger *slog.Logger, level slog.Level, message string, attrs ...any) {
	interval := l.interval
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

// sampledLogs are the bounded log lines of a server, by the kind of event.
type sampledLogs struct {
	origin, identify, authenticate, refusedToken, authorize, forbidden sampledLog
	hijack, panics, accept, closeCode                                  sampledLog
}
