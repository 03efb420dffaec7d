package brokertest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"
)

// Engine is a running engine that a test stops, pauses and restarts.
type Engine interface {
	// Addr is where it listens, host:port. It stays the same.
	Addr() string
	// Kill ends it without notice.
	Kill()
	// Restart starts it after Kill, with its stored data or empty, and returns when it listens.
	Restart(keep bool)
	// Pause stops it where it is, while its connections stay.
	Pause()
	// Resume ends Pause.
	Resume()
}

// Process is an Engine that is a process of its own. It is not for use by several goroutines at once.
type Process struct {
	t       testing.TB
	addr    string
	command func(keep bool) *exec.Cmd
	running *exec.Cmd // nil after Kill
}

var _ Engine = (*Process)(nil)

// StartProcess starts an engine, and returns when it accepts connections at addr, host:port. The command is made
// again for each start, and finds the data of the previous one only if keep is true. It ends with the test.
func StartProcess(t testing.TB, addr string, command func(keep bool) *exec.Cmd) *Process {
	t.Helper()
	p := &Process{t: t, addr: addr, command: command}
	t.Cleanup(p.Kill)
	p.Restart(false)
	return p
}

// FreeAddr returns an address of this machine, host:port, at which nothing listens. Its port is below those that
// systems give to outgoing connections, so that none takes it before the engine starts.
func FreeAddr(t testing.TB) string {
	t.Helper()
	const lowest, count, attempts = 10_000, 20_000, 100
	for range attempts {
		listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", lowest+rand.IntN(count)))
		if err != nil {
			continue
		}
		defer listener.Close()
		return listener.Addr().String()
	}
	t.Fatalf("none of %d ports is free", attempts)
	return ""
}

// Addr is where the process listens.
func (p *Process) Addr() string { return p.addr }

// Kill ends the process without notice.
func (p *Process) Kill() {
	if p.running == nil {
		return
	}
	_ = p.running.Process.Kill() // fails only if it has ended
	_ = p.running.Wait()         // says that it was killed
	p.running = nil
}

// Restart starts the process after Kill, and returns when it accepts connections.
func (p *Process) Restart(keep bool) {
	p.t.Helper()
	p.running = p.command(keep)
	if err := p.running.Start(); err != nil {
		p.running = nil
		p.t.Fatalf("starting the engine: %v", err)
	}
	Eventually(p.t, "the engine listens at "+p.addr, func() error {
		conn, err := net.Dial("tcp", p.addr)
		if err == nil {
			_ = conn.Close()
		}
		return err
	})
}

// Eventually calls try every ten milliseconds until it returns nil, and ends the test after 30 seconds.
func Eventually(t testing.TB, event string, try func() error) {
	t.Helper()
	const patience = 30 * time.Second
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-timeout.C:
			t.Fatalf("after %v still waiting until %s: %v", patience, event, err)
		}
	}
}

// Link is a way to a TCP server that a test cuts, silences and slows. It is not for use by several goroutines at once.
type Link struct {
	t     testing.TB
	proxy *toxiproxy.Proxy
	// toxics are the names of the link's faults, except for being cut.
	toxics []string
}

// NewLink opens a link to the server at upstream, host:port. It ends with the test.
func NewLink(t testing.TB, upstream string) *Link {
	t.Helper()
	zerolog.SetGlobalLevel(zerolog.Disabled) // it logs some intended faults past its logger
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	l := &Link{t: t, proxy: toxiproxy.NewProxy(server, "link", "127.0.0.1:0", upstream)}
	if err := l.proxy.Start(); err != nil {
		t.Fatalf("opening a link to %s: %v", upstream, err)
	}
	t.Cleanup(func() {
		l.Mend()
		l.proxy.Stop()
	})
	return l
}

// LeftByLinks are options with which goleak ignores goroutines that links may leave behind, and no others. When the
// far end of a connection breaks, toxiproxy reads no more from its chain of channels, so a goroutine that is sending
// a piece of data at that moment blocks without end, and so does the one that reads the next piece.
func LeftByLinks() []goleak.Option {
	return []goleak.Option{
		goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2/toxics.(*ToxicStub).Run"),
		goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2.(*ToxicLink).read"),
	}
}

// Addr is where the link begins, host:port. It stays the same.
func (l *Link) Addr() string { return l.proxy.Listen }

// Cut ends all connections, and refuses new ones.
func (l *Link) Cut() { l.proxy.Stop() }

// Silence loses all bytes of both directions, and keeps the connections open.
func (l *Link) Silence() { l.addToxic("timeout", `"timeout": 0`) }

// Slow delays each piece of data by latency, up to jitter more or less, in both directions.
func (l *Link) Slow(latency, jitter time.Duration) {
	l.addToxic("latency", fmt.Sprintf(`"latency": %d, "jitter": %d`, latency.Milliseconds(), jitter.Milliseconds()))
}

// Limit limits the bytes per second in each direction, rounded down to KB.
func (l *Link) Limit(bytesPerSecond int) {
	l.addToxic("bandwidth", fmt.Sprintf(`"rate": %d`, bytesPerSecond/1000))
}

// Mend removes all faults of the link. Connections on which bytes were lost have ended.
func (l *Link) Mend() {
	l.t.Helper()
	for _, name := range l.toxics {
		if err := l.proxy.Toxics.RemoveToxic(context.Background(), name); err != nil {
			l.t.Errorf("mending a link of its %s: %v", name, err)
		}
	}
	l.toxics = nil
	if !l.proxy.Enabled {
		if err := l.proxy.Start(); err != nil {
			l.t.Errorf("opening a link again: %v", err)
		}
	}
}

// addToxic adds a fault to both directions.
func (l *Link) addToxic(kind, attributes string) {
	l.t.Helper()
	for _, stream := range []string{"upstream", "downstream"} {
		name := kind + " " + stream
		wanted := fmt.Sprintf(`{"name": %q, "type": %q, "stream": %q, "attributes": {%s}}`, name, kind, stream, attributes)
		if _, err := l.proxy.Toxics.AddToxicJson(strings.NewReader(wanted)); err != nil {
			l.t.Fatalf("making a link worse by %s: %v", wanted, err)
		}
		l.toxics = append(l.toxics, name)
	}
}
