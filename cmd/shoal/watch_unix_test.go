//go:build unix

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// The command continues when a server is killed and started again, and reports it.
func TestWatch_SurvivesRestart(t *testing.T) {
	address := freeAddress(t)
	p := startNode(t, "--addr="+address)
	node := &served{url: "http://" + address}
	node.send(t, "u", progressMessage(10, "before"))
	w := begin(t, "watch", "u", "--dev", "--url="+node.url)
	w.want("u: 10% vision_analysis: before")
	p.kill()
	eventually(t, "the interruption is told", func() bool { return w.errs.String() != "" })
	p.restart()
	node.send(t, "u", progressMessage(50, "after"))
	w.want("u: 50% vision_analysis: after")
	p.terminate()
	p.restart()
	node.send(t, "u", completedMessage)
	w.want("u: 100% completed: A cat")
	for w.lines.Scan() {
		t.Errorf("printed %q too", w.lines.Text())
	}
	if status := ends(t, w.ended); status != statusDone {
		t.Errorf("status %d, errors:\n%s", status, w.errs)
	}
}

// A token may come through a pipe, such as that of a shell's <(shoal token …).
func TestWatch_ReadsTokenFromPipe(t *testing.T) {
	s := serve(t, 1, "--jwt-secret="+goodSecret, "--authorize=open", "--api-key="+devSecret)
	token := shoal(t, nil, "", "token", "ann", "--jwt-secret="+goodSecret)
	token.wantDone(t)
	s.send(t, "u", completedMessage)
	pipe := filepath.Join(t.TempDir(), "token")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	go func() {
		if err := os.WriteFile(pipe, []byte(token.out), 0o600); err != nil {
			t.Error(err)
		}
		// Another read gets nothing, and does not hang.
		_ = os.Remove(pipe)
		_ = os.WriteFile(pipe, nil, 0o600)
	}()
	shoal(t, nil, "", "watch", "u", "--token-file="+pipe, "--url="+s.url).wantDone(t)
}

// An interrupt ends the command at once, with a status of its own and one line.
func TestWatch_EndsOnInterrupt(t *testing.T) {
	s := serveDev(t)
	s.send(t, "u", progressMessage(10, "before"))
	command := asProcess(t, "watch", "u", "--dev", "--url="+s.url)
	var errs bytes.Buffer
	command.Stderr = &errs
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	first := make([]byte, 64)
	if _, err := out.Read(first); err != nil {
		t.Error(err)
	}
	if err := command.Process.Signal(syscall.SIGINT); err != nil {
		t.Error(err)
	}
	_ = command.Wait()
	if status := command.ProcessState.ExitCode(); status != statusGivenUp ||
		errs.String() != "shoal: interrupted; 1 of 1 uploads have not ended\n" {
		t.Errorf("status %d, errors:\n%s", status, &errs)
	}
}
