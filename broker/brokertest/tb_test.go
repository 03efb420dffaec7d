package brokertest

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// fakeTB is a test that may fail: it notes failures instead of failing the test that it is part of.
type fakeTB struct {
	testing.TB
	mu       sync.Mutex
	failures []string
	cleanups []func()
}

// failuresOf returns the failures of a test of the suite.
func failuresOf(t testing.TB, c Config, try func(*suite)) string {
	r := &fakeTB{TB: t}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer func() {
			for len(r.cleanups) > 0 {
				last := r.cleanups[len(r.cleanups)-1]
				r.cleanups = r.cleanups[:len(r.cleanups)-1]
				last()
			}
		}()
		try(newSuite(r, c))
	}()
	<-ended
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.failures, "\n")
}

func (r *fakeTB) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures = append(r.failures, fmt.Sprintf(format, args...))
}

func (r *fakeTB) Failed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.failures) > 0
}

func (r *fakeTB) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	r.FailNow()
}

func (r *fakeTB) FailNow()          { runtime.Goexit() }
func (r *fakeTB) Cleanup(fn func()) { r.cleanups = append(r.cleanups, fn) }
