package natsbroker_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"

	"github.com/shoal-go/shoal/broker/natsbroker"
)

// operator signs the accounts of a server in operator mode; account is the one for nodes.
type operator struct {
	t       *testing.T
	key     nkeys.KeyPair
	account nkeys.KeyPair
	claims  *jwt.AccountClaims
	server  *server.Server
}

// create returns a new key and its public part.
func create(t *testing.T, kind func() (nkeys.KeyPair, error)) (key nkeys.KeyPair, public string) {
	t.Helper()
	key, err := kind()
	if err == nil {
		public, err = key.PublicKey()
	}
	if err != nil {
		t.Fatal(err)
	}
	return key, public
}

// newOperator creates an operator with an account, and starts its server, which resolves accounts from memory.
func newOperator(t *testing.T) *operator {
	t.Helper()
	key, public := create(t, nkeys.CreateOperator)
	account, name := create(t, nkeys.CreateAccount)
	_, system := create(t, nkeys.CreateAccount)
	o := &operator{t: t, key: key, account: account, claims: jwt.NewAccountClaims(name)}
	o.claims.Limits.JetStreamLimits = jwt.JetStreamLimits{
		MemoryStorage: jwt.NoLimit, DiskStorage: jwt.NoLimit, Streams: jwt.NoLimit, Consumer: jwt.NoLimit,
	}
	claims := jwt.NewOperatorClaims(public)
	claims.SystemAccount = system
	resolver := new(server.MemAccResolver)
	for name, claims := range map[string]*jwt.AccountClaims{name: o.claims, system: jwt.NewAccountClaims(system)} {
		if err := resolver.Store(name, o.sign(claims)); err != nil {
			t.Fatal(err)
		}
	}
	o.server = serve(t, func(opt *server.Options) {
		opt.TrustedOperators = []*jwt.OperatorClaims{claims}
		opt.AccountResolver, opt.SystemAccount = resolver, system
	})
	return o
}

func (o *operator) sign(claims *jwt.AccountClaims) string {
	o.t.Helper()
	text, err := claims.Encode(o.key)
	if err != nil {
		o.t.Fatal(err)
	}
	return text
}

// issue writes the credentials of a new user to a file, and returns its name. expires is 0 for a user that does not
// expire.
func (o *operator) issue(file string, expires time.Duration) (user string) {
	o.t.Helper()
	key, user := create(o.t, nkeys.CreateUser)
	claims := jwt.NewUserClaims(user)
	if expires != 0 {
		claims.Expires = time.Now().Add(expires).Unix()
	}
	token, err := claims.Encode(o.account)
	if err != nil {
		o.t.Fatal(err)
	}
	seed, err := key.Seed()
	if err != nil {
		o.t.Fatal(err)
	}
	text, err := jwt.FormatUserConfig(token, seed)
	if err == nil {
		err = os.WriteFile(file, text, 0o600)
	}
	if err != nil {
		o.t.Fatal(err)
	}
	return user
}

// revoke revokes a user at the server.
func (o *operator) revoke(user string) {
	o.t.Helper()
	o.claims.Revoke(user)
	public, err := o.account.PublicKey()
	if err != nil {
		o.t.Fatal(err)
	}
	if err := o.server.AccountResolver().Store(public, o.sign(o.claims)); err != nil {
		o.t.Fatal(err)
	}
	account, err := o.server.LookupAccount(public)
	if err != nil {
		o.t.Fatal(err)
	}
	o.server.UpdateAccountClaims(account, o.claims)
}

// options returns the options of a node with credentials, which names the options of a program.
func (o *operator) options(file string) natsbroker.Options {
	opt := quick(o.server)
	opt.CredentialsFile = file
	opt.OptionName = func(option string) string { return "--the-" + option }
	return opt
}

// TestBroker_CredentialsOfAnOperator: a node connects by the credentials of an operator's user. Credentials that the
// server refuses end Run with an error that names the option and the remedy.
func TestBroker_CredentialsOfAnOperator(t *testing.T) {
	o, other := newOperator(t), newOperator(t)
	file := func(name string) string { return filepath.Join(t.TempDir(), name) }
	good, expired, foreign, revoked := file("good"), file("expired"), file("foreign"), file("revoked")
	o.issue(good, time.Hour)
	n := join(t, o.options(good))
	n.store(t, "upload:x", "1")

	o.issue(expired, -time.Hour)
	other.issue(foreign, 0)
	o.revoke(o.issue(revoked, time.Hour))
	for file, remedy := range map[string]string{
		expired: "expired at", foreign: "unknown to the server", revoked: "revoked",
	} {
		err := permanent(t, o.options(file))
		wantError(t, err, "--the-CredentialsFile", remedy, "issue new")
		if text, _ := os.ReadFile(file); strings.Contains(err.Error(), string(text[100:140])) {
			t.Errorf("the error %q holds a part of the credentials", err)
		}
	}
}

// TestBroker_RevokedCredentialsAreReplaced: a connected node whose credentials are revoked says so, and connects again
// once the file holds others.
func TestBroker_RevokedCredentialsAreReplaced(t *testing.T) {
	o := newOperator(t)
	file := filepath.Join(t.TempDir(), "node.creds")
	user := o.issue(file, 0)
	n := join(t, o.options(file))
	o.revoke(user)
	n.Await(t, "bad health that names the remedy", func() bool {
		newest := n.Fault()
		return newest != nil && strings.Contains(newest.Error(), "--the-CredentialsFile") &&
			strings.Contains(newest.Error(), "issue new ones")
	})
	o.issue(file, 0)
	n.awaitHealth(t, true)
	n.store(t, "upload:x", "1")
}
