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

// Serve answers calls of the exported methods of services, and of Process, until in ends, and blocks until then. Each service has the
// name of its type. In the end it closes the services.
func Serve(in io.Reader, out io.Writer, services ...io.Closer) error {
	server := rpc.NewServer()
	var ends Closers
	for _, s := range append(services, &Process{}) {
		ends = append(ends, s.Close)
		if err := server.Register(s); err != nil {
			return fmt.Errorf("worker: %w", errors.Join(err, ends.Close()))
		}
	}
	server.ServeCodec(jsonrpc.NewServerCodec(stream{in, nothing{out}}))
	return ends.Close()
}

// nothing closes nothing.
type nothing struct{ io.Writer }

func (nothing) Close() error { return nil }

// Process is the service that all processes have. Its exported methods are called by the runner.
type Process struct {
	profile *os.File // nil: none is taken
}

// Measured is the id of the process whose usage is asked for, 0 for the process that is called. With Clean, the called process first
// returns the memory that it does not need.
type Measured struct {
	PID   int
	Clean bool
}

// Usage is the use of the machine by a process.
type Usage struct {
	// CPU is the processor time in nanoseconds, Writes the number of system calls that wrote, and Resident the memory in
	// bytes. Each is 0 where the system does not tell.
	CPU, Writes, Resident int64
}

// Usage returns the use of the machine.
func (p *Process) Usage(q Measured, u *Usage) error {
	if q.Clean {
		runtime.GC() // twice: the contents of a pool survive the first
		debug.FreeOSMemory()
	}
	*u = UsageOf(cmp.Or(q.PID, os.Getpid()))
	return nil
}

// Profile begins to profile the processor time into a file, until Close.
func (p *Process) Profile(file string, _ *None) (err error) {
	if p.profile, err = os.Create(file); err != nil {
		return fmt.Errorf("worker: the profile cannot be written: %w", err)
	}
	return pprof.StartCPUProfile(p.profile)
}

// Close writes the profile, if one is taken.
func (p *Process) Close() error {
	if p.profile == nil {
		return nil
	}
	pprof.StopCPUProfile()
	return p.profile.Close()
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
