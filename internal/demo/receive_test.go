package demo

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/shoal-go/shoal/manager"
)

func TestBody_EachReadHasDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var deadlines []time.Duration
		begun := time.Now()
		b := &bodyReader{demo: &Demo{}, body: iotest.OneByteReader(strings.NewReader("ab")), deadline: func(at time.Time) error {
			deadlines = append(deadlines, at.Sub(begun))
			return http.ErrNotSupported // a server without deadlines is read all the same
		}}
		for range 2 {
			if n, err := b.Read(make([]byte, 8)); n != 1 || err != nil {
				t.Fatalf("read %d bytes, %v", n, err)
			}
			<-time.After(time.Second)
		}
		if want := []time.Duration{bodyPatience, bodyPatience + time.Second}; fmt.Sprint(deadlines) != fmt.Sprint(want) {
			t.Errorf("the deadlines were %v, want %v", deadlines, want)
		}
	})
}

func TestBody_NotReadAfterClose(t *testing.T) {
	d := &Demo{}
	d.Close()
	b := &bodyReader{demo: d, body: strings.NewReader("ab"), deadline: func(time.Time) error { return nil }}
	if n, err := b.Read(make([]byte, 8)); n != 0 || err == nil || b.err == nil {
		t.Errorf("read %d bytes, %v, want an error that is kept", n, err)
	}
}

func TestStore_DifferingCopyIsFound(t *testing.T) {
	m, err := manager.New(manager.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Close(t.Context()) }()
	file, err := newTempFile(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer file.discard()
	if _, err := file.WriteString("stored"); err != nil {
		t.Fatal(err)
	}
	d := &Demo{}
	for content, want := range map[string]bool{"stored": true, "change": false} {
		failed := d.audit(file, m.Progress("u"), received{6, sha256.Sum256([]byte(content))})
		if (failed == nil) != want {
			t.Errorf("the audit of %q that is stored as %q found %+v", content, "stored", failed)
		}
	}
}

func TestStore_TempFileIsRemoved(t *testing.T) {
	for _, unlinked := range []bool{true, false} { // as on systems that keep the name of an open file
		dir := t.TempDir()
		file, err := newTempFile(dir)
		if err != nil {
			t.Fatal(err)
		}
		if !unlinked {
			file.discard()
			named, err := os.Create(file.Name())
			if err != nil {
				t.Fatal(err)
			}
			file = &tempFile{named, false}
		}
		file.discard()
		wantEmpty(t, dir)
		if _, err := file.WriteString("x"); !errors.Is(err, os.ErrClosed) {
			t.Errorf("the file is still open: %v", err)
		}
	}
}

func TestBody_ErrorsAreReported(t *testing.T) {
	d := &Demo{maxBytes: 1}
	for status, err := range map[int]error{
		http.StatusRequestTimeout:        fmt.Errorf("read: %w", os.ErrDeadlineExceeded),
		http.StatusRequestEntityTooLarge: &http.MaxBytesError{Limit: 1},
		http.StatusBadRequest:            errors.New("read tcp 127.0.0.1:8080: connection reset"),
	} {
		if got := d.bodyFailure(err, 5); got.status != status || strings.Contains(got.text, "127.0.0.1") || got.cause != nil {
			t.Errorf("%v became %+v, want status %d, in plain words", err, got, status)
		}
	}
}

func TestDisplayName(t *testing.T) {
	for name, want := range map[string]string{
		"cat.png":                  "cat.png",
		"../../etc/passwd":         "passwd",
		`C:\Users\me\cat.png`:      "cat.png",
		"":                         "a file",
		"/":                        "a file",
		"..":                       "..",
		"a\x00b\nc\u202e.txt":      "abc.txt",
		"kat\xffze":                "kat\uFFFDze",
		strings.Repeat("ä", 81):    strings.Repeat("ä", 79) + "…",
		"\u0001\u0002":             "a file",
		"grüße an die welt 猫.jpeg": "grüße an die welt 猫.jpeg",
	} {
		if got := displayName(name); got != want {
			t.Errorf("displayName(%q) is %q, want %q", name, got, want)
		}
	}
}

func TestFormatBytes(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 bytes", 1023: "1023 bytes", 1024: "1 KiB", 1536: "1.5 KiB", 1<<20 - 1: "1 MiB", 1 << 30: "1 GiB",
		1<<63 - 1: "8 EiB",
	} {
		if got := formatBytes(n); got != want {
			t.Errorf("formatBytes(%d) is %q, want %q", n, got, want)
		}
	}
}
