package load

import "context"

func newEngine(ctx context.Context, f *Fleet) (engine, error) {
	if f.opt.TLS != nil || f.opt.Goroutines {
		return newGoroutines(f), nil
	}
	addr, err := resolve(ctx, f.opt.Addr)
	if err != nil {
		return nil, err
	}
	return newPollers(f, addr)
}
