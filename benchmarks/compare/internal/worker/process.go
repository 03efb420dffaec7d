package worker

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/rpc"
	"net/rpc/jsonrpc"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"time"

	"github.com/prometheus/procfs"

	"github.com/shoal-go/shoal/internal/load"
)

// None is the argument or the result of a method without one.
type None struct{}

// Process is the part of a service that all processes have. Its exported methods are called by the runner.
type Process struct {
	// Program is the id of another process whose usage counts instead of that of this one. 0: none.
	Program int
	profile *os.File // nil: none is taken
}

// Usage is the use of the machine by a process.
type Usage struct {
	// CPU is the processor time in nanoseconds, Writes the number of system calls that wrote, and Resident the memory in
	// bytes. Each is 0 where the system does not tell.
	CPU, Writes, Resident int64
}

// nothing closes nothing.
type nothing struct{ io.Writer }

func (nothing) Close() error { return nil }

// Serve answers calls of the exported methods of a service until in ends, and blocks until then.
func Serve(in io.Reader, out io.Writer, methods any) error {
	server := rpc.NewServer()
	if err := server.RegisterName(service, methods); err != nil {
		return fmt.Errorf("worker: %w", err)
	}
	server.ServeCodec(jsonrpc.NewServerCodec(stream{in, nothing{out}}))
	return nil
}

// Usage returns the use of the machine. With clean, the process first returns the memory that it does not need.
func (p *Process) Usage(clean bool, u *Usage) error {
	if clean {
		runtime.GC() // twice: the contents of a pool survive the first
		debug.FreeOSMemory()
	}
	*u = UsageOf(cmp.Or(p.Program, os.Getpid()))
	return nil
}

// UsageOf returns the use of the machine by a process: the processor time of another process is only known to some
// hundredths of a second.
func UsageOf(pid int) (u Usage) {
	if process, err := procfs.NewProc(pid); err == nil {
		if stat, err := process.Stat(); err == nil {
			u.CPU = int64(stat.CPUTime() * float64(time.Second))
			u.Resident = int64(stat.ResidentMemory())
		}
		if calls, err := process.IO(); err == nil {
			u.Writes = int64(calls.SyscW) //nolint:gosec // no process writes as often
		}
	}
	if pid == os.Getpid() {
		u.CPU = CPU()
	}
	return u
}

// CPU returns the processor time of this process in nanoseconds.
func CPU() int64 {
	user, system := load.ProcessCPU()
	return int64(user + system)
}

// Slab returns the memory in bytes of the kernel's own objects, sockets among them, 0 where the system does not tell.
func Slab() int64 {
	fs, err := procfs.NewDefaultFS()
	if err != nil {
		return 0
	}
	memory, err := fs.Meminfo()
	if err != nil || memory.SlabBytes == nil {
		return 0
	}
	return int64(*memory.SlabBytes) //nolint:gosec // no machine has as much
}

// Heap returns the bytes in use on the heap of this process after a collection.
func Heap() int64 {
	runtime.GC() // twice, as above
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc) //nolint:gosec // no heap is as large
}

// Profile begins to profile the processor time into a file, until Stop.
func (p *Process) Profile(file string, _ *None) (err error) {
	if p.profile, err = os.Create(file); err != nil {
		return fmt.Errorf("worker: the profile cannot be written: %w", err)
	}
	return pprof.StartCPUProfile(p.profile)
}

// Stop writes the profile, if one is taken. It is not for the runner.
func (p *Process) Stop() error {
	if p.profile == nil {
		return nil
	}
	pprof.StopCPUProfile()
	err := p.profile.Close()
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}
