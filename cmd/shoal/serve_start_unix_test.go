//go:build unix

package main

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/shoal-go/shoal/internal/testlog"
)

// SIGHUP does not end a server whose settings are still being read, and is answered by a reload.
func TestServe_SurvivesSIGHUPWhileItReadsSettings(t *testing.T) {
	const settings = "dev: true\naddr: 127.0.0.1:0\nadmin-addr: 127.0.0.1:0\n"
	config := filepath.Join(t.TempDir(), "shoal.yaml")
	if err := syscall.Mkfifo(config, 0o600); err != nil {
		t.Fatal(err)
	}
	var log testlog.Buffer
	command := asProcess(t, "serve", "--config="+config)
	command.Stderr = &log
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = command.Process.Kill() })
	fifo, err := os.OpenFile(config, os.O_WRONLY, 0) // returns when the server has opened the file
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(config); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(config, []byte(settings), 0o600); err != nil { // for the reload
		t.Fatal(err)
	}
	if _, err := fifo.WriteString(settings); err != nil {
		t.Fatal(err)
	}
	_ = fifo.Close()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = command.Wait()
	}()
	eventually(t, "it reloads", func() bool {
		select {
		case <-ended:
			t.Fatalf("it ended with %v:\n%s", command.ProcessState, &log)
		default:
		}
		return strings.Contains(log.String(), "msg=reloaded")
	})
	if err := command.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if <-ended; command.ProcessState.ExitCode() != statusDone {
		t.Errorf("it ended with %v:\n%s", command.ProcessState, &log)
	}
}

// SIGTERM ends a server in order that hangs while it reads its settings.
func TestServe_EndsWhileItReadsSettings(t *testing.T) {
	config := writeFile(t, "shoal.yaml", "")
	reached := hangReads(t, config)
	command := asProcess(t, "serve", "--config="+config)
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	reached()
	if err := command.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if _ = command.Wait(); command.ProcessState.ExitCode() != statusDone {
		t.Errorf("it ended with %v", command.ProcessState)
	}
}

// asProcess returns the command in a process of its own. One that has not ended soon is killed, and fails the test.
func asProcess(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), soon)
	t.Cleanup(cancel)
	command := exec.CommandContext(ctx, os.Args[0], args...)
	command.Env = append(os.Environ(), asCommand+"=1")
	command.Cancel = func() error {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			t.Errorf("shoal %q has not ended within %v", args, soon)
		}
		return command.Process.Kill()
	}
	return command
}

// SIGTERM and SIGINT during the start end the process in order, and within --drain if a step of the start hangs.
func TestServe_EndsInOrderDuringTheStart(t *testing.T) {
	for name, c := range map[string]struct {
		signal syscall.Signal
		drain  string
		hangs  bool
		want   string
	}{
		"SIGTERM":         {syscall.SIGTERM, "1m", false, "msg=ended"},
		"SIGINT":          {syscall.SIGINT, "1m", false, "msg=ended"},
		"step that hangs": {syscall.SIGTERM, "100ms", true, `msg="shutdown step failed" step=start`},
	} {
		t.Run(name, func(t *testing.T) {
			var log testlog.Buffer
			asked, ended := make(chan struct{}, 10), make(chan struct{})
			keys := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				asked <- struct{}{}
				if c.hangs {
					<-ended
				}
				for !strings.Contains(log.String(), "msg=draining") {
					select {
					case <-ended:
						return
					default:
						runtime.Gosched()
					}
				}
				w.WriteHeader(http.StatusServiceUnavailable)
			}))
			defer keys.Close()
			socket := filepath.Join(t.TempDir(), "s")
			command := asProcess(t, "serve", "--jwks="+keys.URL, "--jwt-audience=any", "--authorize=open",
				"--addr=unix:"+socket, "--admin-addr=127.0.0.1:0", "--drain="+c.drain)
			command.Stderr = &log
			if err := command.Start(); err != nil {
				t.Fatal(err)
			}
			<-asked // the listeners are open
			if err := command.Process.Signal(c.signal); err != nil {
				t.Error(err)
			}
			_ = command.Wait()
			close(ended)
			text := log.String()
			if command.ProcessState.ExitCode() != statusDone || !strings.Contains(text, c.want) || strings.Contains(text, "msg=serving") {
				t.Errorf("it ended with %v, want status 0 and %s:\n%s", command.ProcessState, c.want, text)
			}
			if _, err := os.Lstat(socket); !c.hangs && !os.IsNotExist(err) {
				t.Errorf("the socket is left behind: %v", err)
			}
		})
	}
}

// The signals of other commands are left alone, also if an argument is called serve.
func TestIsServe_FindsTheCommand(t *testing.T) {
	for line, want := range map[string]bool{
		"serve": true, "serve --config f": true, "--config f serve --dev": true, "--config=f serve": true, "--config serve serve": true,
		"": false, "--config": false, "--config serve": false, "watch serve": false, "--config serve publish serve": false,
	} {
		if got := isServe(strings.Fields(line)); got != want {
			t.Errorf("%q: %v, want %v", line, got, want)
		}
	}
}

// SIGHUP ends the commands other than serve, also if an argument has that name.
func TestWatch_EndsOnSIGHUP(t *testing.T) {
	s := serveDev(t)
	s.send(t, "serve", progressMessage(10, "before"))
	command := asProcess(t, "watch", "serve", "--dev", "--url="+s.url)
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 64)); err != nil {
		t.Error(err)
	}
	if err := command.Process.Signal(syscall.SIGHUP); err != nil {
		t.Error(err)
	}
	_ = command.Wait()
	if status, ok := command.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGHUP {
		t.Errorf("it ended with %v, want the signal", command.ProcessState)
	}
}
