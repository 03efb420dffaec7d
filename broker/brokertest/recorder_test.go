package brokertest

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// recorder is a test that may fail: it notes complaints instead of failing the test that it is part of.
type recorder struct {
	testing.TB
	mu         sync.Mutex
	complaints []string
	cleanups   []func()
}

// complaintsOf returns the complaints of a trial.
func complaintsOf(t testing.TB, c Config, try func(*trial)) string {
	r := &recorder{TB: t}
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
		try(newTrial(r, c))
	}()
	<-ended
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.complaints, "\n")
}

func (r *recorder) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.complaints = append(r.complaints, fmt.Sprintf(format, args...))
}

func (r *recorder) Failed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.complaints) > 0
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	r.FailNow()
}

func (r *recorder) FailNow()          { runtime.Goexit() }
func (r *recorder) Cleanup(fn func()) { r.cleanups = append(r.cleanups, fn) }
