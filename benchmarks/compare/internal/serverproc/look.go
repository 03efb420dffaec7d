package serverproc

import (
	"cmp"
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
	a.CPU, a.Writes = p.cpu(), usage.WritesOf(p.pid())
	a.RSS = usage.ResidentOf(p.pid())
	a.Subscriptions = p.system.Subscriptions()
	a.Goroutines = runtime.NumGoroutine()
}

// pid returns the process whose usage counts: this one, or the program that the system is.
func (p *process) pid() int { return cmp.Or(p.program, os.Getpid()) }

func (p *process) cpu() int64 {
	if p.program != 0 {
		return usage.CPUOf(p.program)
	}
	return usage.CPU()
}

// CPUProfile is a running CPU profile, or nil. It is used from one goroutine.
type CPUProfile struct{ file *os.File }

// StartCPUProfile begins to profile this process, into a file.
func StartCPUProfile(name string) (*CPUProfile, error) {
	file, err := os.Create(name)
	if err != nil {
		return nil, fmt.Errorf("serverproc: the profile cannot be written: %w", err)
	}
	if err := pprof.StartCPUProfile(file); err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("serverproc: the processor cannot be profiled: %w", err)
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
