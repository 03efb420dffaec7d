package embedded

import (
	"fmt"
	"log/slog"
)

// logger brings what the server has to say to an slog.Logger. Its methods may be called from any number of
// goroutines.
type logger struct{ out *slog.Logger }

// Noticef logs what the server does in the normal course of things.
func (l logger) Noticef(format string, v ...any) { l.out.Info(line(format, v)) }

// Warnf logs what may need attention.
func (l logger) Warnf(format string, v ...any) { l.out.Warn(line(format, v)) }

// Errorf logs what went wrong.
func (l logger) Errorf(format string, v ...any) { l.out.Error(line(format, v)) }

// Fatalf logs what keeps the server from running. It does not end the process: Start returns an error.
func (l logger) Fatalf(format string, v ...any) { l.out.Error(line(format, v)) }

// Debugf and Tracef are not asked for, and would hold payloads.
func (l logger) Debugf(string, ...any) {}

// Tracef logs nothing.
func (l logger) Tracef(string, ...any) {}

func line(format string, v []any) string { return "NATS server: " + fmt.Sprintf(format, v...) }
