//go:build unix

package reload_test

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// tooLong bounds a test that would otherwise never end.
const tooLong = time.Minute

// A read that does not end, as of a network file system whose server is away, keeps no caller from the current value,
// and is logged. When it ends, its value is used.
func TestFiles_ReadThatHangsLeavesTheCurrentValue(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	write(t, path, "first")
	var log bytes.Buffer
	f := open(t, &log, path)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(path, 0o600); err != nil { // it cannot be opened until it has a writer
		t.Fatal(err)
	}
	values := make(chan string, 3)
	for range cap(values) {
		go func() {
			value, _, _ := f.Refresh(0)
			values <- value
		}()
	}
	for range cap(values) {
		select {
		case got := <-values:
			if got != "first" {
				t.Errorf("got %q while a read hangs", got)
			}
		case <-time.After(tooLong):
			t.Fatal("a caller waits for the read")
		}
	}
	if got, _, err := f.Refresh(0); got != "first" || err == nil || strings.Count(log.String(), "pair reload failed") != 1 {
		t.Errorf("got %q, want the current value and one warning:\n%s", got, &log)
	}
	fifo, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fifo.WriteString("second"); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	write(t, path, "next")
	if err := fifo.Close(); err != nil {
		t.Fatal(err)
	}
	for got := ""; got != "next"; got, _, _ = f.Refresh(0) { // the read that hangs is not waited for
		runtime.Gosched()
	}
	if !strings.Contains(log.String(), "bytes=6") {
		t.Errorf("the value of the read that hung was not used:\n%s", &log)
	}
}
