package reload_test

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/shoal-go/shoal/internal/reload"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	// Contents alone distinguish two versions.
	if err := os.Chtimes(path, time.Unix(1, 0), time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
}

// parse concatenates the contents and fails for contents that begin with "bad".
func parse(contents [][]byte) (string, error) {
	text := string(bytes.Join(contents, []byte("+")))
	if strings.HasPrefix(text, "bad") {
		return "", errors.New("contents are bad")
	}
	return text, nil
}

func open(t *testing.T, log *bytes.Buffer, paths ...string) *reload.Files[string] {
	t.Helper()
	f, err := reload.New(reload.Options[string]{
		Name: "pair", Paths: paths, Parse: parse, Logger: slog.New(slog.NewTextHandler(log, nil)),
		Attrs: func(s string) []slog.Attr { return []slog.Attr{slog.Int("bytes", len(s))} },
	})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// Contents of the same size and modification time are noticed, of each of several files, a second later at the latest.
func TestFiles_ContentDecides(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")
		write(t, a, "a1")
		write(t, b, "\xef\xbb\xbfb1")
		var log bytes.Buffer
		f := open(t, &log, a, b)
		for _, step := range []struct{ path, text, want string }{
			{a, "a1", "a1+b1"}, {a, "a2", "a2+b1"}, {b, "b2", "a2+b2"}, {b, "b1", "a2+b1"},
		} {
			write(t, step.path, step.text)
			<-time.After(reload.Interval)
			if got := f.Current(); got != step.want {
				t.Errorf("got %q, want %q", got, step.want)
			}
		}
		if n := strings.Count(log.String(), "pair loaded"); n != 4 {
			t.Errorf("%d log lines, want 4:\n%s", n, &log)
		}
	})
}

// A read that fails keeps the value, is repeated each second, and is logged once a minute.
func TestFiles_FailureIsRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "a")
		write(t, path, "first")
		var log bytes.Buffer
		f := open(t, &log, path)
		write(t, path, "second")
		hidden := path + ".hidden"
		if err := os.Rename(path, hidden); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		for range 90 {
			<-time.After(reload.Interval)
			if got := f.Current(); got != "first" {
				t.Fatalf("got %q while the file is away", got)
			}
			if _, asOf, err := f.Refresh(reload.Interval); err == nil || !asOf.Equal(begin) {
				t.Fatalf("the value is as of %v, %v; want %v and an error", asOf, err, begin)
			}
		}
		if n := strings.Count(log.String(), "pair reload failed"); n != 2 {
			t.Errorf("%d warnings in 90 s, want 2:\n%s", n, &log)
		}
		if err := os.Rename(hidden, path); err != nil { // neither time nor size changes
			t.Fatal(err)
		}
		<-time.After(reload.Interval)
		if got := f.Current(); got != "second" {
			t.Errorf("got %q, want the contents that could not be read before", got)
		}
		if _, asOf, err := f.Refresh(reload.Interval); err != nil || !asOf.Equal(time.Now()) {
			t.Errorf("the value is as of %v, %v; want now", asOf, err)
		}
		write(t, path, "bad")
		<-time.After(reload.Interval)
		if got := f.Current(); got != "second" || !strings.Contains(log.String(), "contents are bad") {
			t.Errorf("got %q, want the last good value and a warning:\n%s", got, &log)
		}
	})
}

func TestNew_FailsWithTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	write(t, path, "too large")
	for name, o := range map[string]reload.Options[string]{
		"missing":   {Paths: []string{path + ".missing"}, Parse: parse},
		"too large": {Paths: []string{path}, Parse: parse, MaxBytes: 3},
	} {
		if _, err := reload.New(o); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: error %v, want one that names the file", name, err)
		}
	}
}
