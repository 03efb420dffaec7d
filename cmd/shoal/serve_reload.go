package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"reflect"
	"strings"
	"time"

	"github.com/shoal-go/shoal/internal/reload"
	"github.com/shoal-go/shoal/server"
)

// reparse reads the settings again: from the same command line and environment, and from the files as they are now.
type reparse func() (*reading, error)

// reading is the result of reading the settings again. Both of its parts are valid.
type reading struct {
	asked *serveFlags // with which a restart would run
	// effective are those of the start, but for the ones that take effect without a restart.
	effective *serveFlags
}

// reread checks settings that were parsed again. started are the settings of the start before they were checked: a
// check fills in defaults that follow from other settings and the contents of files.
func reread(s *settings, started, parsed serveFlags) (*reading, error) {
	r := &reading{asked: &parsed, effective: new(serveFlags)}
	*r.effective = parsed
	var kept []string // that were changed, and need a restart
	from, to := reflect.ValueOf(&started).Elem(), reflect.ValueOf(r.effective).Elem()
	for i := range to.NumField() {
		name := flagName(to.Type().Field(i))
		if reloadable[name] {
			continue
		}
		if name != "" && !reflect.DeepEqual(from.Field(i).Interface(), to.Field(i).Interface()) {
			kept = append(kept, "--"+name)
		}
		to.Field(i).Set(from.Field(i))
	}
	if err := s.check(r.asked); err != nil {
		return nil, err
	}
	if err := s.check(r.effective); err != nil {
		return nil, fmt.Errorf("without a restart, which %s needs: %w", strings.Join(kept, ", "), err)
	}
	return r, nil
}

// reloadable are the flags that take effect without a restart.
var reloadable = map[string]bool{
	"allowed-origin": true, "api-key": true, "api-key-file": true, "jwt-secret": true, "jwt-secret-file": true,
	"trusted-proxy": true, "max-connections": true, "max-connections-per-ip": true, "connect-rate": true,
	"client-message-rate": true, "log-level": true,
}

// reloads is the goroutine that reloads.
type reloads struct {
	stop  context.CancelFunc
	ended chan struct{}
}

// wait waits for a reload that is under way, until ctx ends: reading a file may never end.
func (r *reloads) wait(ctx context.Context) error {
	select {
	case <-r.ended:
	case <-ctx.Done():
		select {
		case <-r.ended: // both were the case
		default:
			return ctx.Err()
		}
	}
	return nil
}

// reloadOn reloads on each SIGHUP, and reads changed certificates, until it is stopped. Certificates are read without a
// client too, so that a renewal that failed is known before they expire.
func (n *node) reloadOn(hangUps <-chan os.Signal) *reloads {
	ctx, stop := context.WithCancel(context.Background())
	r := &reloads{stop: stop, ended: make(chan struct{})}
	n.last = *n.flags
	go func() {
		defer close(r.ended)
		changes := time.NewTicker(reload.Interval)
		defer changes.Stop()
		if len(n.refresh) == 0 {
			changes.Stop()
		}
		for {
			select {
			case <-ctx.Done():
				return
			case <-hangUps:
				n.reload()
			case <-changes.C:
				n.refreshFiles()
			}
		}
	}()
	return r
}

// slowReload is the time after which a reload that still reads its files is logged.
const slowReload = 5 * time.Second

// reload applies the settings that have changed since they were read last. Either all of them are valid, or nothing
// changes.
func (n *node) reload() {
	n.refreshFiles()
	slow := time.AfterFunc(slowReload, func() {
		n.log.Warn("reload waits for files to be read", "since", slowReload)
	})
	fresh, err := n.reparse()
	slow.Stop()
	if err == nil {
		err = n.apply(fresh.effective)
	}
	if err != nil {
		n.log.Error("reload failed, nothing has changed", "error", err)
		return
	}
	changed := n.logChanges(fresh)
	n.warnOfOpenFiles(fresh.effective.MaxConnections)
	n.logClosedAPI(fresh.effective.APIKey)
	connections, _ := limitConnections(fresh.effective.MaxConnections, maxOpenFiles())
	n.log.Info("reloaded", "changed", changed, "max_connections", connections)
}

// refreshFiles reads certificates again.
func (n *node) refreshFiles() {
	for _, refresh := range n.refresh {
		refresh()
	}
}

// apply has all settings take effect that need no restart, or none of them.
func (n *node) apply(fresh *serveFlags) error {
	if err := n.jwt.SetSecrets(fresh.secrets()...); err != nil {
		return err
	}
	if err := n.server.Reload(n.settings(fresh)); err != nil {
		return errors.Join(err, n.jwt.SetSecrets(n.last.secrets()...))
	}
	if fresh.Dev {
		n.secret.Store(&fresh.JWTSecret[0])
	}
	n.level.Set(logLevel(fresh.LogLevel))
	return nil
}

// logChanges logs the settings that have changed since the last reading, and returns how many of them have taken
// effect. A setting that needs a restart is compared with its value at the start.
func (n *node) logChanges(fresh *reading) (changed int) {
	before, now := reflect.ValueOf(&n.last).Elem(), reflect.ValueOf(fresh.effective).Elem()
	started, asked := reflect.ValueOf(n.flags).Elem(), reflect.ValueOf(fresh.asked).Elem()
	for i := range now.NumField() {
		field := now.Type().Field(i)
		name := flagName(field)
		if !reloadable[name] {
			if name != "" && !reflect.DeepEqual(started.Field(i).Interface(), asked.Field(i).Interface()) {
				n.log.Warn("setting has changed and needs a restart", "setting", name)
			}
			continue
		}
		from, to := before.Field(i), now.Field(i)
		if reflect.DeepEqual(from.Interface(), to.Interface()) {
			continue
		}
		attrs := []any{"setting", name}
		if _, secret := field.Tag.Lookup("secret"); !secret {
			attrs = append(attrs, "from", fmt.Sprint(from.Interface()), "to", fmt.Sprint(to.Interface()))
		}
		n.log.Info("setting changed", attrs...)
		changed++
	}
	n.last = *fresh.effective
	return changed
}

// flagName returns the flag of a field of serveFlags, "" for a field without one.
func flagName(field reflect.StructField) string {
	if name, ok := field.Tag.Lookup("name"); ok {
		return name
	}
	if _, ok := field.Tag.Lookup("help"); !ok {
		return ""
	}
	return kebab(field.Name)
}

// kebab returns a field's name in the form of a flag, as kong does: JWTSecret is jwt-secret.
func kebab(name string) string {
	var b strings.Builder
	for i, r := range name {
		upper := r >= 'A' && r <= 'Z'
		startsWord := i > 0 && upper && (name[i-1] < 'A' || name[i-1] > 'Z' ||
			i+1 < len(name) && name[i+1] >= 'a' && name[i+1] <= 'z')
		if startsWord {
			b.WriteByte('-')
		}
		b.WriteRune(r)
	}
	return strings.ToLower(b.String())
}

// settings returns the part of the flags that the server can reload.
func (n *node) settings(f *serveFlags) server.Settings {
	connections, sockets := limitConnections(f.MaxConnections, maxOpenFiles())
	return server.Settings{
		AllowedOrigins: f.AllowedOrigin, APIKeys: f.APIKey, TrustedProxies: f.TrustedProxy,
		MaxConnections: connections, MaxSockets: sockets, MaxConnectionsPerIP: f.MaxConnectionsPerIP,
		ConnectRate: f.ConnectRate, ClientMessageRate: f.ClientMessageRate.perSecond,
		ClientMessageBurst: f.ClientMessageRate.burst,
	}
}

// secrets returns the keys of HS256.
func (f *serveFlags) secrets() (secrets [][]byte) {
	for _, secret := range f.JWTSecret {
		secrets = append(secrets, []byte(secret))
	}
	return secrets
}

// newLevel returns the level of the log, which a reload may change.
func newLevel(name string) *slog.LevelVar {
	level := new(slog.LevelVar)
	level.Set(logLevel(name))
	return level
}
