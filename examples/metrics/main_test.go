package main

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/shoal-go/shoal/examples/internal/try"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The counts of the server are served in both forms.
func TestMetrics(t *testing.T) {
	public, private := try.Listen(t), try.Listen(t)
	try.Run(t, func(ctx context.Context) error { return run(ctx, public, private) })
	try.Dial(t, public.Addr().String()+"/ws/uploads", try.As("ann")).Subscribe("cat")
	for path, want := range map[string]string{
		"/debug/vars": `"subscriptions":1`, "/metrics": "shoal_", "/healthz": "ok", "/readyz": "ready",
	} {
		answer, err := http.Get("http://" + private.Addr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(answer.Body)
		_ = answer.Body.Close()
		if err != nil || answer.StatusCode != http.StatusOK || !strings.Contains(string(body), want) {
			t.Errorf("%s: %d, %v, want %q in %.300s", path, answer.StatusCode, err, want, body)
		}
	}
}
