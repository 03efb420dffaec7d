package main

import (
	"bufio"
	"bytes"
	"os"
	"strings"
	"testing"
)

// A log on a full disk does not end the service; a metric counts the lines that are lost.
func TestServe_LogOnFullDisk(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0) // writing to it fails with "no space left on device"
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	command := asProcess(t, "serve", "--dev", "--addr=127.0.0.1:0", "--admin-addr=127.0.0.1:0", "--log-level=debug")
	command.Stderr = full
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	welcome := bufio.NewScanner(out)
	welcome.Scan()
	url, admin, _ := strings.Cut(strings.TrimPrefix(welcome.Text(), "shoal serves on "), ", health on ")
	login(t, url) // writes lines to the log
	eventually(t, "lost lines are counted", func() bool {
		_, metrics := call(t, "GET", admin+"/metrics", "", "")
		return strings.Contains(metrics, "\nshoal_log_dropped_lines_total ") &&
			!strings.Contains(metrics, "\nshoal_log_dropped_lines_total 0\n")
	})
	if status, text := call(t, "GET", admin+"/readyz", "", ""); status != 200 {
		t.Errorf("/readyz answers %d %s", status, text)
	}
	sendSignal(t, command)
	if err := command.Wait(); err != nil {
		t.Errorf("it ended with %v", err)
	}
}

// Help that cannot be printed is a failure like any other output, and not wrong usage.
func TestRun_HelpOnAFullDisk(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	for _, args := range [][]string{{"--help"}, {"serve", "--help"}} {
		var errs bytes.Buffer
		status := run(t.Context(), args, nil, strings.NewReader(""), full, &errs)
		result{status: status, err: errs.String()}.wantErrors(t, statusFailed, "cannot print the result: ")
	}
}
