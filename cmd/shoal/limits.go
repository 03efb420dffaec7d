package main

import (
	"bufio"
	"bytes"
	"fmt"
	"math"
	"os"
	"path"
	"runtime/debug"
	"strconv"
	"strings"
)

// The descriptors of a process that WebSockets must leave free.
const (
	// minFiles are needed by listeners, the broker, files and the runtime of a node that serves anybody.
	minFiles = 32
	// reservedFiles are for the admin listener, the broker, keys, certificates and the runtime.
	reservedFiles = 64
	// reservedSockets are for publishers and handshakes on the public listener.
	reservedSockets = 64
)

// checkOpenFiles returns an error if a limit of open files, 0 being no limit, is too low to serve.
func checkOpenFiles(files int) error {
	if files > 0 && files < minFiles {
		return fmt.Errorf("the limit of open files is %d, want at least %d; raise it, for example with ulimit -n 1024",
			files, minFiles)
	}
	return nil
}

// connectionLimits returns how many WebSockets and how many sockets of the listeners the server may have: as many as
// --max-connections says, but no more than the limit of open files allows. 0: no bound, where the system has none.
func (n *node) connectionLimits() (connections, sockets int) {
	return limitConnections(n.flags.MaxConnections, maxOpenFiles())
}

// limitConnections returns the limits for a number of open files, 0 being no limit.
func limitConnections(wanted, files int) (connections, sockets int) {
	if files == 0 {
		return wanted, 0
	}
	// A tiny limit is divided, so that the server can be tried with it.
	possible := max(files-reservedFiles-reservedSockets, files/4, 1)
	if wanted > 0 && wanted <= possible {
		possible = wanted
	}
	return possible, possible + min(reservedSockets, files/4)
}

// warnOfOpenFiles logs that --max-connections, with the value wanted, cannot be met.
func (n *node) warnOfOpenFiles(wanted int) {
	files := maxOpenFiles()
	if possible, _ := limitConnections(wanted, files); wanted > possible {
		n.log.Warn("limit of open files is too low for --max-connections", "open_files", files,
			"max_connections", possible, "wanted", wanted, "remedy", "raise it, for example with ulimit -n")
	}
}

const (
	// historyShare is the part of the memory limit that histories may take by default: the garbage collector needs as much
	// again, and connections the rest.
	historyShare = 4
	// bodiesShare is the part that the bodies of requests may take, up to mostBodies: the garbage collector needs as much
	// again.
	bodiesShare = 8
	mostBodies  = 256 << 20
	// unknownMemory is assumed where the memory limit cannot be found out.
	unknownMemory = 4 << 30
)

// historyTotalBytes returns the bound of all histories.
func (f *serveFlags) historyTotalBytes() int {
	if f.HistoryTotalBytes > 0 {
		return int(f.HistoryTotalBytes)
	}
	return max(int(min(memoryLimit(os.ReadFile)/historyShare, math.MaxInt)), int(f.HistoryBytes))
}

// maxBodiesBytes returns the bound of all request bodies for a memory limit.
func maxBodiesBytes(memory int64) int { return int(max(min(memory/bodiesShare, mostBodies), 1)) }

// memoryLimit returns how many bytes of memory the process may use: the smallest of GOMEMLIMIT, the limits of its
// control groups and the memory of the machine.
func memoryLimit(read func(string) ([]byte, error)) int64 {
	limit := debug.SetMemoryLimit(-1) // which only reads it
	lower := func(file string, parse func([]byte) (int64, bool)) {
		if text, err := read(file); err == nil {
			if n, ok := parse(text); ok && n > 0 {
				limit = min(limit, n)
			}
		}
	}
	lower("/proc/meminfo", parseMemTotal)
	lower("/sys/fs/cgroup/memory/memory.limit_in_bytes", parseBytes)
	for _, group := range controlGroups(read) {
		lower(path.Join("/sys/fs/cgroup", group, "memory.max"), parseBytes)
	}
	if limit == math.MaxInt64 {
		return unknownMemory
	}
	return limit
}

// controlGroups returns the control group of the process and those above it.
func controlGroups(read func(string) ([]byte, error)) []string {
	groups := []string{"/"}
	text, err := read("/proc/self/cgroup")
	if err != nil {
		return groups
	}
	for line := range strings.Lines(string(text)) {
		name, ok := strings.CutPrefix(strings.TrimSpace(line), "0::")
		if !ok {
			continue
		}
		for name = path.Clean("/" + name); name != "/"; name = path.Dir(name) {
			groups = append(groups, name)
		}
	}
	return groups
}

func parseBytes(text []byte) (int64, bool) {
	n, err := strconv.ParseInt(string(bytes.TrimSpace(text)), 10, 64)
	return n, err == nil // "max" without a limit
}

// parseMemTotal reads the line "MemTotal:  16384 kB".
func parseMemTotal(text []byte) (int64, bool) {
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) >= 2 && fields[0] == "MemTotal:" {
			n, err := strconv.ParseInt(fields[1], 10, 64)
			return n << 10, err == nil
		}
	}
	return 0, false
}
