package natsbroker_test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/shoal-go/shoal/broker/natsbroker"
	"github.com/shoal-go/shoal/internal/optiontest"
)

// 0 and negative values follow the rule of all options.
func TestOptions_FollowOneRule(t *testing.T) {
	base := func() natsbroker.Options { return natsbroker.Options{Server: unreachable{}} }
	optiontest.Check(t, "options.go", base, func(o natsbroker.Options) error {
		_, err := natsbroker.New(o)
		return err
	})
}

// unreachable is a server that cannot be connected to.
type unreachable struct{}

func (unreachable) InProcessConn() (net.Conn, error) { return nil, net.ErrClosed }

func TestNew_NamesAllInvalidOptions(t *testing.T) {
	_, err := natsbroker.New(natsbroker.Options{
		URL:             "nats://shoal:hush@ok:4222,http://shoal:hush@host,nats://shoal:hush@,nats://shoal:hush@bad host",
		CredentialsFile: "/nowhere/at/all", Stream: "a b", Messages: -1, TTL: time.Nanosecond,
		Replicas: 9, ConnectTimeout: -1, CallTimeout: -1, ProbeInterval: -1, InFlight: -1, PendingMessages: -1,
		PendingBytes: -1,
	})
	if err == nil {
		t.Fatal("New returned nil, want an error")
	}
	for _, field := range []string{
		"CredentialsFile", "Stream", "Messages", "TTL", "Replicas", "ConnectTimeout",
		"CallTimeout", "ProbeInterval", "InFlight", "PendingMessages", "PendingBytes",
	} {
		if !strings.Contains(err.Error(), "Options."+field+" is") {
			t.Errorf("the error does not name %s: %v", field, err)
		}
	}
	if complaints := strings.Count(err.Error(), "Options.URL is"); complaints != 3 {
		t.Errorf("%d servers of the URL are complained of, want 3: %v", complaints, err)
	}
	if strings.Contains(err.Error(), "hush") {
		t.Errorf("the error %q tells the password", err)
	}
	if _, err := natsbroker.New(natsbroker.Options{}); err == nil {
		t.Error("New without a server returned nil, want an error")
	}
}

// TestNew_ReadsCredentials: a file without the JWT or without the seed of a user is refused before any connection, and
// the error tells nothing of it.
func TestNew_ReadsCredentials(t *testing.T) {
	pair, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	account, err := nkeys.CreateAccount()
	if err != nil {
		t.Fatal(err)
	}
	seed, _ := pair.Seed()
	foreign, _ := account.Seed()
	const token = "-----BEGIN NATS USER JWT-----\nheader.claims.signature\n------END NATS USER JWT------\n\n"
	block := func(seed []byte) string {
		return "-----BEGIN USER NKEY SEED-----\n" + string(seed) + "\n------END USER NKEY SEED------\n"
	}
	for text, valid := range map[string]bool{
		token + block(seed): true, token + block(foreign): false, token: false, block(seed): false, "": false, "hush": false,
	} {
		file := filepath.Join(t.TempDir(), "node.creds")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := natsbroker.New(natsbroker.Options{Server: unreachable{}, CredentialsFile: file})
		if (err == nil) != valid {
			t.Errorf("with the credentials %q New returned %v", text, err)
		}
		if err != nil && (strings.Contains(err.Error(), string(seed)) || strings.Contains(err.Error(), "hush")) {
			t.Errorf("the error %q holds a part of the credentials", err)
		}
	}
}
