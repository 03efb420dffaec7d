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

// CPUProfile is a running CPU profile, or nil. It is used from one goroutine.
type CPUProfile struct{ file *os.File }

// StartCPUProfile begins to profile this process, into a file.
func StartCPUProfile(name string) (*CPUProfile, error) {
	file, err := os.Create(name)
	if err != nil {
		return nil, fmt.Errorf("serving: the profile cannot be written: %w", err)
	}
	if err := pprof.StartCPUProfile(file); err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("serving: the processor cannot be profiled: %w", err)
	}
	return &CPUProfile{file}, nil
}

// Stop ends the profile, and writes it.
func (p *CPUProfile) Stop() error {
	if p == nil {
		return nil
	}
	pprof.StopCPUProfile()
	return p.file.Close()
}
