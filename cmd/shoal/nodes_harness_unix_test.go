//go:build unix

package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/shoal-go/shoal/internal/testlog"
)

// ports gives free ports of the loopback interface, each one once: a test may reserve several before a server listens on
// the first of them. It may be used from any goroutine.
type ports struct {
	lowest, count int
	offset        int // of the first port that is tried

	mu    sync.Mutex
	tried int
}

// testPorts are below the ports that systems give to outgoing connections, one of which may take a port before the node
// listens on it. Processes of tests that run at the same time begin at different ones.
var testPorts = ports{lowest: 20_000, count: 12_000, offset: rand.N(12_000)}

// take returns an address on which nothing listens yet, or "" if all ports have been tried.
func (p *ports) take() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.tried < p.count {
		port := p.lowest + (p.offset+p.tried)%p.count
		p.tried++
		listener, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", port))
		if err == nil {
			defer listener.Close()
			return listener.Addr().String()
		}
	}
	return ""
}

// freeAddress returns an address of the loopback interface on which nothing listens yet, and never the same one twice.
func freeAddress(t *testing.T) string {
	t.Helper()
	address := testPorts.take()
	if address == "" {
		t.Fatal("no port is free")
	}
	return address
}

// The ports that several goroutines take at the same time are all different.
func TestPorts_GivesEachOnce(t *testing.T) {
	const count, takers = 200, 4
	p := ports{lowest: 20_000, count: count, offset: count / 2}
	given := make(chan string, count)
	var taking sync.WaitGroup
	for range takers {
		taking.Go(func() {
			for address := p.take(); address != ""; address = p.take() {
				given <- address
			}
		})
	}
	taking.Wait()
	close(given)
	seen := make(map[string]bool)
	for address := range given {
		if seen[address] {
			t.Errorf("%s is given twice", address)
		}
		seen[address] = true
	}
	if len(seen) < 2 {
		t.Errorf("%d ports of %d are given", len(seen), count)
	}
}

// process is a node in a process of its own. Its methods are for the test's goroutine, but for address.
type process struct {
	t    *testing.T
	args []string
	// temp is its temporary folder: a node that is killed leaves the folder of its NATS server behind.
	temp    string
	log     *testlog.Buffer
	command *exec.Cmd
	logged  sync.WaitGroup

	mu         sync.Mutex
	url, admin string // "" while it is down
}

// startNode starts a node, which serves when this returns, but may not be ready.
func startNode(t *testing.T, args ...string) *process {
	t.Helper()
	p := &process{t: t, temp: t.TempDir(), log: &testlog.Buffer{}, args: append([]string{
		"serve", "--dev", "--addr=127.0.0.1:0", "--admin-addr=127.0.0.1:0", "--drain=1s", "--history-messages=10000",
	}, args...)}
	p.restart()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("the log of %q ends with\n%s", args, tail(p.log.String()))
		}
	})
	return p
}

func tail(text string) string {
	lines := strings.Split(text, "\n")
	return strings.Join(lines[max(0, len(lines)-30):], "\n")
}

// restart starts the node again, on other ports.
func (p *process) restart() {
	p.t.Helper()
	p.command = exec.Command(os.Args[0], p.args...)
	p.command.Env = append(os.Environ(), asCommand+"=1", "TMPDIR="+p.temp)
	p.command.Stderr = p.log
	out, err := p.command.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := p.command.Start(); err != nil {
		p.t.Fatal(err)
	}
	welcome := bufio.NewScanner(out)
	if !welcome.Scan() {
		p.t.Fatalf("it ended with %v:\n%s", p.command.Wait(), p.log)
	}
	url, admin, _ := strings.Cut(strings.TrimPrefix(welcome.Text(), "shoal serves on "), ", health on ")
	p.set(url, admin)
	p.logged.Go(func() { // or the node could not print any more
		for welcome.Scan() {
		}
	})
}

func (p *process) set(url, admin string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.url, p.admin = url, admin
}

// address returns the node's URL, "" while it is down.
func (p *process) address() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.url
}

// ready reports whether the node says that it is.
func (p *process) ready() bool { return p.health() == http.StatusOK }

// health returns the status that the node's readiness has.
func (p *process) health() int {
	p.t.Helper()
	status, _ := call(p.t, "GET", p.admin+"/readyz", "", "")
	return status
}

func (p *process) signal(s os.Signal) {
	p.t.Helper()
	if err := p.command.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// pause stops the node from doing anything until it gets SIGCONT, and returns when it has stopped.
func (p *process) pause() {
	p.t.Helper()
	p.signal(syscall.SIGSTOP)
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(p.command.Process.Pid, &status, syscall.WUNTRACED, nil); err != nil || !status.Stopped() {
		p.t.Fatalf("it did not stop: %v, status %v", err, status)
	}
}

// terminate ends the node in an orderly way.
func (p *process) terminate() {
	p.t.Helper()
	p.signal(syscall.SIGTERM)
	if err := p.wait(); err != nil {
		p.t.Errorf("it ended with %v:\n%s", err, tail(p.log.String()))
	}
}

// kill ends the node as if its machine had lost power. It does nothing if the node is down.
func (p *process) kill() {
	if p.address() != "" {
		_ = p.command.Process.Kill()
		_ = p.wait()
	}
}

func (p *process) wait() error {
	p.logged.Wait()
	err := p.command.Wait()
	p.set("", "")
	http.DefaultClient.CloseIdleConnections()
	return err
}

// redisServer is a Redis without persistence on a port of its own.
type redisServer struct {
	t       *testing.T
	address string
	args    []string
	command *exec.Cmd
	log     testlog.Buffer
	ended   chan struct{} // closed when command has ended
}

// reserveRedis returns a Redis that is not started yet. args are settings as on its command line.
func reserveRedis(t *testing.T, args ...string) *redisServer {
	t.Helper()
	r := &redisServer{t: t, address: freeAddress(t)}
	_, port, _ := net.SplitHostPort(r.address)
	r.args = append([]string{"--bind", "127.0.0.1", "--port", port, "--dir", t.TempDir(), "--save", "", "--appendonly", "no"}, args...)
	t.Cleanup(func() {
		r.kill()
		if t.Failed() {
			t.Logf("Redis at %s logged:\n%s", r.address, tail(r.log.String()))
		}
	})
	return r
}

// start starts the server, and returns when it answers.
func (r *redisServer) start() *redisServer {
	r.t.Helper()
	name := os.Getenv("SHOAL_REDIS_SERVER")
	if name == "" {
		name = "redis-server"
	}
	command, ended := exec.Command(name, r.args...), make(chan struct{})
	command.Stdout, command.Stderr = &r.log, &r.log
	if err := command.Start(); err != nil {
		r.t.Fatalf("these tests need Redis 7.0 or newer: install redis-server, or set SHOAL_REDIS_SERVER to its path: %v", err)
	}
	r.command, r.ended = command, ended
	go func() {
		defer close(ended)
		_ = command.Wait()
	}()
	eventually(r.t, "Redis answers", func() bool { return r.do("PING") != "" || r.hasEnded() })
	if r.hasEnded() {
		r.t.Fatalf("Redis ended with %v", command.ProcessState)
	}
	return r
}

func (r *redisServer) hasEnded() bool {
	select {
	case <-r.ended:
		return true
	default:
		return false
	}
}

// kill ends the server, with all that it held.
func (r *redisServer) kill() {
	if r.command != nil {
		_ = r.command.Process.Kill()
		<-r.ended
		r.command = nil
	}
}

// do sends a command and returns the first line of the answer, or "".
func (r *redisServer) do(words ...string) string {
	conn, err := net.DialTimeout("tcp", r.address, patience)
	if err != nil {
		return ""
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	var quoted []string
	for _, word := range words {
		text, _ := json.Marshal(word)
		quoted = append(quoted, string(text))
	}
	_, _ = conn.Write([]byte(strings.Join(quoted, " ") + "\r\n"))
	line, _ := bufio.NewReader(conn).ReadString('\n')
	return strings.TrimSpace(line)
}

// startNodes returns three nodes that are ready, each with the arguments that args returns for its name.
func startNodes(t *testing.T, args func(name string) []string) []*process {
	t.Helper()
	var nodes []*process
	for _, name := range []string{"a", "b", "c"} {
		nodes = append(nodes, startNode(t, append(args(name), "--node-name="+name)...))
	}
	for _, n := range nodes {
		eventually(t, "the node is ready", n.ready)
	}
	return nodes
}

// wantNoWarning fails the test if a node has logged a warning: its start was a normal one.
func (p *process) wantNoWarning() {
	p.t.Helper()
	if strings.Contains(p.log.String(), "level=WARN") {
		p.t.Errorf("a normal start warns:\n%s", p.log)
	}
}

// startNodesInRedis returns three nodes that a Redis joins.
func startNodesInRedis(t *testing.T) ([]*process, *redisServer) {
	t.Helper()
	redis := reserveRedis(t).start()
	return startNodes(t, func(string) []string { return []string{"--broker=redis://" + redis.address} }), redis
}

// startNodesOfNATS returns three nodes that are a cluster of NATS servers themselves.
func startNodesOfNATS(t *testing.T) []*process {
	t.Helper()
	routes, addresses := []string{"--broker=nats-embedded"}, make(map[string]string)
	for _, name := range []string{"a", "b", "c"} {
		addresses[name] = freeAddress(t)
		routes = append(routes, "--cluster-route="+addresses[name])
	}
	return startNodes(t, func(name string) []string {
		return append([]string{"--cluster-addr=" + addresses[name]}, routes...)
	})
}
