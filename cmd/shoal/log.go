package main

import (
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// logLines and logBytes bound the log lines that have not been written.
	logLines = 4096
	logBytes = 4 << 20
	// logFlush bounds the time for writing them when the process ends.
	logFlush = time.Second
)

// logWriter writes log lines in the background, so that a reader of the log that stands still or has gone stops
// nothing: lines that do not fit are dropped and counted. A write error drops the line too.
type logWriter struct {
	to      io.Writer
	lines   chan []byte
	bytes   atomic.Int64 // in lines
	dropped atomic.Uint64
	ended   chan struct{}
	// mu protects closed against Write; nothing blocks under it.
	mu     sync.RWMutex
	closed bool
	// report logs the number of lines that were dropped since the last call; nil: they are not reported.
	report func(lines uint64)
}

// newLineWriter returns a writer, which must be closed.
func newLineWriter(to io.Writer) *logWriter {
	return &logWriter{to: to, lines: make(chan []byte, logLines), ended: make(chan struct{})}
}

// newLog returns a logger with a format, whose level may change, and its writer, which must be closed.
func newLog(to io.Writer, level *slog.LevelVar, format string) (*slog.Logger, *logWriter) {
	w := newLineWriter(to)
	options := &slog.HandlerOptions{Level: level}
	var handler slog.Handler = slog.NewTextHandler(w, options)
	if format == "json" {
		handler = slog.NewJSONHandler(w, options)
	}
	logger := slog.New(handler)
	w.report = func(lines uint64) { logger.Warn("log lines dropped", "lines", lines) }
	go w.run()
	return logger, w
}

// Write queues a line. It does not block.
func (w *logWriter) Write(line []byte) (int, error) {
	w.mu.RLock()
	defer w.mu.RUnlock()
	size := int64(len(line))
	if w.closed || w.bytes.Add(size) > logBytes {
		w.bytes.Add(-size)
		w.dropped.Add(1)
		return len(line), nil
	}
	select {
	case w.lines <- append([]byte(nil), line...):
	default:
		w.bytes.Add(-size)
		w.dropped.Add(1)
	}
	return len(line), nil
}

func (w *logWriter) run() {
	defer close(w.ended)
	reported := uint64(0)
	for line := range w.lines {
		w.bytes.Add(-int64(len(line)))
		if _, err := w.to.Write(line); err != nil {
			w.dropped.Add(1)
			continue
		}
		// The line of report goes through the queue, which has room if it is empty.
		if n := w.dropped.Load(); n > reported && len(w.lines) == 0 && w.report != nil {
			w.report(n - reported)
			reported = n
		}
	}
}

// close writes the lines that are left. It blocks until that is done, at most for logFlush: a write that hangs is left
// behind.
func (w *logWriter) close() {
	w.mu.Lock()
	if !w.closed {
		w.closed = true
		close(w.lines)
	}
	w.mu.Unlock()
	timer := time.NewTimer(logFlush)
	defer timer.Stop()
	select {
	case <-w.ended:
	case <-timer.C:
	}
}

// logLevel returns the level that a flag names.
func logLevel(name string) (level slog.Level) {
	if err := level.UnmarshalText([]byte(name)); err != nil {
		panic("the flag lets through a level that is none")
	}
	return level
}
