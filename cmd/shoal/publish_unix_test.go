//go:build unix

package main

import (
	"bufio"
	"fmt"
	"strings"
	"syscall"
	"testing"
)

// A server that is away for a while gets all lines of a pipe, in order, when it is back.
func TestPublish_WaitsForServer(t *testing.T) {
	address := freeAddress(t)
	p := startNode(t, "--addr="+address)
	node := "http://" + address
	r := begin(t, "publish", "u", "--dev", "--url="+node, "--retry-for=1m")
	position := func() string {
		_, text := call(t, "GET", node+"/v1/uploads/u/messages", devSecret, "")
		return text
	}
	feed := func(number int) {
		if _, err := fmt.Fprintf(r.in, "{\"action\":\"note\",\"n\":%d}\n", number); err != nil {
			t.Fatal(err)
		}
	}
	feed(1)
	eventually(t, "the first line is published", func() bool { return strings.Contains(position(), `"n":1`) })
	p.kill()
	feed(2)
	eventually(t, "the interruption is told", func() bool { return strings.Contains(r.errs.String(), "trying again for 1m0s") })
	for number := 3; number < 10; number++ {
		feed(number)
	}
	p.restart()
	eventually(t, "the lines are published", func() bool { return strings.Contains(position(), `"n":9`) })
	_ = r.in.Close()
	r.want("accepted 9, epoch ")
	if status := ends(t, r.ended); status != statusDone || strings.Count(r.errs.String(), "\n") != 1 {
		t.Errorf("status %d, errors:\n%s", status, r.errs)
	}
	text, last := position(), 0
	for number := 2; number < 10; number++ {
		at := strings.Index(text, fmt.Sprintf(`"n":%d`, number))
		if at < last {
			t.Errorf("line %d is missing or not in order: %s", number, text)
		}
		last = at
	}
}

// An interrupt publishes the lines that have been read, and ends the command.
func TestPublish_EndsOnInterrupt(t *testing.T) {
	s := serveDev(t)
	command := asProcess(t, "publish", "u", "--dev", "--url="+s.url)
	errs, err := command.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	_, _ = in.Write([]byte(note + "\n"))
	eventually(t, "the line is published", func() bool {
		status, _ := call(t, "GET", s.url+"/v1/uploads/u", devSecret, "")
		return status == 200
	})
	if err := command.Process.Signal(syscall.SIGINT); err != nil {
		t.Error(err)
	}
	line, _ := bufio.NewReader(errs).ReadString('\n')
	_ = command.Wait()
	if status := command.ProcessState.ExitCode(); status != statusFailed ||
		line != "shoal: interrupted; 1 messages before that are published, up to offset 1\n" {
		t.Errorf("status %d, errors: %s", status, line)
	}
}
