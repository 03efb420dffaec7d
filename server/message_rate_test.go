package server

import (
	"math/rand/v2"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/time/rate"
)

// TestMessageRate_AgreesWithLimiter: the bucket allows the same messages as the limiter that it replaces. All times and
// rates are such that no fraction is rounded.
func TestMessageRate_AgreesWithLimiter(t *testing.T) {
	const perSecond, burst = 64, 20
	var limits settings
	limits.ClientMessageRate, limits.ClientMessageBurst = perSecond, burst
	started := time.Now()
	now := time.Minute
	bucket := newMessageRate(&limits, now)
	limiter := rate.NewLimiter(perSecond, burst)
	allowed := 0
	for i := range 10_000 {
		now += time.Duration(rand.IntN(4)) * time.Second / perSecond
		n := 1 + rand.IntN(3)
		got, want := bucket.allow(now, n), limiter.AllowN(started.Add(now), n)
		if got != want {
			t.Fatalf("message %d of %d at %v: allowed %t, want %t", i, n, now, got, want)
		}
		if got {
			allowed++
		}
	}
	if allowed == 0 || allowed == 10_000 {
		t.Errorf("%d of 10000 were allowed: the limit was never met, or always", allowed)
	}
}

func TestMessageRate_Unlimited(t *testing.T) {
	to := Settings{ClientMessageRate: -1}.withDefaults()
	bucket := newMessageRate(to.prepared(), 0)
	if !bucket.allow(0, 1_000_000) {
		t.Error("a message is refused without a limit")
	}
}

// A connection that is idle for hours costs the memory of these objects: their size classes are part of the capacity.
func TestClient_IsSmall(t *testing.T) {
	if size := unsafe.Sizeof(Client{}); size > 384 {
		t.Errorf("a Client has %d bytes, want at most 384", size)
	}
}
