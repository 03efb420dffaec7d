//go:build unix

package natsbroker_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

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
	more    string // further lines of the configuration
}

func startLimited(t *testing.T, user string) *limitedServer {
	t.Helper()
	s := &limitedServer{t: t, addr: brokertest.FreeAddr(t), config: filepath.Join(t.TempDir(), "nats.conf")}
	s.write(user)
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

func (s *limitedServer) write(user string) {
	s.t.Helper()
	text := fmt.Sprintf("listen: %q\njetstream { store_dir: %q }\nauthorization { users: [{ %s }] }\n%s\n",
		s.addr, filepath.Dir(s.config), user, s.more)
	if err := os.WriteFile(s.config, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// accept has the server accept another user.
func (s *limitedServer) accept(user string) {
	s.t.Helper()
	s.write(user)
	if err := s.process.Signal(syscall.SIGHUP); err != nil {
		s.t.Fatal(err)
	}
}

// deny has the server take away the permission to publish to a subject, and give back the one that it took before.
func (s *limitedServer) deny(subject string) {
	s.t.Helper()
	s.accept(limited(subject))
}

// limited is the user who may not publish to a subject.
func limited(denied string) string {
	return fmt.Sprintf("user: limited, password: limited, permissions: { publish: { deny: %q } }", denied)
}

// TestBroker_PermissionTakenAway: a connected node whose user may no longer publish to some subjects is unhealthy, for a
// reason that names the missing permission, until the user has it again.
func TestBroker_PermissionTakenAway(t *testing.T) {
	for denied, publish := range map[string]func(context.Context, *node) error{
		"upload.>": func(ctx context.Context, n *node) error {
			_, err := n.Store(ctx, "upload:x", []byte("1"))
			return err
		},
		"live.>": func(ctx context.Context, n *node) error { return n.Publish(ctx, "upload:x", []byte("1")) },
	} {
		t.Run(denied, func(t *testing.T) {
			s := startLimited(t, limited("unused"))
			n := join(t, natsbroker.Options{
				URL: "nats://limited:limited@" + s.addr, ProbeInterval: 200 * time.Millisecond, File: true,
			})
			n.store(t, "upload:x", "0")
			s.deny(denied)
			attempt := func() { // a refused request has no response
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
				defer cancel()
				_ = publish(ctx, n)
			}
			const most = 1500 // attempts, in 30 s
			for i := range most {
				attempt()
				if fault := n.Fault(); fault != nil && strings.Contains(fault.Error(), "missing permissions") &&
					strings.Contains(fault.Error(), strings.TrimSuffix(denied, ">")) {
					break
				} else if i == most-1 {
					t.Fatalf("its health is %v", fault)
				}
			}
			before := len(n.HealthReports())
			for range 50 { // more than two intervals
				attempt()
			}
			if reports := n.HealthReports()[before:]; slices.Contains(reports, nil) {
				t.Errorf("without the permission its health was %v", reports)
			}
			s.deny("unused")
			n.awaitHealth(t, true)
			if err := publish(t.Context(), n); err != nil {
				t.Errorf("with the permission: %v", err)
			}
		})
	}
}

// TestBroker_RefusedUploadFailsAlone: a node that may not publish to one upload stays healthy and serves the others.
func TestBroker_RefusedUploadFailsAlone(t *testing.T) {
	s := startLimited(t, limited("unused"))
	n := join(t, natsbroker.Options{
		URL: "nats://limited:limited@" + s.addr, ProbeInterval: 50 * time.Millisecond, File: true,
	})
	n.store(t, "upload:x", "0")
	before := len(n.HealthReports())
	s.deny("upload.x")
	refused := 0
	for i := 0; i < 1500 && refused < 20; i++ { // more than two intervals
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		if _, err := n.Store(ctx, "upload:x", []byte("1")); errors.Is(err, nats.ErrPermissionViolation) {
			refused++
		}
		cancel()
	}
	if refused < 20 {
		t.Errorf("%d of 1500 messages were refused", refused)
	}
	n.store(t, "upload:y", "0")
	if reports := n.HealthReports()[before:]; len(reports) > 0 {
		t.Errorf("its health was %v", reports)
	}
}

// TestBroker_ReplacedKeyIsUsed: a connected node whose nkey is replaced, in its file first and at the server later,
// connects again without a restart.
func TestBroker_ReplacedKeyIsUsed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "seed")
	issue := func() (user string) {
		key, public := create(t, nkeys.CreateUser)
		seed, err := key.Seed()
		if err == nil {
			err = os.WriteFile(file, seed, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		return "nkey: " + public
	}
	s := startLimited(t, issue())
	n := join(t, natsbroker.Options{
		URL: "nats://" + s.addr, NKeyFile: file, File: true, ProbeInterval: 200 * time.Millisecond,
	})
	renewed := issue()
	_, other := create(t, nkeys.CreateUser)
	s.accept("nkey: " + other)
	n.Await(t, "bad health by a connection with the new key", func() bool {
		fault := n.Fault()
		return fault != nil && strings.Contains(fault.Error(), "natsbroker: connect: nats: Auth")
	})
	s.accept(renewed)
	n.awaitHealth(t, true)
	n.store(t, "upload:x", "1")
}

// TestBroker_LowerPayloadOfTheServer: a node learns of a max_payload that was lowered when it exceeds it. It names the
// reason and the remedy then, and for each message that is still too large, and stores smaller ones.
func TestBroker_LowerPayloadOfTheServer(t *testing.T) {
	const remedy = "raise max_payload of the NATS servers"
	user := limited("unused")
	s := startLimited(t, user)
	n := join(t, natsbroker.Options{
		URL: "nats://limited:limited@" + s.addr, ProbeInterval: 200 * time.Millisecond, File: true,
	})
	s.more = "max_payload: 2048"
	s.accept(user)
	var err error
	brokertest.Eventually(t, "the refusal of a large message for good", func() error {
		if _, err = n.Store(t.Context(), "upload:x", make([]byte, 3000)); err == nil || errors.Is(err, broker.ErrUnavailable) {
			return errNotYet
		}
		return nil
	})
	if text := err.Error(); !errors.Is(err, nats.ErrMaxPayload) || !strings.Contains(text, "2048 bytes: "+remedy) {
		t.Errorf("Store returned %v, want it to name the limit and the remedy", err)
	}
	if !slices.ContainsFunc(n.HealthReports(), func(err error) bool {
		return err != nil && strings.Contains(err.Error(), remedy)
	}) {
		t.Errorf("the health was %v, want the remedy where the server closed the connection", n.HealthReports())
	}
	n.awaitHealth(t, true)
	n.store(t, "upload:x", "1")
}
