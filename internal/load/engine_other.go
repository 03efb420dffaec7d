//go:build !linux

package load

import "context"

func newEngine(_ context.Context, f *Fleet) (engine, error) { return newGoroutines(f), nil }
