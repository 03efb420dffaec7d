// Package reload keeps a value that is parsed from files up to date with these files: keys, certificates,
// configuration that another process replaces while this one runs.
package reload

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"
)

const (
	// Interval is the minimum time between two reads of the same files.
	Interval = time.Second
	// patience bounds the wait for a read. A read of a network file system whose server is away does not end.
	patience = time.Second
	// warnInterval is the minimum time between two log lines about the same files.
	warnInterval = time.Minute
	// defaultMaxBytes is the default of Options.MaxBytes.
	defaultMaxBytes = 1 << 20
)

// Options configure Files.
type Options[T any] struct {
	// Name names the value in log lines and errors, for example "certificate".
	Name string
	// Paths are the files.
	Paths []string
	// MaxBytes bounds each file. 0: 1 MiB.
	MaxBytes int64
	// Parse returns the value for the contents of the files, in the order of Paths and without a byte order mark.
	// It must not keep the contents.
	Parse func(contents [][]byte) (T, error)
	// Attrs returns attributes of a value that was read, for the log. nil: none.
	Attrs func(T) []slog.Attr
	// Logger gets one line at info for each value that was read and at most one warning per minute while reading
	// fails. nil: nothing is logged.
	Logger *slog.Logger
}

// Files holds the value of one or more files. Current and Refresh may be called from any number of goroutines. Current
// reads the files at most once per second, so Files needs no Close. A read has a goroutine of its own: while it hangs,
// callers get the current value, and no other read begins.
type Files[T any] struct {
	opt Options[T]

	// mu protects the fields below. It is not held while files are read.
	mu       sync.Mutex
	value    T
	identity [sha256.Size]byte // of the contents that value was parsed from
	asOf     time.Time         // when the last read that has succeeded began
	readAt   time.Time         // when the last read that has ended began
	readErr  error             // of the last read that has ended
	warnedAt time.Time
	reading  *reading // nil: no read is under way
}

// reading is a read that is under way.
type reading struct {
	began time.Time
	ended chan struct{}
}

// errSlow is the error of a read that has not ended within patience.
var errSlow = fmt.Errorf("reading takes more than %v", patience)

// New reads the files and returns their Files, or an error if they cannot be read or parsed.
func New[T any](opt Options[T]) (*Files[T], error) {
	opt.MaxBytes = cmp.Or(opt.MaxBytes, defaultMaxBytes)
	opt.Logger = cmp.Or(opt.Logger, slog.New(slog.DiscardHandler))
	now := time.Now()
	f := &Files[T]{opt: opt, asOf: now, readAt: now}
	if err := f.read(); err != nil {
		return nil, err
	}
	return f, nil
}

// Current returns the value of the files: the newest one that could be read and parsed.
func (f *Files[T]) Current() T {
	value, _, _ := f.Refresh(Interval)
	return value
}

// Reload reads the files again. If they cannot be read, the log says so, and the value stays.
func (f *Files[T]) Reload() { _, _, _ = f.Refresh(0) }

// Refresh is like Current for a caller that needs the files as they were at most maxAge ago. It waits for a read only
// until the read has taken a second. The value is that of the files at the time asOf or later; with an error, that is
// longer ago than maxAge, because the files cannot be read now.
func (f *Files[T]) Refresh(maxAge time.Duration) (value T, asOf time.Time, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	since := time.Now().Add(-maxAge)
	for own := false; !own && !f.readAt.After(since); {
		if own = f.reading == nil; own {
			f.beginLocked()
		}
		if !f.awaitLocked(f.reading) {
			f.warnLocked(errSlow)
			return f.value, f.asOf, errSlow
		}
	}
	return f.value, f.asOf, f.readErr
}

// beginLocked begins a read.
func (f *Files[T]) beginLocked() {
	r := &reading{began: time.Now(), ended: make(chan struct{})}
	f.reading = r
	go func() {
		defer close(r.ended)
		err := f.read()
		f.mu.Lock()
		defer f.mu.Unlock()
		f.reading, f.readAt, f.readErr = nil, r.began, err
		if err != nil {
			f.warnLocked(err)
			return
		}
		f.asOf = r.began
	}()
}

// awaitLocked waits for the end of a read, and reports false if that takes longer than patience since its beginning. It
// releases mu while it waits.
func (f *Files[T]) awaitLocked(r *reading) bool {
	f.mu.Unlock()
	defer f.mu.Lock()
	left := time.NewTimer(patience - time.Since(r.began))
	defer left.Stop()
	select {
	case <-r.ended:
		return true
	case <-left.C:
		return false
	}
}

// warnLocked logs that the files could not be read.
func (f *Files[T]) warnLocked(err error) {
	now := time.Now()
	if f.warnedAt.IsZero() || now.Sub(f.warnedAt) >= warnInterval {
		f.warnedAt = now
		f.opt.Logger.Warn(f.opt.Name+" reload failed, keeping the current one", "files", f.opt.Paths, "error", err)
	}
}

// read reads the files and parses them if their contents differ from those of the current value. Files are compared by
// content because modification time and size can be equal for different contents. The identity is stored after parsing
// has succeeded, so that a failure is retried. Only one goroutine at a time may call it.
func (f *Files[T]) read() error {
	contents := make([][]byte, len(f.opt.Paths))
	identity := sha256.New()
	for i, path := range f.opt.Paths {
		text, err := readFile(path, f.opt.MaxBytes)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(text)
		identity.Write(sum[:])
		contents[i] = TrimBOM(text)
	}
	current := [sha256.Size]byte(identity.Sum(nil))
	if current == f.identity { // only the goroutine that reads changes it
		f.store(f.value, current)
		return nil
	}
	value, err := f.opt.Parse(contents)
	if err != nil {
		return err
	}
	attrs := []slog.Attr{slog.Any("files", f.opt.Paths)}
	if f.opt.Attrs != nil {
		attrs = append(attrs, f.opt.Attrs(value)...)
	}
	f.opt.Logger.LogAttrs(context.Background(), slog.LevelInfo, f.opt.Name+" loaded", attrs...)
	f.store(value, current)
	return nil
}

// store stores the result of a read that has succeeded.
func (f *Files[T]) store(value T, identity [sha256.Size]byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.value, f.identity, f.warnedAt = value, identity, time.Time{}
}

func readFile(path string, maxBytes int64) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(file, maxBytes+1))
	if err := errors.Join(err, file.Close()); err != nil {
		return nil, err
	}
	if int64(len(text)) > maxBytes {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, maxBytes)
	}
	return text, nil
}

// TrimBOM returns a document without the UTF-8 byte order mark at its beginning, if there is one.
func TrimBOM(document []byte) []byte { return bytes.TrimPrefix(document, []byte("\xef\xbb\xbf")) }
