package driving

import (
	"context"
	"errors"
	"testing"
)

func TestWaitForLines(t *testing.T) {
	two := []byte("{\"push\":1}\n{\"push\":2}")
	l := newLines()
	if l.data([]byte(`{}`)) {
		t.Error("a ping counts")
	}
	if !l.data(two) {
		t.Error("two messages do not count")
	}
	if last, err := l.wait(t.Context(), 2); err != nil || last.UnixNano() != l.latest.Load() {
		t.Errorf("waiting for what has come: %v, %v", last, err)
	}
	go func() {
		for range 3 {
			l.data(two)
		}
	}()
	if _, err := l.wait(t.Context(), 7); err != nil {
		t.Errorf("waiting for what comes: %v", err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.wait(gone, 100); !errors.Is(err, context.Canceled) {
		t.Errorf("waiting for what does not come: %v", err)
	}
}
