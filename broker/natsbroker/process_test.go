//go:build unix

package natsbroker_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/broker/brokertest"
	"github.com/shoal-go/shoal/broker/natsbroker"
)

// TestFaults lets a server that is a process of its own, and the ways to it, fail in the middle of traffic.
func TestFaults(t *testing.T) {
	const messages = 64
	brokertest.Faults(t, brokertest.FaultConfig{
		Engine: serverProcess,
		Node: func(t testing.TB, addr string) broker.HistoryBroker {
			return newBroker(t, natsbroker.Options{
				URL: "nats://" + addr, Messages: messages, TTL: time.Hour, File: true,
				ProbeInterval: 200 * time.Millisecond, ConnectTimeout: 500 * time.Millisecond,
			})
		},
		Messages: messages,
		Durable:  true,
	})
}

// serverProcess starts a server as a process of its own, which keeps messages in files.
func serverProcess(t testing.TB) brokertest.Engine {
	t.Helper()
	addr := brokertest.FreeAddr(t)
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	folder := ""
	return brokertest.StartProcess(t, addr, func(keep bool) *exec.Cmd {
		if !keep {
			folder = t.TempDir()
		}
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), serverPort+"="+port, serverFolder+"="+folder)
		return cmd
	})
}

// limitedServer is a server that is a process of its own, with a user who may not publish to some subjects.
type limitedServer struct {
	t       *testing.T
	addr    string
	config  string
	process *os.Process
}

func startLimited(t *testing.T) *limitedServer {
	t.Helper()
	s := &limitedServer{t: t, addr: brokertest.FreeAddr(t), config: filepath.Join(t.TempDir(), "nats.conf")}
	s.write("unused")
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), serverConfig+"="+s.config)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.process = cmd.Process
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return s
}

func (s *limitedServer) write(denied string) {
	s.t.Helper()
	text := fmt.Sprintf(`
listen: %q
jetstream { store_dir: %q }
authorization { users: [{ user: limited, password: limited, permissions: { publish: { deny: %q } } }] }
`, s.addr, filepath.Dir(s.config), denied)
	if err := os.WriteFile(s.config, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// deny has the server take away the permission to publish to a subject.
func (s *limitedServer) deny(subject string) {
	s.t.Helper()
	s.write(subject)
	if err := s.process.Signal(syscall.SIGHUP); err != nil {
		s.t.Fatal(err)
	}
}

// TestBroker_PermissionTakenAway: a connected node whose user may no longer publish to some subjects is unhealthy, for a
// reason that names the missing permission.
func TestBroker_PermissionTakenAway(t *testing.T) {
	for denied, publish := range map[string]func(context.Context, *node) error{
		"upload.>": func(ctx context.Context, n *node) error {
			_, err := n.Store(ctx, "upload:x", []byte("1"))
			return err
		},
		"live.>": func(ctx context.Context, n *node) error { return n.Publish(ctx, "upload:x", []byte("1")) },
	} {
		t.Run(denied, func(t *testing.T) {
			s := startLimited(t)
			n := join(t, natsbroker.Options{
				URL: "nats://limited:limited@" + s.addr, ProbeInterval: 200 * time.Millisecond, File: true,
			})
			n.store(t, "upload:x", "0")
			s.deny(denied)
			ctx, cancel := context.WithCancel(t.Context())
			called := make(chan struct{})
			go func() { // a refused request has no response
				defer close(called)
				for ctx.Err() == nil {
					_ = publish(ctx, n)
				}
			}()
			n.Await(t, "bad health that names the permission", func() bool {
				fault := n.Fault()
				return fault != nil && strings.Contains(fault.Error(), "missing permissions") &&
					strings.Contains(fault.Error(), strings.TrimSuffix(denied, ">"))
			})
			cancel()
			<-called
		})
	}
}
