package embedded

import (
	"context"
	"fmt"
	"log/slog"
	"strings"

	"golang.org/x/time/rate"
)

// logger forwards the log of the NATS server to an slog.Logger. Its methods are safe for concurrent use.
type logger struct {
	out    *slog.Logger
	routes *rate.Sometimes
}

// Noticef logs routine events.
func (l logger) Noticef(format string, v ...any) { l.out.Debug(line(format, v)) }

// healthcheck begins the line that each failed call of Server.Ready causes. Ready returns the reason, and a stream that is
// just being created is one.
const healthcheck = "Healthcheck failed"

// Warnf logs events that may need attention.
func (l logger) Warnf(format string, v ...any) {
	level := slog.LevelWarn
	if strings.HasPrefix(format, healthcheck) {
		level = slog.LevelDebug
	}
	l.out.Log(context.Background(), level, line(format, v))
}

// Errorf logs errors. A route to an unreachable node is tried, and reported, several times a second; only a sample
// of these errors is logged.
func (l logger) Errorf(format string, v ...any) {
	if strings.HasPrefix(format, "Error trying to connect to route") {
		l.routes.Do(func() { l.out.Warn(line(format, v)) })
		return
	}
	l.out.Error(line(format, v))
}

// Fatalf logs errors that stop the server. It does not end the process: Start returns an error.
func (l logger) Fatalf(format string, v ...any) { l.out.Error(line(format, v)) }

// Debugf logs nothing: debug messages hold payloads.
func (l logger) Debugf(string, ...any) {}

// Tracef logs nothing.
func (l logger) Tracef(string, ...any) {}

func line(format string, v []any) string { return "NATS server: " + fmt.Sprintf(format, v...) }
