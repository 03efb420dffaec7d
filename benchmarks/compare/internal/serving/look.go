package serving

import (
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/usage"
)

// look notes how the process stands. Clean makes it give all memory back first that it does not need.
func (p *process) look(a *Answer, clean bool) {
	if clean {
		usage.GiveBack()
	}
	a.CPU, a.Writes = usage.CPU(), usage.Writes()
	a.RSS = usage.Resident()
	a.Subscriptions = p.system.Subscriptions()
	a.Goroutines = runtime.NumGoroutine()
}

// profile is a profile of the processor that is being taken. nil is none.
type profile struct{ file *os.File }

func startProfile(name string) (*profile, error) {
	file, err := os.Create(name)
	if err != nil {
		return nil, fmt.Errorf("serving: the profile cannot be written: %w", err)
	}
	if err := pprof.StartCPUProfile(file); err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("serving: the processor cannot be profiled: %w", err)
	}
	return &profile{file}, nil
}

func (p *profile) stop() error {
	if p == nil {
		return nil
	}
	pprof.StopCPUProfile()
	return p.file.Close()
}
