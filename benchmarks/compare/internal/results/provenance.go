package results

import (
	"cmp"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/prometheus/procfs"
)

// Provenance is where a measurement comes from.
type Provenance struct {
	// Commit is the repository's, and Dirty is set if the tree, apart from results, was not as committed.
	Commit     string   `json:"commit"`
	Dirty      bool     `json:"dirty"`
	Command    []string `json:"command"`
	Go         string   `json:"go"`
	OS         string   `json:"os"`
	Kernel     string   `json:"kernel"`
	CPU        string   `json:"cpu"`
	Cores      int      `json:"cores"`
	GOMAXPROCS int      `json:"gomaxprocs"`
	// L2 and L3 are the sizes in bytes of a core's caches, 0 where the system does not tell.
	L2         int64  `json:"l2,omitempty"`
	L3         int64  `json:"l3,omitempty"`
	GOGC       string `json:"gogc,omitempty"`
	GOMEMLIMIT string `json:"gomemlimit,omitempty"`
	// Module and Version are the measured system's.
	Module  string `json:"module,omitempty"`
	Version string `json:"version,omitempty"`
}

// unknown stands for values that could not be determined.
const unknown = "unknown"

// Here returns the provenance of current measurements, on this machine, with this program.
func Here(ctx context.Context) Provenance {
	p := Provenance{
		Commit:     cmp.Or(git(ctx, "rev-parse", "HEAD"), unknown),
		Command:    append([]string{"compare"}, os.Args[1:]...),
		Go:         runtime.Version(),
		OS:         runtime.GOOS + "/" + runtime.GOARCH,
		Kernel:     kernel(),
		CPU:        cpuModel(),
		Cores:      runtime.NumCPU(),
		GOMAXPROCS: runtime.GOMAXPROCS(0),
		L2:         cache(caches, 2),
		L3:         cache(caches, 3),
		GOGC:       os.Getenv("GOGC"),
		GOMEMLIMIT: os.Getenv("GOMEMLIMIT"),
	}
	p.Dirty = git(ctx, "status", "--porcelain", "--", ":/", ":(top,exclude)benchmarks/results") != ""
	return p
}

// Of returns the provenance of one system, whose module this program was built with.
func (p Provenance) Of(module string) Provenance {
	p.Module, p.Version = module, unknown
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return p
	}
	for _, dependency := range info.Deps {
		if dependency.Path == module {
			p.Version = dependency.Version
			if dependency.Replace != nil || dependency.Version == "(devel)" { // it is this repository
				p.Version = p.Commit
			}
		}
	}
	return p
}

// Root returns the folder of the repository that the program was started in, or "".
func Root(ctx context.Context) string {
	return filepath.FromSlash(git(ctx, "rev-parse", "--show-toplevel"))
}

// git returns the output of git, or "" if it fails.
func git(ctx context.Context, arguments ...string) string {
	out, err := exec.CommandContext(ctx, "git", arguments...).Output() // arguments of our own
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

func kernel() string {
	release, _ := os.ReadFile("/proc/sys/kernel/osrelease") // only Linux has it
	return cmp.Or(strings.TrimSpace(string(release)), unknown)
}

// cpuModel is the processor's name as Linux has it.
func cpuModel() string {
	if fs, err := procfs.NewDefaultFS(); err == nil {
		if cores, err := fs.CPUInfo(); err == nil && len(cores) > 0 {
			return cores[0].ModelName
		}
	}
	return unknown
}

// caches is where Linux describes the first core's caches.
const caches = "/sys/devices/system/cpu/cpu0/cache"

// cache is the size in bytes of the cache of a level, 0 where the folder does not tell.
func cache(folder string, level int) int64 {
	line := func(index, file string) string {
		text, _ := os.ReadFile(filepath.Join(index, file)) // "" where there is none
		return strings.TrimSpace(string(text))
	}
	indexes, _ := filepath.Glob(filepath.Join(folder, "*")) // none without caches
	for _, index := range indexes {
		if line(index, "level") == strconv.Itoa(level) && line(index, "type") != "Instruction" {
			kib, _ := strconv.ParseInt(strings.TrimSuffix(line(index, "size"), "K"), 10, 64) // 0 unless it is a number
			return kib << 10
		}
	}
	return 0
}
