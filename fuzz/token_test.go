package fuzz_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/shoal-go/shoal/server"
	"github.com/shoal-go/shoal/server/jwtauth"
)

// FuzzToken checks an arbitrary token against a secret that did not sign it. None is accepted.
func FuzzToken(f *testing.F) {
	secret := []byte("a secret of more than thirty-two bytes")
	other := []byte("another secret of more than thirty bytes")
	foreign, err := jwtauth.SignHS256(other, server.Identity{UserID: "ann", Expires: time.Now().Add(time.Hour)})
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{
		foreign, "", "a.b.c", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbm4iLCJleHAiOjk5OTk5OTk5OTl9.",
		"eyJhbGciOiJIUzI1NiIsImNyaXQiOlsieCJdfQ.e30.AA", foreign + "\n", "..",
	} {
		f.Add(seed)
	}
	jwt, err := jwtauth.New(jwtauth.Options{Secret: secret})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, token string) {
		if identity, err := jwt.Authenticate(t.Context(), token); err == nil {
			t.Fatalf("accepted %q as %+v", token, identity)
		}
	})
}

// FuzzKeySet reads an arbitrary set of keys. It is refused, or used without a panic; no key of it accepts a token that
// nobody signed.
func FuzzKeySet(f *testing.F) {
	for _, seed := range []string{
		`{"keys":[]}`, `{}`, `null`, "\ufeff{\"keys\":[]}", `{"keys":[null,{},"x",{"kty":"oct","k":""}]}`,
		`{"keys":[{"kty":"RSA","n":"","e":"AQAB","use":"enc"},{"kty":"EC","crv":"secp256k1","x":"AA","y":"AA"}]}`,
		`{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`,
		`{"keys":[{"kty":"RSA","kid":1,"x5c":["AA"]}]}`,
	} {
		f.Add([]byte(seed))
	}
	const unsigned = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhbm4iLCJleHAiOjk5OTk5OTk5OTl9.AA"
	f.Fuzz(func(t *testing.T, set []byte) {
		path := filepath.Join(t.TempDir(), "keys.json")
		if err := os.WriteFile(path, set, 0o600); err != nil {
			t.Fatal(err)
		}
		jwt, err := jwtauth.New(jwtauth.Options{JWKS: path})
		if err != nil {
			return
		}
		defer jwt.Close()
		if identity, err := jwt.Authenticate(t.Context(), unsigned); err == nil {
			t.Fatalf("accepted a token that nobody signed, as %+v", identity)
		}
	})
}
