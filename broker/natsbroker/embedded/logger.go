package embedded

import (
	"fmt"
	"log/slog"
	"strings"

	"golang.org/x/time/rate"
)

// logger brings what the server has to say to an slog.Logger. Its methods may be called from any number of
// goroutines.
type logger struct {
	out    *slog.Logger
	routes *rate.Sometimes
}

// Noticef logs what the server does in the normal course of things, which is of interest only to who looks for
// a fault.
func (l logger) Noticef(format string, v ...any) { l.out.Debug(line(format, v)) }

// Warnf logs what may need attention.
func (l logger) Warnf(format string, v ...any) { l.out.Warn(line(format, v)) }

// Errorf logs what went wrong. A route to a node that is away is tried several times a second, and says so each
// time: now and then is enough.
func (l logger) Errorf(format string, v ...any) {
	if strings.HasPrefix(format, "Error trying to connect to route") {
		l.routes.Do(func() { l.out.Warn(line(format, v)) })
		return
	}
	l.out.Error(line(format, v))
}

// Fatalf logs what keeps the server from running. It does not end the process: Start returns an error.
func (l logger) Fatalf(format string, v ...any) { l.out.Error(line(format, v)) }

// Debugf and Tracef are not asked for, and would hold payloads.
func (l logger) Debugf(string, ...any) {}

// Tracef logs nothing.
func (l logger) Tracef(string, ...any) {}

func line(format string, v []any) string { return "NATS server: " + fmt.Sprintf(format, v...) }
