package main

import (
	"os"
	"testing"
)

func TestMemoryLimit_IsTheLowestOfAll(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		want  int64
	}{
		"nothing known": {nil, unknownMemory},
		"machine":       {map[string]string{"/proc/meminfo": "MemFree: 1 kB\nMemTotal:   2048 kB\n"}, 2 << 20},
		"container": {map[string]string{
			"/proc/meminfo": "MemTotal: 2048 kB\n", "/proc/self/cgroup": "0::/\n", "/sys/fs/cgroup/memory.max": "1000000\n",
		}, 1_000_000},
		"service below a slice": {map[string]string{
			"/proc/self/cgroup":                           "0::/a.slice/b.service\n",
			"/sys/fs/cgroup/memory.max":                   "max\n",
			"/sys/fs/cgroup/a.slice/memory.max":           "7000\n",
			"/sys/fs/cgroup/a.slice/b.service/memory.max": "9000\n",
			"/sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
			"/sys/fs/cgroup/another.slice/c/memory.max":   "5\n",
		}, 7000},
		"unreadable": {map[string]string{"/proc/meminfo": "MemTotal: x kB", "/sys/fs/cgroup/memory.max": ""}, unknownMemory},
	} {
		read := func(path string) ([]byte, error) {
			if text, ok := c.files[path]; ok {
				return []byte(text), nil
			}
			return nil, os.ErrNotExist
		}
		if got := memoryLimit(read); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

// Bodies take an eighth of a small memory limit.
func TestMaxBodiesBytes_IsAShareOfTheMemory(t *testing.T) {
	for memory, want := range map[int64]int{0: 1, 200 << 20: 25 << 20, 2 << 30: 256 << 20, 1 << 62: 256 << 20} {
		if got := maxBodiesBytes(memory); got != want {
			t.Errorf("%d of %d bytes, want %d", got, memory, want)
		}
	}
}
