package jwtauth

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"
)

// testKey is a private key, under the id that the set of keys gives its public one.
type testKey struct {
	id     string
	method jwt.SigningMethod
	signer crypto.Signer
}

func (k testKey) token(t *testing.T) string {
	t.Helper()
	return sign(t, k.method, k.signer, claimsWith(nil), map[string]any{"kid": k.id})
}

// rsaKeyOfTests is generated once, since that takes longer than all else in these tests.
var rsaKeyOfTests = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

// newTestKeys returns one key of each family. That of RSA is always the same.
func newTestKeys(t *testing.T) []testKey {
	t.Helper()
	r, err := rsaKeyOfTests()
	if err != nil {
		t.Fatal(err)
	}
	e, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return []testKey{
		{"rsa", jwt.SigningMethodRS256, r}, {"ec", jwt.SigningMethodES256, e}, newEdKey(t, "ed"),
	}
}

func newEdKey(t *testing.T, id string) testKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return testKey{id, jwt.SigningMethodEdDSA, key}
}

func jwksOf(t *testing.T, keys ...testKey) []byte {
	t.Helper()
	set := jwkset.NewMemoryStorage()
	for _, k := range keys {
		key, err := jwkset.NewJWKFromKey(k.signer.Public(), jwkset.JWKOptions{
			Metadata: jwkset.JWKMetadataOptions{KID: k.id},
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := set.KeyWrite(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	text, err := set.JSONPublic(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func writeFile(t *testing.T, path string, text []byte) {
	t.Helper()
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

func newJWKSJWT(t *testing.T, o Options) *Verifier {
	t.Helper()
	j, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(j.Close)
	return j
}

func TestJWKSFile_OfEachFamily(t *testing.T) {
	keys := newTestKeys(t)
	path := filepath.Join(t.TempDir(), "jwks.json")
	writeFile(t, path, jwksOf(t, keys...))
	j := newJWKSJWT(t, Options{JWKS: path})
	for _, k := range keys {
		if id, err := j.Authenticate(t.Context(), k.token(t)); err != nil || id.UserID != "alice" {
			t.Errorf("%s: identity = %+v, err = %v", k.id, id, err)
		}
		unnamed := sign(t, k.method, k.signer, claimsWith(nil), nil)
		if _, err := j.Authenticate(t.Context(), unnamed); err != nil {
			t.Errorf("%s, without kid: %v", k.id, err)
		}
	}
}

func TestJWKS_RefusesTheWrongFamily(t *testing.T) {
	keys := newTestKeys(t)
	path := filepath.Join(t.TempDir(), "jwks.json")
	writeFile(t, path, jwksOf(t, keys...))
	modulus, err := json.Marshal(keys[0].signer.Public())
	if err != nil {
		t.Fatal(err)
	}
	stranger := newEdKey(t, "ed")
	stranger384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	kid := func(id any) map[string]any { return map[string]any{"kid": id} }
	for name, c := range map[string]struct{ token, want string }{
		"HS256 with a public key": {sign(t, jwt.SigningMethodHS256, modulus, claimsWith(nil), kid("rsa")),
			"Algorithm is not accepted"},
		"none": {sign(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, claimsWith(nil), kid("rsa")),
			"Algorithm is not accepted"},
		"RS512": {sign(t, jwt.SigningMethodRS512, keys[0].signer, claimsWith(nil), kid("rsa")),
			"Algorithm is not accepted"},
		"ES384": {sign(t, jwt.SigningMethodES384, stranger384, claimsWith(nil), kid("ec")),
			"Algorithm is not accepted"},
		"EdDSA for RSA key": {sign(t, jwt.SigningMethodEdDSA, keys[2].signer, claimsWith(nil), kid("rsa")),
			"Invalid signature"},
		"RS256 for EC key": {sign(t, jwt.SigningMethodRS256, keys[0].signer, claimsWith(nil), kid("ec")),
			"Invalid signature"},
		"another's key": {stranger.token(t), "Invalid signature"},
		"unknown kid":   {newEdKey(t, "nobody").token(t), "Unknown signing key"},
		"kid is a number": {sign(t, jwt.SigningMethodEdDSA, keys[2].signer, claimsWith(nil), kid(7)),
			"Unknown signing key"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := newJWKSJWT(t, Options{JWKS: path}).Authenticate(t.Context(), c.token)
			wantRefusal(t, err, c.want)
		})
	}
}

func TestVerifier_SecretAndJWKSEachForTheirFamily(t *testing.T) {
	key := newEdKey(t, "ed")
	path := filepath.Join(t.TempDir(), "jwks.json")
	writeFile(t, path, jwksOf(t, key))
	j := newJWKSJWT(t, Options{JWKS: path, Secret: []byte(testSecret)})
	for _, token := range []string{key.token(t), signSecret(t, nil)} {
		if _, err := j.Authenticate(t.Context(), token); err != nil {
			t.Error(err)
		}
	}
}

func TestJWKSFile_IsReadAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "jwks.json")
	before, after := newEdKey(t, "before"), newEdKey(t, "a key with another name")
	writeFile(t, path, jwksOf(t, before))
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		j := newJWKSJWT(t, Options{JWKS: path, Logger: slog.New(slog.NewTextHandler(&log, nil))})

		writeFile(t, path, []byte("{"))
		<-time.After(fileInterval)
		if _, err := j.Authenticate(t.Context(), before.token(t)); err != nil {
			t.Errorf("with a broken file: %v", err)
		}
		if !strings.Contains(log.String(), "JWKS") {
			t.Error("a broken file is not logged")
		}

		writeFile(t, path, jwksOf(t, after))
		<-time.After(fileInterval)
		if _, err := j.Authenticate(t.Context(), after.token(t)); err != nil {
			t.Errorf("with the new key: %v", err)
		}
		_, err := j.Authenticate(t.Context(), before.token(t))
		wantRefusal(t, err, "Unknown signing key")
	})
}

func TestJWKSFile_Invalid(t *testing.T) {
	for name, text := range map[string]string{
		"not JSON":     "hello",
		"no keys":      `{"keys":[]}`,
		"not a set":    `[]`,
		"a broken key": `{"keys":[{"kty":"RSA","kid":"a","n":"!","e":"AQAB"}]}`,
		"too large":    string(jwksOf(t, newEdKey(t, "ed"))) + strings.Repeat(" ", maxJWKSBytes),
	} {
		path := filepath.Join(t.TempDir(), "jwks.json")
		writeFile(t, path, []byte(text))
		if _, err := New(Options{JWKS: path}); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: err = %v, want one that names the file", name, err)
		}
	}
	if _, err := New(Options{JWKS: filepath.Join(t.TempDir(), "missing.json")}); err == nil {
		t.Error("no error for a missing file")
	}
}

// keysHandler serves its key set and counts the requests.
type keysHandler struct {
	text    atomic.Value
	fetches atomic.Int64
}

func (h *keysHandler) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	h.fetches.Add(1)
	_, _ = w.Write(h.text.Load().([]byte))
}

func newKeysServer(t *testing.T, text []byte) (*keysHandler, string) {
	t.Helper()
	h := &keysHandler{}
	h.text.Store(text)
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return h, s.URL
}

func TestJWKSURL_UnknownKeyIsFetchedAtMostOncePerInterval(t *testing.T) {
	old, fresh := newEdKey(t, "old"), newEdKey(t, "fresh")
	h, url := newKeysServer(t, jwksOf(t, old))
	j := newJWKSJWT(t, Options{JWKS: url, Audience: []string{"any"}})
	if _, err := j.Authenticate(t.Context(), old.token(t)); err != nil {
		t.Fatal(err)
	}
	h.text.Store(jwksOf(t, old, fresh))
	if _, err := j.Authenticate(t.Context(), fresh.token(t)); err != nil {
		t.Errorf("a key that came later: %v", err)
	}
	for range 20 {
		wantUnavailable(t, authenticate(t, j, newEdKey(t, "nobody").token(t)))
	}
	if n := h.fetches.Load(); n != 2 {
		t.Errorf("fetched %d times, want 2: at the start and for the first unknown key", n)
	}
}

func TestJWKSURL_ThatFails(t *testing.T) {
	elsewhere, _ := newKeysServer(t, jwksOf(t, newEdKey(t, "ed")))
	target := httptest.NewServer(elsewhere)
	defer target.Close()
	for want, handler := range map[string]http.HandlerFunc{
		"404":             func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) },
		"one JSON object": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") },
		`no array "keys"`: func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"issuer":"https://id.example"}`) },
		"no keys":         func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"keys":[]}`) },
		"too large": func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, `{"keys":[`)
			for {
				if _, err := io.WriteString(w, strings.Repeat(" ", 64<<10)); err != nil {
					return
				}
			}
		},
		"302": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, target.URL, http.StatusFound) },
	} {
		t.Run(want, func(t *testing.T) {
			s := httptest.NewServer(handler)
			defer s.Close()
			_, err := New(Options{JWKS: s.URL + "/?key=hidden", Audience: []string{"any"}})
			if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hidden") {
				t.Errorf("err = %v, want one with %q and without the address", err, want)
			}
		})
	}
}

func TestJWKSURL_WithoutAHost(t *testing.T) {
	if _, err := New(Options{JWKS: "https:///keys", Audience: []string{"any"}}); err == nil {
		t.Error("no error")
	}
}

// The scheme of a URL is in any case.
func TestJWKSURL_InCapitals(t *testing.T) {
	key := newEdKey(t, "ed")
	_, url := newKeysServer(t, jwksOf(t, key))
	j := newJWKSJWT(t, Options{JWKS: "HTTP" + strings.TrimPrefix(url, "http"), Audience: []string{"any"}})
	if _, err := j.Authenticate(t.Context(), key.token(t)); err != nil {
		t.Error(err)
	}
}

func TestVerifier_CloseTwice(t *testing.T) {
	_, url := newKeysServer(t, jwksOf(t, newEdKey(t, "ed")))
	j := newJWKSJWT(t, Options{JWKS: url, Audience: []string{"any"}})
	j.Close()
	j.Close()
}

func TestVerifier_UnknownKeyWhileTheClientLeaves(t *testing.T) {
	_, url := newKeysServer(t, jwksOf(t, newEdKey(t, "ed")))
	j := newJWKSJWT(t, Options{JWKS: url, Audience: []string{"any"}})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := j.Authenticate(ctx, newEdKey(t, "nobody").token(t))
	if err == nil || !strings.Contains(err.Error(), context.Canceled.Error()) {
		t.Errorf("err = %v, want the context's", err)
	}
}
