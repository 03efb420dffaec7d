package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alecthomas/kong"

	"github.com/shoal-go/shoal/internal/testlog"
	"github.com/shoal-go/shoal/server"
	"github.com/shoal-go/shoal/server/jwtauth"
)

// reloading is a node with a file of settings.
type reloading struct {
	*node
	t    *testing.T
	file string
	log  *testlog.Buffer
}

// Settings of a node under test, and the ones that a reload changes in addition.
var (
	reloadBefore = map[string]string{
		"addr": "127.0.0.1:0", "admin-addr": "127.0.0.1:0", "jwt-secret": goodSecret, "api-key": "before", "authorize": "open",
	}
	reloadAfter = map[string]string{"jwt-secret": strings.Repeat("n", minSecretBytes), "api-key": "after", "log-level": "debug"}
)

// startReloading opens a node that reads a file of settings, as serve does.
func startReloading(t *testing.T, settings map[string]string) *reloading {
	t.Helper()
	r := &reloading{t: t, file: writeFile(t, "shoal.yaml", ""), log: &testlog.Buffer{}}
	r.write(settings)
	args := []string{"serve", "--config=" + r.file}
	flags := parseServe(t, nil, args[1:]...)
	level := newLevel(flags.LogLevel)
	log := slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: level}))
	n, err := (&serveCommand{flags}).open(t.Context(), log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.close(time.Second) })
	n.level, n.last = level, *n.flags
	started := flags // none of its settings is one that a check changes
	n.reparse = func() (*reading, error) { return parseAgain(args, nil, started, true) }
	r.node = n
	return r
}

// write replaces the file by one with settings. Later ones win. The value "" removes one.
func (r *reloading) write(all ...map[string]string) {
	r.t.Helper()
	merged := map[string]string{}
	for _, settings := range all {
		maps.Copy(merged, settings)
	}
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(merged)) {
		if value := merged[name]; value != "" {
			fmt.Fprintf(&text, "%s: %s\n", name, value)
		}
	}
	overwrite(r.t, r.file, []byte(text.String()))
}

// reloadWith reloads a file and returns the new part of the log.
func (r *reloading) reloadWith(all ...map[string]string) string {
	r.t.Helper()
	r.write(all...)
	before := len(r.log.String())
	r.reload()
	return r.log.String()[before:]
}

// wantCredentials checks which settings of reloadBefore and reloadAfter are in force.
func (r *reloading) wantCredentials(name string, settings map[string]string) {
	r.t.Helper()
	for _, of := range []map[string]string{reloadBefore, reloadAfter} {
		same := of["api-key"] == settings["api-key"]
		request := httptest.NewRequest(http.MethodGet, "/v1/stats", nil)
		request.Header.Set("Authorization", "Bearer "+of["api-key"])
		answer := httptest.NewRecorder()
		r.server.APIHandler().ServeHTTP(answer, request)
		if allowed := answer.Code == http.StatusOK; allowed != same {
			r.t.Errorf("%s: the API key %q gets %d", name, of["api-key"], answer.Code)
		}
		token, err := jwtauth.SignHS256([]byte(of["jwt-secret"]), server.Identity{
			UserID: "alice", Expires: time.Now().Add(time.Hour),
		})
		if err != nil {
			r.t.Fatal(err)
		}
		if _, err := r.jwt.Authenticate(r.t.Context(), token); (err == nil) != same {
			r.t.Errorf("%s: the token of the key %q: %v", name, of["api-key"], err)
		}
	}
}

// changedValues are settings, by flag, that differ from those of the start and are valid. Other flags get the other
// value of a choice, or a larger number.
func changedValues(t *testing.T) map[string]map[string]string {
	t.Helper()
	cert, key := newPair(t, "node")
	certFile, keyFile := writeFile(t, "cert.pem", string(cert)), writeFile(t, "key.pem", string(key))
	secret := writeFile(t, "secret", strings.Repeat("f", minSecretBytes))
	broker := writeFile(t, "broker", "redis://127.0.0.1:1")
	header := writeFile(t, "header", "X-Key: v")
	const seed = "SUAMLK2ZNL35WSMW37E7UD4VZ7ELPKW7DHC3BWBSD2GCZ7IUQQXZIORRBU"
	credentials := writeFile(t, "node.creds", "-----BEGIN NATS USER JWT-----\ne30.e30.c2ln\n------END NATS USER JWT------\n"+
		"-----BEGIN USER NKEY SEED-----\n"+seed+"\n------END USER NKEY SEED------\n")
	redis, hook := "redis://127.0.0.1:1", "http://127.0.0.1:1/hook"
	cluster := map[string]string{
		"broker": "nats-embedded", "node-name": "a", "cluster-addr": "127.0.0.1:7001",
		"cluster-route": "[127.0.0.1:7001, 127.0.0.1:7002, 127.0.0.1:7003]",
	}
	with := func(settings map[string]string, name, value string) map[string]string {
		settings = maps.Clone(settings)
		settings[name] = value
		return settings
	}
	return map[string]map[string]string{
		"addr": {"addr": "127.0.0.1:1"}, "admin-addr": {"admin-addr": "127.0.0.1:2"}, "socket-mode": {"socket-mode": `"0600"`},
		"dev":        {"dev": "true", "jwt-secret": "", "api-key": "", "authorize": ""},
		"jwt-secret": {"jwt-secret": reloadAfter["jwt-secret"]}, "jwt-secret-file": {"jwt-secret-file": secret, "jwt-secret": ""},
		"jwks":    {"jwks": "http://127.0.0.1:1/jwks", "jwt-audience": "any", "jwt-secret": "", "api-key": "after"},
		"api-key": {"api-key": "after"}, "api-key-file": {"api-key-file": secret, "api-key": ""},
		"jwt-audience": {"jwt-audience": "a"}, "jwt-issuer": {"jwt-issuer": "i"}, "path-prefix": {"path-prefix": "/p"},
		"allowed-origin": {"allowed-origin": "https://a.example"}, "authorize": {"authorize": "claims"},
		"broker": {"broker": redis}, "broker-file": {"broker-file": broker}, "node-name": {"broker": redis, "node-name": "n"},
		"broker-state-rate": {"broker": redis, "broker-state-rate": "10"}, "broker-replicas": {"broker": "nats://h", "broker-replicas": "3"},
		"broker-storage": {"broker": "nats://h", "broker-storage": "file"},
		"broker-dir":     {"broker": "nats-embedded", "broker-storage": "file", "broker-dir": t.TempDir()},
		"channel-prefix": {"broker": redis, "channel-prefix": "p"}, "nats-credentials": {"broker": "nats://h", "nats-credentials": credentials},
		"nats-nkey":       {"broker": "nats://h", "nats-nkey": writeFile(t, "nkey", seed)},
		"broker-tls-ca":   {"broker": "tls://h", "broker-tls-ca": certFile},
		"broker-tls-cert": {"broker": "tls://h", "broker-tls-cert": certFile, "broker-tls-key": keyFile},
		"broker-tls-key":  {"broker": "tls://h", "broker-tls-cert": certFile, "broker-tls-key": keyFile},
		"cluster-addr":    cluster, "cluster-route": cluster,
		"cluster-secret":      with(cluster, "cluster-secret", goodSecret),
		"cluster-secret-file": with(cluster, "cluster-secret-file", secret),
		"trusted-proxy":       {"trusted-proxy": "10.0.0.0/8"}, "client-message-rate": {"client-message-rate": "5/s"},
		"max-age": {"max-age": "1h"}, "broker-tls-min-version": {"broker": "tls://h", "broker-tls-min-version": `"1.3"`},
		"class": {"class": "a=state"}, "statuses": {"statuses": "a"}, "stages": {"stages": "a"},
		"tls-cert": {"tls-cert": certFile, "tls-key": keyFile}, "tls-key": {"tls-cert": certFile, "tls-key": keyFile},
		"tls-client-ca": {"tls-cert": certFile, "tls-key": keyFile, "tls-client-ca": certFile},
		"webhook":       {"webhook": hook, "webhook-secret": goodSecret}, "webhook-secret": {"webhook": hook, "webhook-secret": goodSecret},
		"webhook-events":      {"webhook": hook, "webhook-secret": goodSecret, "webhook-events": "connected"},
		"webhook-secret-file": {"webhook": hook, "webhook-secret-file": secret},
		"trace-endpoint":      {"trace-endpoint": hook}, "trace-sample": {"trace-endpoint": hook, "trace-sample": "0.5"},
		"trace-header":      {"trace-endpoint": hook, "trace-header": `"X-Key: v"`},
		"trace-header-file": {"trace-endpoint": hook, "trace-header-file": header},
		"idle-timeout":      {"idle-timeout": "2m"}, "ping-interval": {"ping-interval": "20s"}, "pprof": {"pprof": "true"},
		"max-message-bytes": {"max-message-bytes": "32KiB"}, "history-total-bytes": {"history-total-bytes": "8MiB"},
	}
}

// changedValue returns a valid change of a flag.
func changedValue(flag *kong.Flag, given map[string]map[string]string) map[string]string {
	if settings, ok := given[flag.Name]; ok {
		return settings
	}
	for _, value := range strings.Fields(flag.Tag.Get("oneof")) {
		if value != flag.Default && value != "open" {
			return map[string]string{flag.Name: `"` + value + `"`}
		}
	}
	switch flag.Target.Interface().(type) {
	case time.Duration:
		return map[string]string{flag.Name: "4s"}
	case size:
		return map[string]string{flag.Name: "2MiB"}
	}
	return map[string]string{flag.Name: "77"}
}

// serveFlagsOf returns all flags of serve but --help.
func serveFlagsOf(t *testing.T) []*kong.Flag {
	t.Helper()
	parser, err := newParser(newSettings(nil), streams{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, command := range parser.Model.Children {
		if command.Name == "serve" {
			return slices.DeleteFunc(command.Flags, func(f *kong.Flag) bool { return f.Name == "help" })
		}
	}
	t.Fatal("there is no command serve")
	return nil
}

// restartOnly returns the settings that need a restart.
func restartOnly(f *serveFlags) map[string]any {
	settings := map[string]any{}
	value := reflect.ValueOf(f).Elem()
	for i := range value.NumField() {
		if name := flagName(value.Type().Field(i)); name != "" && !reloadable[name] {
			settings[name] = value.Field(i).Interface()
		}
	}
	return settings
}

// A reload applies the settings that the documentation marks, and no other: another one is logged, or the reload is
// refused because the settings do not fit together without it.
func TestReload_AppliesReloadableSettingsAlone(t *testing.T) {
	given := changedValues(t)
	r := startReloading(t, reloadBefore)
	wanted := restartOnly(r.flags)
	refused := []string{"dev", "jwks"} // without their secrets
	for _, flag := range serveFlagsOf(t) {
		log := r.reloadWith(reloadBefore, changedValue(flag, given))
		want := `"setting changed" setting=` + flag.Name
		switch {
		case slices.Contains(refused, flag.Name):
			want = "without a restart, which --" + flag.Name
		case !reloadable[flag.Name]:
			want = `"setting has changed and needs a restart" setting=` + flag.Name + "\n"
		}
		if !strings.Contains(log, want) {
			t.Errorf("--%s: the log lacks %s:\n%s", flag.Name, want, log)
		}
		if got := restartOnly(&r.last); !reflect.DeepEqual(got, wanted) {
			t.Errorf("--%s: settings that need a restart are\n%v, want\n%v", flag.Name, got, wanted)
		}
		if !reloadable[flag.Name] {
			r.wantCredentials("--"+flag.Name, reloadBefore)
		}
		r.reloadWith(reloadBefore)
		r.wantCredentials("after --"+flag.Name, reloadBefore)
	}
	r.reloadWith(reloadBefore, reloadAfter)
	r.wantCredentials("at the end", reloadAfter)
}

// If one setting is invalid, a reload changes none.
func TestReload_ChangesNothingIfItFails(t *testing.T) {
	r := startReloading(t, reloadBefore)
	for _, flag := range serveFlagsOf(t) {
		invalid := "[a, b]" // is a list
		if flag.IsSlice() {
			invalid = `[""]`
		}
		log := r.reloadWith(reloadBefore, reloadAfter, map[string]string{flag.Name: invalid})
		if !strings.Contains(log, `level=ERROR msg="reload failed, nothing has changed"`) || strings.Count(log, "\n") != 1 {
			t.Errorf("--%s: the log has\n%s", flag.Name, log)
		}
		r.wantCredentials("--"+flag.Name, reloadBefore)
		if r.level.Level() != slog.LevelInfo {
			t.Fatalf("--%s: the level of the log has changed", flag.Name)
		}
	}
}

// A reload of a file that cannot be used repeats no value of it.
func TestReload_LogsNoSecret(t *testing.T) {
	r := startReloading(t, reloadBefore)
	log := r.reloadWith(reloadBefore, map[string]string{"api-key": "*hunter2"})
	if !strings.Contains(log, "a value that begins with * must be quoted") || strings.Contains(log, "hunter2") {
		t.Errorf("the log has\n%s", log)
	}
}

// A bound that the limit of open files does not allow is logged as at the start.
func TestReload_WarnsOfTheLimitOfOpenFiles(t *testing.T) {
	const wanted = 10_000_000
	r := startReloading(t, reloadBefore)
	log := r.reloadWith(reloadBefore, map[string]string{"max-connections": strconv.Itoa(wanted)})
	possible, _ := limitConnections(wanted, maxOpenFiles())
	if warns := strings.Contains(log, "limit of open files is too low for --max-connections"); warns != (possible < wanted) {
		t.Errorf("%d connections are possible, and the log has\n%s", possible, log)
	}
	if want := fmt.Sprintf("msg=reloaded changed=1 max_connections=%d\n", possible); !strings.Contains(log, want) {
		t.Errorf("the log lacks %s:\n%s", want, log)
	}
}

// A reload that removes the last API key logs that the API is closed, as the start does.
func TestReload_LogsThatTheAPIIsClosed(t *testing.T) {
	r := startReloading(t, reloadBefore)
	for key, want := range map[string]bool{"after": false, "": true} {
		log := r.reloadWith(reloadBefore, map[string]string{"api-key": key})
		if got := strings.Contains(log, `msg="HTTP API closed"`); got != want {
			t.Errorf("with the key %q the log has\n%s", key, log)
		}
	}
}

// A reload that waits for a file is logged before it ends.
func TestReload_LogsThatItWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log testlog.Buffer
		read := make(chan error)
		n := &node{log: slog.New(slog.NewTextHandler(&log, nil)), reparse: func() (*reading, error) { return nil, <-read }}
		go n.reload()
		<-time.After(2 * slowReload)
		if want := `level=WARN msg="reload waits for files to be read"`; strings.Count(log.String(), want) != 1 {
			t.Errorf("the log has\n%s\nwant %s", log.String(), want)
		}
		read <- errors.New("cannot be read")
		synctest.Wait()
		if !strings.Contains(log.String(), "reload failed, nothing has changed") {
			t.Errorf("the log has\n%s", log.String())
		}
	})
}

// A node that fails logs the cause before it drains, and gives the signals back to the system: a drain may take minutes.
func TestServe_FailureIsLoggedAndLeavesSignals(t *testing.T) {
	r := startReloading(t, reloadBefore)
	_ = r.public[0].Close()
	var before string
	err := r.run(t.Context(), func() { before = r.log.String() }, io.Discard)
	log := r.log.String()
	cause, drain := strings.Index(log, `level=ERROR msg="serving failed" error=`), strings.Index(log, "msg=draining")
	if err == nil || cause < 0 || drain < cause {
		t.Errorf("err = %v, want the cause in the log before the drain:\n%s", err, log)
	}
	if before == "" || strings.Contains(before, "msg=draining") {
		t.Errorf("signals were given back after\n%s", before)
	}
}
