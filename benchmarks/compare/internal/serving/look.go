package serving

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"strconv"

	"github.com/shoal-go/shoal/internal/load"
)

// look notes how the process stands. Clean makes it give all memory back first that it does not need.
func (p *process) look(a *Answer, clean bool) {
	if clean {
		runtime.GC() // twice: what a pool holds survives the first
		runtime.GC()
		debug.FreeOSMemory()
	}
	a.CPU = cpu()
	a.RSS = residentBytes()
	a.Subscriptions = p.system.Subscriptions()
	a.Goroutines = runtime.NumGoroutine()
}

// cpu is what this process has used of the processors, in nanoseconds.
func cpu() int64 {
	user, system := load.ProcessCPU()
	return int64(user + system)
}

// residentBytes is the memory that this process has in use, 0 where the system does not tell.
func residentBytes() int64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	_, rest, found := bytes.Cut(status, []byte("\nVmRSS:"))
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	fields := bytes.Fields(line)
	if !found || len(fields) == 0 {
		return 0
	}
	kib, err := strconv.ParseInt(string(fields[0]), 10, 64)
	if err != nil {
		return 0
	}
	return kib << 10
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
