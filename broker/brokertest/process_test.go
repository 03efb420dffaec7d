//go:build unix

package brokertest_test

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/shoal-go/shoal/broker/brokertest"
)

// greeting returns the greeting at addr.
func greeting(t *testing.T, addr string, patience time.Duration) (string, error) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	words := make([]byte, 100)
	n, err := conn.Read(words)
	return string(words[:n]), err
}

func TestProcess_IsPausedAndKilled(t *testing.T) {
	addr := brokertest.FreeAddr(t)
	p := brokertest.StartProcess(t, addr, func(keep bool) *exec.Cmd {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), listenAt+"="+addr, "GREETING=empty")
		if keep {
			cmd.Env = append(cmd.Env, "GREETING=full")
		}
		return cmd
	})
	wants := func(want string) {
		t.Helper()
		if got, err := greeting(t, p.Addr(), 20*time.Second); got != want {
			t.Errorf("the engine greets by %q, %v, want %q", got, err, want)
		}
	}
	wants("empty")
	p.Pause()
	if got, err := greeting(t, addr, 50*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a paused engine greets by %q, %v, want it to accept and say nothing", got, err)
	}
	p.Resume()
	wants("empty")
	p.Kill()
	if got, err := greeting(t, addr, 20*time.Second); err == nil {
		t.Errorf("a killed engine greets by %q", got)
	}
	p.Restart(true)
	wants("full")
	p.Pause()
	p.Kill()
	p.Restart(false)
	wants("empty")
}
