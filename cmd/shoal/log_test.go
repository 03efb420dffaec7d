package main

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
)

// gate is a reader of the log that stands still until it is opened.
type gate struct {
	open chan struct{}
	mu   sync.Mutex
	text bytes.Buffer
	err  error
}

func (g *gate) Write(p []byte) (int, error) {
	<-g.open
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.err != nil {
		return 0, g.err
	}
	return g.text.Write(p)
}

func (g *gate) String() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.text.String()
}

// A stalled reader delays no request. Dropped lines are counted, and a line in the log says how many.
func TestLog_ReaderThatStandsStill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gate{open: make(chan struct{})}
		logger, w := newLog(g, new(slog.LevelVar), "text")
		const lines = 3 * logLines
		for i := range lines {
			logger.Info("line", "n", i)
		}
		synctest.Wait()
		dropped := w.dropped.Load()
		if dropped < lines-logLines-1 || dropped > lines {
			t.Errorf("%d lines were dropped", dropped)
		}
		close(g.open)
		synctest.Wait()
		logger.Info("after")
		w.close()
		text := g.String()
		if !strings.Contains(text, `msg="log lines dropped" lines=`) || !strings.Contains(text, "msg=after") ||
			!strings.Contains(text, "n=0\n") {
			t.Errorf("the log ends with %q", text[max(0, len(text)-300):])
		}
	})
}

func TestLog_BytesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gate{open: make(chan struct{})}
		logger, w := newLog(g, new(slog.LevelVar), "json")
		for range 100 {
			logger.Info(strings.Repeat("x", 64<<10))
		}
		if w.bytes.Load() > logBytes || w.dropped.Load() == 0 {
			t.Errorf("%d bytes wait, %d lines were dropped", w.bytes.Load(), w.dropped.Load())
		}
		close(g.open)
		w.close()
	})
}

// A reader that has gone costs its lines only.
func TestLog_ReaderThatHasGone(t *testing.T) {
	g := &gate{open: make(chan struct{}), err: errors.New("broken pipe")}
	close(g.open)
	logger, w := newLog(g, new(slog.LevelVar), "text")
	logger.Info("lost")
	w.close()
	logger.Info("after the end")
	if w.dropped.Load() != 2 {
		t.Errorf("%d lines were dropped", w.dropped.Load())
	}
}

// The end does not wait for a reader that stands still for long.
func TestLog_EndDoesNotWait(t *testing.T) {
	reader, writer := io.Pipe()
	logger, w := newLog(writer, new(slog.LevelVar), "text")
	logger.Info("nobody reads this")
	w.close()
	reader.Close() // ends the goroutine
	<-w.ended
}
