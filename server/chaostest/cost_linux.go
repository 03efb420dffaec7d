package chaostest

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// usage holds the resources of a process at a moment.
type usage struct {
	memory      int64
	descriptors int
	cpu         time.Duration
}

// measure reads the usage of a process; everything is 0 for a process that does not exist.
func measure(process int) (u usage) {
	folder := fmt.Sprintf("/proc/%d/", process)
	if text, err := os.ReadFile(folder + "statm"); err == nil {
		if fields := strings.Fields(string(text)); len(fields) > 1 {
			pages, _ := strconv.ParseInt(fields[1], 10, 64)
			u.memory = pages * int64(os.Getpagesize())
		}
	}
	if all, err := os.ReadDir(folder + "fd"); err == nil {
		u.descriptors = len(all)
	}
	text, err := os.ReadFile(folder + "stat")
	if err != nil {
		return u
	}
	// The name of the program, in parentheses, may hold spaces. The times are fields 14 and 15, in hundredths.
	fields := strings.Fields(string(text[strings.LastIndex(string(text), ")")+1:]))
	const user, system = 14 - 3, 15 - 3
	if len(fields) > system {
		for _, at := range []int{user, system} {
			ticks, _ := strconv.ParseInt(fields[at], 10, 64)
			u.cpu += time.Duration(ticks) * 10 * time.Millisecond
		}
	}
	return u
}

// watchCost measures a process until the returned function is called, which returns the most memory and descriptors
// beyond the first measurement, and the processor time since then.
func watchCost(process int) (stop func() (memory int64, descriptors int, cpu time.Duration)) {
	if process == 0 {
		return func() (int64, int, time.Duration) { return 0, 0, 0 }
	}
	before := measure(process)
	most := before
	end, done := make(chan struct{}), make(chan struct{})
	note := func() {
		now := measure(process)
		most.memory = max(most.memory, now.memory)
		most.descriptors = max(most.descriptors, now.descriptors)
		most.cpu = max(most.cpu, now.cpu)
	}
	go func() {
		defer close(done)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-end:
				return
			case <-tick.C:
				note()
			}
		}
	}()
	return func() (int64, int, time.Duration) {
		close(end)
		<-done
		note()
		return most.memory - before.memory, most.descriptors - before.descriptors, most.cpu - before.cpu
	}
}
