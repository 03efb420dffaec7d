package manager

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/shoal/broker"
)

// onceCluster runs a test on two managers: one of a node that is alone, given twice, or two that share a broker.
func onceCluster(t *testing.T, opt Options, test func(t *testing.T, a, b *Manager)) {
	t.Run("alone", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			m := open(t, opt)
			test(t, m, m)
		})
	})
	t.Run("two nodes", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			hub := broker.NewMemory(broker.MemoryOptions{TTL: opt.HistoryTTL})
			first, second := opt, opt
			first.Broker, second.Broker = hub.Node(), hub.Node()
			a, b := open(t, first), open(t, second)
			synctest.Wait()
			test(t, a, b)
		})
	})
}

// wantOnce publishes a note with a key and checks the result.
func wantOnce(t *testing.T, m *Manager, uploadID string, n int, once Once, offset uint64, replayed bool) Position {
	t.Helper()
	at, again, err := m.PublishOnce(t.Context(), uploadID, note(t, n), once)
	if err != nil || at.Offset != offset || at.Epoch == "" || again != replayed {
		t.Errorf("got %+v, %v, %v, want offset %d, replayed: %v", at, again, err, offset, replayed)
	}
	return at
}

// A message with a key is published once on all nodes, and its position stays the same, also after Forget.
func TestPublishOnce_PublishesOnce(t *testing.T) {
	onceCluster(t, Options{}, func(t *testing.T, a, b *Manager) {
		c := connect(t, a, "ann")
		must(t, a.SubscribeUpload(t.Context(), "ann", "cat"))
		once := Once{Key: "key"}
		first := wantOnce(t, a, "cat", 1, once, 1, false)
		wantOnce(t, b, "cat", 1, once, 1, true)
		wantOnce(t, b, "dog", 1, once, 1, false)
		wantOnce(t, b, "cat", 1, Once{Key: "Key"}, 2, false)
		wantOnce(t, b, "cat", 2, Once{Key: "key", Part: 1}, 3, false)
		wantOnce(t, a, "cat", 2, Once{Key: "key", Part: 1}, 3, true)
		for _, m := range []*Manager{a, b} {
			if _, _, err := m.PublishOnce(t.Context(), "cat", note(t, 2), once); !errors.Is(err, ErrKeyReused) {
				t.Errorf("other content: %v", err)
			}
			if err := m.CheckOnce(t.Context(), "cat", Once{Key: "key", Content: "other"}); !errors.Is(err, ErrKeyReused) {
				t.Errorf("CheckOnce of other content: %v", err)
			}
			if err := m.CheckOnce(t.Context(), "cat", Once{Key: "new", Content: "other"}); err != nil {
				t.Errorf("CheckOnce of a new key: %v", err)
			}
		}
		must(t, b.Forget(t.Context(), "cat"))
		if again := wantOnce(t, a, "cat", 1, once, 1, true); again != first {
			t.Errorf("after Forget the position is %+v, was %+v", again, first)
		}
		synctest.Wait()
		wantConsecutive(t, c.offsets(), 1, 3)
		published := a.Stats().Published
		if a != b {
			published += b.Stats().Published
		}
		if published != 4 {
			t.Errorf("%d messages are counted as published, want 4", published)
		}
	})
}

// A timestamp that is filled in does not make another content, but one that is given does.
func TestPublishOnce_MissingTimestampDoesNotCount(t *testing.T) {
	onceCluster(t, Options{}, func(t *testing.T, a, b *Manager) {
		failed := UploadFailed{ErrorMessage: "no space left"}
		for i, m := range []*Manager{a, b} {
			if _, replayed, err := m.PublishOnce(t.Context(), "cat", failed, Once{Key: "key"}); err != nil || replayed != (i > 0) {
				t.Errorf("replayed: %v, %v", replayed, err)
			}
			<-time.After(time.Second)
		}
		failed.Timestamp = time.Now()
		if _, _, err := a.PublishOnce(t.Context(), "cat", failed, Once{Key: "key"}); !errors.Is(err, ErrKeyReused) {
			t.Errorf("with a timestamp: %v", err)
		}
		if _, _, err := b.PublishOnce(t.Context(), "cat", failed, Once{Key: "2", Content: "x"}); err != nil {
			t.Error(err)
		}
		failed.ErrorMessage = "another"
		if _, replayed, err := a.PublishOnce(t.Context(), "cat", failed, Once{Key: "2", Content: "x"}); err != nil || !replayed {
			t.Errorf("the content is given: replayed: %v, %v", replayed, err)
		}
	})
}

// Of concurrent calls with one key, one publishes, and all return its position.
func TestPublishOnce_Concurrent(t *testing.T) {
	onceCluster(t, Options{}, func(t *testing.T, a, b *Manager) {
		for round := range 50 {
			upload := fmt.Sprint("up-", round)
			var running sync.WaitGroup
			var published atomic.Int32
			for i := range 8 {
				running.Go(func() {
					m := []*Manager{a, b}[i%2]
					at, replayed, err := m.PublishOnce(context.Background(), upload, note(t, 1), Once{Key: "key"})
					if err != nil || at.Offset != 1 {
						t.Errorf("got %+v, %v", at, err)
					}
					if !replayed {
						published.Add(1)
					}
				})
			}
			running.Wait()
			if _, at, _ := newest(a, upload); at.Offset != 1 || published.Load() != 1 {
				t.Fatalf("%d calls published, the upload is at %+v", published.Load(), at)
			}
		}
	})
}

// A key is forgotten when its time is over, and before that only at the bound, the oldest first.
func TestPublishOnce_KeysAreBounded(t *testing.T) {
	onceCluster(t, Options{HistoryTTL: time.Minute}, func(t *testing.T, a, _ *Manager) {
		wantOnce(t, a, "cat", 1, Once{Key: "key"}, 1, false)
		<-time.After(59 * time.Second)
		wantOnce(t, a, "cat", 1, Once{Key: "key"}, 1, true)
		<-time.After(time.Second)
		if _, replayed, err := a.PublishOnce(t.Context(), "cat", note(t, 2), Once{Key: "key"}); replayed || err != nil {
			t.Errorf("replayed: %v, %v when the key has expired", replayed, err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		m := open(t, Options{MaxKeys: 2, HistoryTTL: time.Minute})
		for i, key := range []string{"a", "b", "c"} {
			wantOnce(t, m, "cat", 1, Once{Key: key}, uint64(i+1), false)
		}
		wantOnce(t, m, "cat", 1, Once{Key: "c"}, 3, true)
		wantOnce(t, m, "cat", 1, Once{Key: "a"}, 4, false)
		<-time.After(2 * time.Minute)
		if n := m.keys.Len(); n != 0 {
			t.Errorf("%d keys are left without a call", n)
		}
	})
}

// A state with a key is not delayed, so that its position is its own.
func TestPublishOnce_StatesAreNotDelayed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := open(t, Options{Broker: broker.NewMemory(broker.MemoryOptions{}).Node(), StateRate: 1})
		synctest.Wait()
		progress := UploadProgress{Status: StatusPending, Stage: StageQueued}
		for i := range 3 {
			at, replayed, err := m.PublishOnce(t.Context(), "cat", progress, Once{Key: fmt.Sprint(i)})
			if err != nil || replayed || at.Offset != uint64(i+1) {
				t.Errorf("got %+v, %v, %v", at, replayed, err)
			}
		}
	})
}

func TestPublishOnce_RefusesBadInput(t *testing.T) {
	onceCluster(t, Options{}, func(t *testing.T, a, _ *Manager) {
		for _, key := range []string{"", strings.Repeat("x", 256), "a b", "a\n", "ä", "\x7f", "\x00"} {
			_, _, err := a.PublishOnce(t.Context(), "cat", note(t, 1), Once{Key: key})
			var invalid *InvalidError
			if !errors.As(err, &invalid) || invalid.Field != "key" {
				t.Errorf("key %q: %v", key, err)
			}
			if err := a.CheckOnce(t.Context(), "cat", Once{Key: key}); !errors.As(err, &invalid) {
				t.Errorf("CheckOnce of key %q: %v", key, err)
			}
		}
		wantOnce(t, a, "cat", 1, Once{Key: strings.Repeat("~", 255)}, 1, false)
		if _, _, err := a.PublishOnce(t.Context(), "", note(t, 1), Once{Key: "key"}); err == nil {
			t.Error("an empty upload id is accepted")
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, _, err := a.PublishOnce(ctx, "cat", note(t, 1), Once{Key: "key"}); !errors.Is(err, context.Canceled) {
			t.Errorf("after its context ended: %v", err)
		}
	})
}

// A broker that does not know keys publishes nothing with one, rather than publishing twice.
func TestPublishOnce_WithoutSupportOfTheBroker(t *testing.T) {
	inCluster(t, 1, Options{}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		n := nodes[0]
		_, _, err := n.PublishOnce(t.Context(), "cat", note(t, 1), Once{Key: "key"})
		if !errors.Is(err, ErrKeysUnsupported) || !errors.Is(n.CheckOnce(t.Context(), "cat", Once{Key: "key"}), ErrKeysUnsupported) {
			t.Errorf("got %v", err)
		}
		if s := n.Stats(); s.Published != 0 {
			t.Errorf("%d messages are published", s.Published)
		}
	})
}

// cancelledBroker stores each message, and its caller no longer waits for the confirmation.
type cancelledBroker struct {
	*broker.MemoryNode
	cancel context.CancelFunc
}

func (b *cancelledBroker) Store(ctx context.Context, channel string, payload []byte) (broker.Position, error) {
	if _, err := b.MemoryNode.Store(context.WithoutCancel(ctx), channel, payload); err != nil {
		return broker.Position{}, err
	}
	b.cancel()
	return broker.Position{}, ctx.Err()
}

func (b *cancelledBroker) Forget(ctx context.Context, channel string) error {
	if err := b.MemoryNode.Forget(context.WithoutCancel(ctx), channel); err != nil {
		return err
	}
	b.cancel()
	return ctx.Err()
}

// A publication that is cancelled after the broker was called may have taken effect, and its error says so.
func TestPublish_CancelledAfterTheCallIsUncertain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &cancelledBroker{MemoryNode: broker.NewMemory(broker.MemoryOptions{}).Node()}
		m := open(t, Options{Broker: b, NodeName: "n"})
		<-time.After(time.Minute)
		for name, call := range map[string]func(context.Context) error{
			"Publish": func(ctx context.Context) error {
				_, err := m.Publish(ctx, "cat", note(t, 1))
				return err
			},
			"Forget": func(ctx context.Context) error { return m.Forget(ctx, "cat") },
		} {
			ctx, cancel := context.WithCancel(t.Context())
			b.cancel = cancel
			if err := call(ctx); !errors.Is(err, ErrUnavailable) || !errors.Is(err, context.Canceled) {
				t.Errorf("%s: %v, want one that wraps ErrUnavailable and context.Canceled", name, err)
			}
			if err := call(ctx); name == "Publish" && (errors.Is(err, ErrUnavailable) || !errors.Is(err, context.Canceled)) {
				t.Errorf("%s with a context that has ended: %v, want context.Canceled alone", name, err)
			}
		}
	})
}

// TestPublishOnce_ParsedMessageMayBeRepeated: the timestamp that Parse inserts is not part of the content, wherever the
// message stands; its own is.
func TestPublishOnce_ParsedMessageMayBeRepeated(t *testing.T) {
	completed := func(stamp string) string {
		return `{"action":"upload_completed",` + stamp + `"description":"d","audit_score":1}`
	}
	for name, test := range map[string]struct {
		opt           Options
		first, second string
		reused        bool
	}{
		"none":       {Options{}, completed(""), completed(""), false},
		"own":        {Options{}, completed(`"timestamp":"2026-01-31T12:00:00Z",`), completed(`"timestamp":"2026-01-31T12:00:01Z",`), true},
		"other text": {Options{}, completed(""), strings.Replace(completed(""), `"d"`, `"e"`, 1), true},
		"restricted": {
			Options{Statuses: []string{"pending"}},
			`{"action":"upload_progress","payload":{"status":"pending","stage":"s","progress_percent":1,"message":""}}`,
			`{"action":"upload_progress","payload":{"status":"pending","stage":"s","progress_percent":1,"message":""}}`, false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := open(t, test.opt)
			once := func(body string, now time.Time) (bool, error) {
				e, err := Parse("cat", []byte(body), now)
				must(t, err)
				_, replayed, err := m.PublishOnce(t.Context(), "cat", e, Once{Key: "key"})
				return replayed, err
			}
			_, err := once(test.first, noon)
			must(t, err)
			replayed, err := once(test.second, noon.Add(time.Second))
			if replayed == test.reused || errors.Is(err, ErrKeyReused) != test.reused {
				t.Errorf("repeated: %v, %v", replayed, err)
			}
		})
	}
}
