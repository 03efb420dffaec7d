package worker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Pace calls a function n times, each at its planned time, however late the calls before are: perSecond of them a second. It
// returns the first planned time.
func Pace(perSecond float64, n int, do func(i int, planned time.Time) error) (start time.Time, err error) {
	period := time.Duration(float64(time.Second) / perSecond)
	ticks, start, err := newTicker(period)
	if err != nil {
		return start, err
	}
	defer ticks.Close()
	var expired [8]byte // how often the timer has expired since it was read
	for i := 0; i < n; {
		if _, err := ticks.Read(expired[:]); err != nil {
			return start, fmt.Errorf("worker: the timer: %w", err)
		}
		for due := binary.NativeEndian.Uint64(expired[:]); due > 0 && i < n; due-- {
			if err := do(i, start.Add(time.Duration(i)*period)); err != nil {
				return start, err
			}
			i++
		}
	}
	return start, nil
}

// newTicker returns a timer that expires at exact times, and the time of its first expiry. It wakes its goroutine through
// the runtime's poller, as a request does that makes a server publish: the runtime's timers are a millisecond coarse, and a
// thread that sleeps by itself hands its processor back late.
func newTicker(period time.Duration) (*os.File, time.Time, error) {
	const lead = 10 * time.Millisecond // so that the first call is on time
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("worker: no timer: %w", err)
	}
	file, start := os.NewFile(uintptr(fd), "timer"), time.Now().Add(lead)
	spec := &unix.ItimerSpec{Interval: unix.NsecToTimespec(int64(period)), Value: unix.NsecToTimespec(int64(lead))}
	if err := unix.TimerfdSettime(fd, 0, spec, nil); err != nil {
		return nil, time.Time{}, errors.Join(fmt.Errorf("worker: no timer: %w", err), file.Close())
	}
	return file, start, nil
}
