//go:build unix

package main

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestServeEndsOnSIGTERM(t *testing.T) {
	s := serveDev(t)
	if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if status := s.wait(); status != statusDone || !strings.Contains(s.log.String(), "msg=ended") {
		t.Errorf("status = %d, log:\n%s", status, s.log)
	}
}

func TestServeEndsAtOnceOnASecondSignal(t *testing.T) {
	command, address, _, log := startProcess(t, "--drain=1m")
	login(t, address) // does not answer the close, so the draining does not end by itself
	lines := bufio.NewScanner(log)
	for signalled := false; lines.Scan(); {
		if !signalled {
			signalled = true
			sendSignal(t, command)
		}
		if strings.Contains(lines.Text(), "msg=draining") {
			go func() {
				for command.Process.Signal(syscall.SIGTERM) == nil { // until it has ended
					<-time.After(sameSignal)
				}
			}()
		}
		if strings.Contains(lines.Text(), "msg=ended") {
			t.Error("it ended in an orderly way")
		}
	}
	_ = command.Wait()
	status, ok := command.ProcessState.Sys().(syscall.WaitStatus)
	if !ok || !status.Signaled() || status.Signal() != syscall.SIGTERM {
		t.Errorf("it ended with %v, want the signal", command.ProcessState)
	}
}

// startProcess starts a development server in a process of its own and returns its address and the pipes with its output.
func startProcess(t *testing.T, flags ...string) (command *exec.Cmd, address string, out, log io.ReadCloser) {
	t.Helper()
	arguments := append([]string{"serve", "--dev", "--addr=127.0.0.1:0", "--admin-addr=127.0.0.1:0"}, flags...)
	command = asProcess(t, arguments...)
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if log, err = command.StderrPipe(); err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	welcome := bufio.NewScanner(out)
	welcome.Scan()
	address, _, _ = strings.Cut(strings.TrimPrefix(welcome.Text(), "shoal serves on "), ",")
	return command, address, out, log
}

func sendSignal(t *testing.T, command *exec.Cmd) {
	t.Helper()
	if err := command.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
}

// A reader of the log that dies, such as a log shipper, does not end the service.
func TestServe_OutlivesTheReaderOfItsLog(t *testing.T) {
	command, address, out, log := startProcess(t, "--log-level=debug")
	log.Close()
	out.Close()
	for range 3 {
		login(t, address) // each writes lines to the log
		if status, _ := call(t, "GET", address+"/v1/stats", "dev", ""); status != 200 {
			t.Errorf("it answers %d", status)
		}
	}
	sendSignal(t, command)
	_ = command.Wait()
	if status := command.ProcessState.ExitCode(); status != statusDone {
		t.Errorf("it ended with %v", command.ProcessState)
	}
}

// A limit of open files that lets in nobody is refused at the start, and not only when the first client comes.
func TestServe_RefusesATinyLimitOfOpenFiles(t *testing.T) {
	command := asProcess(t)
	command.Path = "/bin/sh"
	command.Args = []string{"sh", "-c", `ulimit -n 12; exec "$0" serve --dev --addr=127.0.0.1:0 --admin-addr=127.0.0.1:0`, os.Args[0]}
	out, _ := command.CombinedOutput()
	const want = "shoal: the limit of open files is 12, want at least 32; raise it, for example with ulimit -n 1024\n"
	if command.ProcessState.ExitCode() != statusFailed || string(out) != want {
		t.Errorf("it ended with %v:\n%s", command.ProcessState, out)
	}
}

// hangUp sends this process SIGHUP and waits for a text in the server's log.
func (s *served) hangUp(t *testing.T, text string) {
	t.Helper()
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	s.waitForLog(t, text)
}

func (s *served) waitForLog(t *testing.T, text string) {
	t.Helper()
	eventually(t, "the log has "+text, func() bool { return strings.Contains(s.log.String(), text) })
}

func TestReload_AppliesChangesAndLogsThem(t *testing.T) {
	folder := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	next := strings.Repeat("n", minSecretBytes)
	secrets, keys := write("secrets", goodSecret+"\n"), write("keys", "old-key\n")
	config := write("shoal.yaml", "authorize: open\nmax-connections: 1\nqueue-messages: 100\n")
	s := serve(t, 1, "--config="+config, "--jwt-secret-file="+secrets, "--api-key-file="+keys)
	token := func(secret string) string {
		r := shoal(t, nil, "", "token", "alice", "--jwt-secret="+secret)
		r.wantDone(t)
		return r.out
	}
	first := connect(t, s.url)
	if got := first.authenticate(token(goodSecret)); got != "alice" {
		t.Errorf("authenticated as %v", got)
	}

	write("secrets", next+"\n"+goodSecret+"\n")
	write("keys", "new-key\n")
	write("shoal.yaml", "authorize: open\nmax-connections: 2\nqueue-messages: 200\nlog-level: debug\n"+
		"allowed-origin: https://a.example\n")
	s.hangUp(t, "msg=reloaded")
	second := connect(t, s.url)
	if got := second.authenticate(token(next)); got != "alice" {
		t.Errorf("authenticated as %v", got)
	}
	for key, want := range map[string]int{"old-key": 401, "new-key": 200} {
		if status, _ := call(t, "GET", s.url+"/v1/stats", key, ""); status != want {
			t.Errorf("the key %s gets %d, want %d", key, status, want)
		}
	}
	s.waitForLog(t, "level=DEBUG msg=connected") // written after the client has its answer
	log := s.log.String()
	for _, line := range []string{
		`"setting changed" setting=max-connections from=1 to=2`, `"setting changed" setting=api-key`,
		`"setting changed" setting=jwt-secret`, `"setting changed" setting=log-level from=info to=debug`,
		`"setting has changed and needs a restart" setting=queue-messages`, `"setting changed" setting=allowed-origin`,
	} {
		if !strings.Contains(log, line) {
			t.Errorf("the log does not have %s:\n%s", line, log)
		}
	}

	write("shoal.yaml", "authorize: open\nmax-connections: many\n")
	write("keys", "third-key\n")
	s.hangUp(t, "reload failed, nothing has changed")
	if status, _ := call(t, "GET", s.url+"/v1/stats", "new-key", ""); status != 200 {
		t.Errorf("after a failed reload a key gets %d", status)
	}
	for i, empty := range []string{"", "---\n", "{}\n"} {
		write("shoal.yaml", empty)
		s.hangUp(t, "reload failed, nothing has changed")
		eventually(t, "the empty file is refused", func() bool {
			return strings.Count(s.log.String(), "the file of --config is empty") == i+1
		})
	}
	if status, _ := call(t, "GET", s.url+"/v1/stats", "new-key", ""); status != 200 {
		t.Errorf("after a reload of an empty file a key gets %d", status)
	}
	for _, secret := range []string{goodSecret, next, "old-key", "new-key", "third-key"} {
		if strings.Contains(s.log.String(), secret) {
			t.Errorf("the log holds %q", secret)
		}
	}
	first.send(`{"action":"subscribe_upload","upload_id":"a"}`) // a reload ends no connection
}

func TestSecrets_FilesAreReadOnce(t *testing.T) {
	secret := writeFile(t, "secret", goodSecret+"\r\n")
	empty := writeFile(t, "empty", "\n\n")
	two := writeFile(t, "two", "memory\nnats://h:4222")
	shoal(t, []string{"SHOAL_JWT_SECRET_FILE=" + secret}, "", "check-config", "--authorize=open").wantDone(t)
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"both":  {[]string{"--jwt-secret=" + goodSecret, "--jwt-secret-file=" + secret}, "want one of them"},
		"empty": {[]string{"--jwt-secret-file=" + empty}, "it is empty"},
		"UTF-16": {[]string{"--jwt-secret-file=" + writeFile(t, "utf16", "\xff\xfe"+strings.Join(strings.Split(goodSecret, ""), "\x00")+"\x00")},
			"it is in UTF-16, want UTF-8"},
		"missing": {[]string{"--jwt-secret-file=" + secret, "--api-key-file=/nowhere"}, "it cannot be read"},
		"two":     {[]string{"--jwt-secret-file=" + secret, "--broker-file=" + two}, "a file with one line, but it has 2"},
		"comma":   {[]string{"--jwt-secret=" + goodSecret + "," + goodSecret}, "has an entry with a comma"},
		"short":   {[]string{"--jwt-secret=" + goodSecret, "--jwt-secret=short"}, "has 5 bytes"},
	} {
		r := shoal(t, nil, "", append([]string{"check-config", "--authorize=open"}, c.args...)...)
		if r.status != statusUsage || !strings.Contains(r.err, c.want) || strings.Contains(r.err, goodSecret) {
			t.Errorf("%s: status %d, %s", name, r.status, r.err)
		}
	}
}

// A renewed certificate is read, and a broken one is logged, while no client connects.
func TestServe_ReadsCertificatesWithoutClients(t *testing.T) {
	ca := newAuthority(t)
	until := time.Now().Add(time.Hour).Truncate(time.Second)
	certFile, keyFile := ca.issue(t, until)
	s := serve(t, 1, "--jwt-secret="+goodSecret, "--authorize=open", "--tls-cert="+certFile, "--tls-key="+keyFile)
	expires := func(at time.Time) bool {
		_, text := call(t, "GET", s.admin+"/metrics", "", "")
		for line := range strings.Lines(text) {
			if value, ok := strings.CutPrefix(line, "shoal_certificate_expiry_timestamp_seconds "); ok {
				seconds, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
				return err == nil && int64(seconds) == at.Unix()
			}
		}
		return false
	}
	if !expires(until) {
		t.Error("the metric is not that of the certificate")
	}
	renewed := until.Add(time.Hour)
	newCert, newKey := ca.issue(t, renewed)
	for from, to := range map[string]string{newCert: certFile, newKey: keyFile} {
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the renewed certificate is read", func() bool { return expires(renewed) })
	overwrite(t, certFile, []byte("broken"))
	s.waitForLog(t, "certificate reload failed, keeping the current one")
}

// A field of the flags is called as kong calls its flag.
func TestReload_NamesFlagsAsKongDoes(t *testing.T) {
	for field, want := range map[string]string{
		"JWTSecret": "jwt-secret", "APIKey": "api-key", "JWKS": "jwks", "MaxConnections": "max-connections",
		"TLSCert": "tls-cert", "HistoryTTL": "history-ttl", "Addr": "addr",
	} {
		if got := kebab(field); got != want {
			t.Errorf("%s is %s, want %s", field, got, want)
		}
	}
}
