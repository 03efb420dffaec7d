package manager

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/shoal/broker"
)

// late is a broker that ignores the end of Run's context, and of its calls' while deaf is set, until release is closed.
type late struct {
	*broker.MemoryNode
	release chan struct{}
	calls   bool
}

func (l *late) Run(ctx context.Context, h broker.Handler) error {
	err := l.MemoryNode.Run(ctx, h)
	<-l.release
	return err
}

func (l *late) History(ctx context.Context, channel string, since broker.Position) (broker.Snapshot, error) {
	if l.calls {
		<-l.release
	}
	return l.MemoryNode.History(ctx, channel, since)
}

func (l *late) Newest(ctx context.Context, channel string) (broker.Snapshot, error) {
	if l.calls {
		<-l.release
	}
	return l.MemoryNode.Newest(ctx, channel)
}

func (l *late) Store(ctx context.Context, channel string, payload []byte) (broker.Position, error) {
	if l.calls {
		<-l.release
	}
	return l.MemoryNode.Store(ctx, channel, payload)
}

// TestClose_ReturnsWithItsContextWhateverTheBrokerDoes: the error names the parts that have not ended, which end
// with the broker.
func TestClose_ReturnsWithItsContextWhateverTheBrokerDoes(t *testing.T) {
	for name, want := range map[string][]string{
		"Run":       {"Options.Broker: Run has not returned"},
		"all calls": {"Run has not returned", "History or Newest has not returned"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &late{broker.NewMemory(broker.MemoryOptions{}).Node(), make(chan struct{}), name == "all calls"}
				m, err := New(Options{Broker: b, StateRate: 1})
				must(t, err)
				synctest.Wait()
				for range 2 {
					go func() {
						_, _ = m.Publish(t.Context(), "cat", UploadProgress{Status: StatusPending, Stage: StageQueued})
					}()
					go func() { _ = m.SubscribeUpload(t.Context(), "ann", "cat") }()
					synctest.Wait()
				}
				ctx, cancel := context.WithTimeout(t.Context(), 700*time.Millisecond)
				defer cancel()
				begin := time.Now()
				err = m.Close(ctx)
				if took := time.Since(begin); took > 700*time.Millisecond+endGrace {
					t.Errorf("closing took %v", took)
				}
				for _, text := range want {
					if err == nil || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), text) {
						t.Errorf("closing returned %v, want an error with %q", err, text)
					}
				}
				close(b.release) // the bubble verifies that nothing is left
			})
		})
	}
}
