package benchmarks

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/shoal-go/shoal/internal/frame"
	"github.com/shoal-go/shoal/internal/history"
	"github.com/shoal-go/shoal/manager"
)

func BenchmarkEncodeProgress(b *testing.B) {
	m := newManager(b)
	progress := manager.UploadProgress{
		Status: manager.StatusAnalyzing, Stage: manager.StageVisionAnalysis, Percent: 42, Message: "Looking at frame 17 of 40",
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := m.SendToUploadSubscribers("upload", progress); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkParse is the part of a published message that the HTTP API and the bridges have: it is validated against the
// schema, classified by the manager's vocabulary, and completed.
func BenchmarkParse(b *testing.B) {
	m := newManager(b)
	for name, text := range map[string]string{
		"progress":       progressText,
		"progress-short": `{"action":"upload_progress","payload":{"status":"analyzing","stage":"indexing","progress_percent":42,"message":"Looking"}}`,
		"completed":      `{"action":"upload_completed","upload_id":"u","description":"A cat on a wall","audit_score":98.5}`,
		"foreign":        `{"action":"note","text":"a message of an application's own","numbers":[1,2,3]}`,
	} {
		b.Run("message="+name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				if _, err := m.Parse("u", []byte(text), time.Time{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkFrameAppend(b *testing.B) {
	for _, size := range []int{64, 256, 4096} {
		for v, name := range []string{"base", "v1"} {
			b.Run(fmt.Sprintf("variant=%s/payload=%d", name, size), func(b *testing.B) {
				body := make([]byte, size)
				f := frame.ForUpload(frame.Message{UploadID: "upload", Offset: 123456, Body: body})
				var buf []byte
				b.ReportAllocs()
				b.SetBytes(int64(size))
				for b.Loop() {
					buf = f.Append(buf[:0], frame.Variant(v), 0)
				}
			})
		}
	}
}

func BenchmarkHistoryAppend(b *testing.B) {
	now := time.Now()
	l := history.New[*frame.Frame]("epoch", now)
	f := frame.ForUpload(frame.Message{UploadID: "upload", Offset: 1, Body: []byte(`{"action":"note"}`)})
	limits := history.Limits{Messages: 64, Bytes: 1 << 20, TTL: time.Hour}
	b.ReportAllocs()
	for i := uint64(1); b.Loop(); i++ {
		l.Append(i, f, f.Size(), now, limits)
	}
}

func BenchmarkHistorySince(b *testing.B) {
	now := time.Now()
	l := history.New[*frame.Frame]("epoch", now)
	f := frame.ForUpload(frame.Message{UploadID: "upload", Offset: 1, Body: []byte(`{"action":"note"}`)})
	for i := range uint64(64) {
		l.Append(i+1, f, f.Size(), now, history.Limits{Messages: 64, Bytes: 1 << 20, TTL: time.Hour})
	}
	for _, missed := range []uint64{0, 1, 63} {
		b.Run(fmt.Sprintf("missed=%d", missed), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if got, ok := l.Since("epoch", 64-missed); !ok || uint64(len(got)) != missed {
					b.Fatal(len(got), ok)
				}
			}
		})
	}
}

// BenchmarkOwn compares a message of an own type with its marshalling alone.
func BenchmarkOwn(b *testing.B) {
	type line struct {
		BuildID string `json:"build_id"`
		Line    string `json:"line"`
		Number  int    `json:"number"`
	}
	v := line{"build-4711", strings.Repeat("x", 180), 42}
	b.Run("marshal", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := json.Marshal(v); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("event", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := manager.NewEvent("build_log", v); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("state", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := manager.NewState("build_progress", v.BuildID, v); err != nil {
				b.Fatal(err)
			}
		}
	})
}
