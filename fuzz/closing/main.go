// Command closing opens many connections, some of them stuck, and checks that Manager.DisconnectAll and
// Server.Close end all of them within their deadline: every client that reads gets its close code, and no goroutine,
// descriptor or registration is left. The server runs in a process of its own, so that each process holds one end of
// each connection.
//
//	go run ./fuzz/closing -connections 10000 -stuck 500
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"time"
)

func main() {
	connections := flag.Int("connections", 10_000, "connections at a time")
	stuck := flag.Int("stuck", 500, "connections among them whose clients read nothing")
	serve := flag.Bool("serve", false, "serve instead: used by the command itself")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	err := serveCommands
	if !*serve {
		err = func(io.Reader, io.Writer) error { return compare(ctx, *connections, *stuck) }
	}
	if err := err(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "closing:", err)
		os.Exit(1)
	}
}

// Deadlines of a call: one that leaves stuck connections their close timeout, and one that does not.
const (
	patient   = 3 * closeTimeout
	impatient = closeTimeout / 2
)

// compare runs each way to close, plain and over TLS, and prints a line of a table for each.
func compare(ctx context.Context, connections, stuck int) error {
	fmt.Println("| call | transport | deadline | took | error | clients with code 1012 | goroutines | descriptors |")
	fmt.Println("| --- | --- | --- | --- | --- | --- | --- | --- |")
	var problems []error
	for _, secure := range []bool{false, true} {
		for _, call := range []string{callDisconnect, callClose} {
			for _, within := range []time.Duration{patient, impatient} {
				c := trial{connections: connections, stuck: stuck, secure: secure, call: call, within: within}
				problems = append(problems, c.inProcess(ctx))
			}
		}
	}
	return errors.Join(problems...)
}

// inProcess runs the trial against a server process and prints its line.
func (t trial) inProcess(ctx context.Context) error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	command := exec.CommandContext(ctx, program, "-serve")
	command.Stderr = os.Stderr
	input, err := command.StdinPipe()
	if err != nil {
		return err
	}
	output, err := command.StdoutPipe()
	if err != nil {
		return err
	}
	if err := command.Start(); err != nil {
		return err
	}
	requests, answers := json.NewEncoder(input), json.NewDecoder(output)
	r, err := t.run(ctx, func(q request) (a answer, err error) {
		err = errors.Join(requests.Encode(q), answers.Decode(&a))
		return a, err
	})
	transport := map[bool]string{false: "plain", true: "TLS"}[t.secure]
	fmt.Printf("| %s | %s | %v | %.2f s | %s | %d of %d | %d, then %d | %d, then %d |\n", t.call, transport, t.within,
		r.took.Seconds(), strings.ReplaceAll(r.problem, "\n", "; "), r.told, t.connections-t.stuck,
		r.before.Goroutines, r.after.Goroutines, r.before.Descriptors, r.after.Descriptors)
	if err == nil {
		err = r.check(t)
	}
	if err != nil {
		err = fmt.Errorf("%s, %s, %v: %w", t.call, transport, t.within, err)
	}
	return errors.Join(err, input.Close(), command.Wait())
}

// serveCommands executes the requests that it reads until its input ends.
func serveCommands(in io.Reader, out io.Writer) error {
	var s side
	requests, answers := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var q request
		if err := requests.Decode(&q); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		a, err := s.do(q)
		if err != nil {
			return err
		}
		if err := answers.Encode(a); err != nil {
			return err
		}
	}
}
