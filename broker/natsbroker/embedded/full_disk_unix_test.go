//go:build unix

package embedded_test

import (
	"errors"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shoal-go/shoal/broker/natsbroker"
	"github.com/shoal-go/shoal/broker/natsbroker/embedded"
)

// limitFiles bounds the size of the files that this process writes until the test ends. Writing beyond it fails as on a
// full disk, without the rights that a small file system needs.
func limitFiles(t *testing.T, bytes uint64) {
	t.Helper()
	signal.Ignore(syscall.SIGXFSZ)
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
			t.Error(err)
		}
		signal.Reset(syscall.SIGXFSZ)
	})
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: bytes, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
}

// TestServer_FullDiskIsNamed: when a write to the folder of the messages fails, storing fails, the server lives, and
// Ready names the file and the remedy.
func TestServer_FullDiskIsNamed(t *testing.T) {
	s := start(t, embedded.Options{StoreDir: t.TempDir()})
	n := join(t, natsbroker.Options{Server: s, File: true, CallTimeout: time.Second})
	n.awaitHealthy(t)
	limitFiles(t, 256<<10)
	var failed error
	for i := 0; failed == nil && i < 100; i++ {
		_, failed = n.Store(t.Context(), "upload:a", []byte(strings.Repeat("x", 60<<10)))
	}
	if failed == nil {
		t.Fatal("6 MB are stored in 256 KiB")
	}
	var err error
	for deadline := time.After(patience); !errors.Is(err, embedded.ErrCannotStore); {
		select {
		case <-deadline:
			t.Fatalf("Ready returns %v after %v", err, failed)
		case <-time.After(10 * time.Millisecond):
			err = s.Ready()
		}
	}
	if !strings.Contains(err.Error(), "msgs") {
		t.Errorf("the error does not name the file: %v", err)
	}
}
