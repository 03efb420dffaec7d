// Package usage measures the resources of this process and of the kernel.
package usage

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/shoal-go/shoal/internal/load"
)

// CPU returns the processor time of this process, in nanoseconds.
func CPU() int64 {
	user, system := load.ProcessCPU()
	return int64(user + system)
}

// CPUOf returns the processor time of another process, in nanoseconds, to some hundredths of a second, 0 where
// the system does not tell.
func CPUOf(process int) int64 {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(process) + "/stat")
	if err != nil {
		return 0
	}
	const user, system, tick = 11, 12, int64(time.Second) / 100 // behind the name, which may hold spaces
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if len(fields) <= system {
		return 0
	}
	sum := int64(0)
	for _, field := range [][]byte{fields[user], fields[system]} {
		n, _ := strconv.ParseInt(string(field), 10, 64) // 0 unless it is a number
		sum += n * tick
	}
	return sum
}

// Resident is the memory that this process has in use, in bytes, 0 where the system does not tell.
func Resident() int64 { return ResidentOf(os.Getpid()) }

// ResidentOf is that of another process.
func ResidentOf(process int) int64 {
	return number(fmt.Sprintf("/proc/%d/status", process), "VmRSS:") << 10
}

// Writes is how many system calls of this process wrote something, failed ones among them, 0 where the system does
// not tell.
func Writes() int64 { return WritesOf(os.Getpid()) }

// WritesOf is that of another process.
func WritesOf(process int) int64 { return number(fmt.Sprintf("/proc/%d/io", process), "syscw:") }

// Slab returns the memory of the kernel's own objects, sockets among them, in bytes, 0 where the system
// does not tell.
func Slab() int64 { return number("/proc/meminfo", "Slab:") << 10 }

// number reads the number behind a name at the beginning of a line, which for memory are KiB.
func number(file, name string) int64 {
	text, err := os.ReadFile(file) //nolint:gosec // one of the above
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(text) {
		rest, found := bytes.CutPrefix(line, []byte(name))
		if fields := bytes.Fields(rest); found && len(fields) > 0 {
			n, _ := strconv.ParseInt(string(fields[0]), 10, 64) // 0 unless it is a number
			return n
		}
	}
	return 0
}

// Heap returns the bytes in use on the heap of this process after a collection.
func Heap() int64 {
	runtime.GC() // twice: a pool's contents survive the first
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc) //nolint:gosec // no heap is that large
}

// GiveBack has the process return to the system all memory that it does not need.
func GiveBack() {
	runtime.GC() // twice, as above
	debug.FreeOSMemory()
}
