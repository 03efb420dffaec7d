// Command chaos attacks a server with every client of server/chaostest and prints a table in Markdown: the bound that
// stopped the attackers, after how long, the cost to the server's process, and the latency of a well-behaved client.
//
//	go run ./fuzz/chaos                               # Shoal with its default limits, as a process of its own
//	go run ./fuzz/chaos -url ws://127.0.0.1:9001/ws   # another server, which needs no authentication
//	go run ./fuzz/chaos -peer "bin/compare gws"
//
// The last form attacks a system of benchmarks/compare: its server publishes, too.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"
	"github.com/shoal-go/shoal/server/chaostest"
)

func main() {
	clients := flag.Int("clients", 20, "attackers at a time")
	watch := flag.Duration("watch", 100*time.Second, "longest time of an attack")
	run := flag.String("run", "", "regular expression for the names of the attacks")
	target := flag.String("url", "", "WebSocket endpoint of another server")
	process := flag.Int("process", 0, "process id of that server, to measure its cost")
	peer := flag.String("peer", "", "program and system of benchmarks/compare, such as \"bin/compare gws\"")
	serve := flag.Bool("serve", false, "serve instead: used by the command itself")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var err error
	if *serve {
		err = serveUntilEOF()
	} else {
		t := chaostest.Target{URL: *target, Process: *process, Clients: *clients, Watch: *watch}
		err = attack(ctx, t, *peer, *run)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(1)
	}
}

// quiet are the attacks that need almost no processor time and last for the longest timeouts. They run side by side,
// before the others, each on a server of its own.
var quiet = []string{"slow-handshake", "never-authenticates", "half-open", "unsent-length", "unfinished-message"}

// attack runs the selected attacks, each on a new server unless the target has a URL, and prints the table.
func attack(ctx context.Context, t chaostest.Target, peer, run string) error {
	selected, err := regexp.Compile(run)
	if err != nil {
		return fmt.Errorf("-run: %w", err)
	}
	all := slices.DeleteFunc(chaostest.Attacks(), func(a chaostest.Attack) bool {
		return !selected.MatchString(a.Name)
	})
	rows := make([]string, len(all))
	var group sync.WaitGroup
	for i, a := range all {
		if slices.Contains(quiet, a.Name) && t.URL == "" {
			group.Go(func() { rows[i] = measure(ctx, t, peer, a) })
		}
	}
	group.Wait()
	for i, a := range all {
		if rows[i] == "" && ctx.Err() == nil {
			rows[i] = measure(ctx, t, peer, a)
		}
	}
	fmt.Println("| client | stopped by | after | connections | memory | CPU | others: median, p99, lost | delivered |")
	fmt.Println("| --- | --- | --- | --- | --- | --- | --- | --- |")
	fmt.Print(strings.Join(rows, ""))
	return ctx.Err()
}

// measure runs one attack and returns its row of the table, which says so if the attack or the server has failed.
func measure(ctx context.Context, t chaostest.Target, peer string, a chaostest.Attack) (row string) {
	failed := func(why string, err error) string {
		return fmt.Sprintf("| `%s` %s | **%s**: %v | | | | | | |\n", a.Name, a.Does, why, err)
	}
	stop, err := func() error { return nil }, error(nil)
	switch {
	case peer != "":
		stop, err = peerServer(ctx, peer, &t)
	case t.URL == "":
		stop, err = ownServer(ctx, &t)
	}
	if err != nil {
		return failed("the server does not start", err)
	}
	r, err := chaostest.Run(ctx, t, a)
	if ended := stop(); ended != nil {
		return failed("the server's process ended", ended)
	}
	if err != nil {
		return failed("not measured", err)
	}
	return fmt.Sprintf("| `%s` %s | %s | %s | %d | %.1f MB | %.1f s | %.1f ms, %.1f ms, %d | %d of %d |\n",
		a.Name, a.Does, bounds(r), after(r), r.Connections, float64(r.Memory)/(1<<20), r.CPU.Seconds(),
		millis(r.Healthy.Median), millis(r.Healthy.P99), r.Lost, r.Delivered, r.Published)
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func after(r chaostest.Report) string {
	if len(r.Bounds) == 0 {
		return "–"
	}
	return fmt.Sprintf("%.1f s", r.After.Seconds())
}

// bounds describes how the attackers were stopped.
func bounds(r chaostest.Report) string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(r.Bounds)) {
		all = append(all, fmt.Sprintf("%s (%d)", name, r.Bounds[name]))
	}
	if r.Open > 0 {
		all = append(all, fmt.Sprintf("not stopped (%d)", r.Open))
	}
	return strings.Join(all, ", ")
}

func post(ctx context.Context, url string, body []byte) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+key)
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, response.Body)
	return errors.Join(err, response.Body.Close())
}

// serveUntilEOF serves with default limits until standard input ends.
func serveUntilEOF() error {
	m, err := manager.New(manager.Options{MaxConnectionsPerUser: -1})
	if err != nil {
		return err
	}
	s, err := server.New(server.Options{
		Manager: m, Authorize: server.AuthorizeOpen, APIKeys: []string{key},
		Authenticate: func(_ context.Context, token string) (server.Identity, error) {
			if token != "good" {
				return server.Identity{}, &server.TokenError{Message: "Invalid token"}
			}
			return server.Identity{UserID: "chaos"}, nil
		},
	})
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(ln) }()
	fmt.Println(ln.Addr())
	_, _ = io.Copy(io.Discard, os.Stdin)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	err = errors.Join(s.Close(ctx), m.Close(ctx))
	if ended := <-served; !errors.Is(ended, http.ErrServerClosed) {
		err = errors.Join(err, ended)
	}
	return err
}
