//go:build unix

package main

import (
	"bufio"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

func TestServeEndsOnSIGTERM(t *testing.T) {
	s := serveDev(t)
	if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if status := s.wait(); status != statusDone || !strings.Contains(s.log.String(), "msg=ended") {
		t.Errorf("status = %d, log:\n%s", status, s.log)
	}
}

func TestServeEndsAtOnceOnASecondSignal(t *testing.T) {
	command := exec.CommandContext(t.Context(), os.Args[0],
		"serve", "--dev", "--addr=127.0.0.1:0", "--admin-addr=127.0.0.1:0", "--drain=1m")
	command.Env = append(os.Environ(), asCommand+"=1")
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	log, err := command.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	welcome := bufio.NewScanner(out)
	welcome.Scan()
	address, _, _ := strings.Cut(strings.TrimPrefix(welcome.Text(), "shoal serves on http://"), ",")
	login(t, "http://"+address) // does not answer the close, so the draining does not end by itself
	lines := bufio.NewScanner(log)
	for signalled := false; lines.Scan(); {
		if !signalled {
			signalled = true
			sendSignal(t, command)
		}
		if strings.Contains(lines.Text(), "msg=draining") {
			sendSignal(t, command)
		}
		if strings.Contains(lines.Text(), "msg=ended") {
			t.Error("it ended in an orderly way")
		}
	}
	_ = command.Wait()
	status, ok := command.ProcessState.Sys().(syscall.WaitStatus)
	if !ok || !status.Signaled() || status.Signal() != syscall.SIGTERM {
		t.Errorf("it ended with %v, want the signal", command.ProcessState)
	}
}

func sendSignal(t *testing.T, command *exec.Cmd) {
	t.Helper()
	if err := command.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
}

// A reader of the log that dies, such as a log shipper, does not end the service.
func TestServe_OutlivesTheReaderOfItsLog(t *testing.T) {
	command := exec.CommandContext(t.Context(), os.Args[0],
		"serve", "--dev", "--addr=127.0.0.1:0", "--admin-addr=127.0.0.1:0", "--log-level=debug")
	command.Env = append(os.Environ(), asCommand+"=1")
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	log, err := command.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	welcome := bufio.NewScanner(out)
	welcome.Scan()
	address, _, _ := strings.Cut(strings.TrimPrefix(welcome.Text(), "shoal serves on "), ",")
	log.Close()
	out.Close()
	for range 3 {
		login(t, address) // each writes lines to the log
		if status, _ := call(t, "GET", address+"/v1/stats", "dev", ""); status != 200 {
			t.Errorf("it answers %d", status)
		}
	}
	sendSignal(t, command)
	_ = command.Wait()
	if status := command.ProcessState.ExitCode(); status != statusDone {
		t.Errorf("it ended with %v", command.ProcessState)
	}
}
