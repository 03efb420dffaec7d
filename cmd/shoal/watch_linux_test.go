package main

import (
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shoal-go/shoal/internal/testlog"
)

// openTerminal returns both ends of a terminal with that many columns and rows.
func openTerminal(t *testing.T, columns, rows uint16) (screen, terminal *os.File) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = screen.Close() })
	number, err := unix.IoctlGetInt(int(screen.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(screen.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = terminal.Close() })
	if err := unix.IoctlSetWinsize(int(terminal.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: columns, Row: rows}); err != nil {
		t.Fatal(err)
	}
	return screen, terminal
}

// A second interrupt ends the command also where its output is a pipe without a reader.
func TestWatch_SecondInterruptEndsIt(t *testing.T) {
	s := serveDev(t)
	const pipeBytes = 4096
	s.send(t, "u", progressMessage(10, strings.Repeat("x", 10*pipeBytes)))
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	if _, err := unix.FcntlInt(write.Fd(), unix.F_SETPIPE_SZ, pipeBytes); err != nil {
		t.Fatal(err)
	}
	command := asProcess(t, "watch", "u", "--json", "--dev", "--url="+s.url)
	command.Stdout = write
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = command.Process.Kill() })
	_ = write.Close()
	if _, err := read.Read(make([]byte, 1)); err != nil { // now the rest of the line fills the pipe
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = command.Wait()
	}()
	eventually(t, "the command ends", func() bool {
		_ = command.Process.Signal(unix.SIGTERM)
		select {
		case <-ended:
			return true
		default:
			return false
		}
	})
	status, ok := command.ProcessState.Sys().(syscall.WaitStatus)
	if !ok || status.Signal() != unix.SIGTERM {
		t.Errorf("it ended by itself: %v", command.ProcessState)
	}
}

// On a terminal there is a bar for each upload, within the width of the screen, and nothing of a message steers it.
func TestWatch_DrawsBarsOnTerminal(t *testing.T) {
	s := serveDev(t)
	screen, terminal := openTerminal(t, 80, 20)
	var drawn testlog.Buffer
	var reading sync.WaitGroup
	reading.Go(func() { _, _ = io.Copy(&drawn, screen) })
	var errs testlog.Buffer
	ended := make(chan int, 1)
	go func() {
		ended <- run(t.Context(), []string{"watch", "one", "a-second-upload-with-a-very-long-name", "--dev", "--url=" + s.url},
			nil, nil, terminal, &errs)
	}()
	s.send(t, "one", progressMessage(50, "half of it\u001b[2J"+strings.Repeat("long ", 50)))
	eventually(t, "the screen shows it", func() bool { return strings.Contains(drawn.String(), " 50% vision") })
	s.send(t, "one", `{"action":"note","text":"by\u001b[2J the way"}`)
	eventually(t, "the screen shows it", func() bool { return strings.Contains(drawn.String(), "one: note: by [2J the way") })
	s.send(t, "one", completedMessage)
	s.send(t, "a-second-upload-with-a-very-long-name", failedMessage)
	if status := ends(t, ended); status != statusFailed || !strings.HasSuffix(errs.String(), "-long-name failed: no space\n") {
		t.Errorf("status %d, errors:\n%s", status, &errs)
	}
	_ = terminal.Close()
	reading.Wait()
	text := drawn.String()
	steering := regexp.MustCompile(`\x1b\[[0-9]*A\x1b\[J`) // of the bars themselves
	plain := steering.ReplaceAllString(text, "")
	if strings.Contains(plain, "\x1b") {
		t.Errorf("an escape sequence is on the screen: %q", plain)
	}
	for line := range strings.SplitSeq(plain, "\r\n") {
		if n := len([]rune(line)); n > 80 {
			t.Errorf("%d columns: %q", n, line)
		}
	}
	for _, want := range []string{"one                  [", "] 100% completed  A cat", "a-second-upload-wit… ["} {
		if !strings.Contains(plain, want) {
			t.Errorf("no %q on the screen:\n%s", want, plain)
		}
	}
}
