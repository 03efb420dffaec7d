package jwtauth

import (
	"bytes"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"crypto/ecdsa"

	"github.com/golang-jwt/jwt/v5"

	"github.com/shoal-go/shoal/server"
)

var anyone = []string{"any"}

func authenticate(t *testing.T, j *Verifier, token string) error {
	t.Helper()
	_, err := j.Authenticate(t.Context(), token)
	return err
}

// wantUnavailable checks that a token is not refused, but cannot be checked now.
func wantUnavailable(t *testing.T, err error) {
	t.Helper()
	var refused *server.TokenError
	if err == nil || errors.As(err, &refused) {
		t.Errorf("err = %v, want one that is not a *server.TokenError", err)
	}
}

// jwk returns the public JWK of a key with further members, which replace those of the key; nil removes one.
func jwk(t *testing.T, k testKey, further map[string]any) json.RawMessage {
	t.Helper()
	var set struct{ Keys []map[string]any }
	if err := json.Unmarshal(jwksOf(t, k), &set); err != nil {
		t.Fatal(err)
	}
	m := set.Keys[0]
	for name, value := range further {
		if m[name] = value; value == nil {
			delete(m, name)
		}
	}
	text, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func setOf(entries ...json.RawMessage) []byte {
	return append(append([]byte(`{"keys":[`), bytes.Join(raw(entries), []byte(","))...), "]}"...)
}

func raw(entries []json.RawMessage) [][]byte {
	all := make([][]byte, len(entries))
	for i := range entries {
		all[i] = entries[i]
	}
	return all
}

// bothSources calls test with a Verifier whose set is in a file and with one whose set is behind a URL.
func bothSources(t *testing.T, set []byte, test func(t *testing.T, j *Verifier)) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "jwks.json")
	writeFile(t, path, set)
	_, url := newKeysServer(t, set)
	for name, jwks := range map[string]string{"file": path, "url": url} {
		t.Run(name, func(t *testing.T) { test(t, newJWKSJWT(t, Options{JWKS: jwks, Audience: anyone, Issuer: nil})) })
	}
}

func (k testKey) unnamed(t *testing.T, claims jwt.MapClaims) string {
	t.Helper()
	return sign(t, k.method, k.signer, claims, nil)
}

// A key that is not for signatures, or is for another algorithm, verifies no token, whether the token names it or not.
func TestKeySet_UseAndAlgorithm(t *testing.T) {
	keys := newTestKeys(t)
	for name, further := range map[string]map[string]any{
		"use enc": {"use": "enc"}, "use unknown": {"use": "x"}, "use null": {"use": json.RawMessage("null")},
		"key_ops sign": {"key_ops": []string{"sign"}}, "key_ops text": {"key_ops": "verify"},
		"alg PS256": {"alg": "PS256"}, "alg RSA-OAEP": {"alg": "RSA-OAEP"}, "alg a number": {"alg": 7},
	} {
		for _, k := range keys {
			good := newEdKey(t, "good")
			set, err := parseKeySet(setOf(jwk(t, k, further), jwk(t, good, nil)))
			if err != nil {
				t.Fatal(err)
			}
			for _, token := range []string{k.token(t), k.unnamed(t, claimsWith(nil))} {
				parsed, err := parseToken(token)
				if err != nil || set.verify(parsed) == nil {
					t.Errorf("%s, %s: verified, %v", name, k.id, err)
				}
			}
		}
	}
}

// An entry that cannot be used is skipped, and the other keys of the set work, from a file and from a URL alike.
func TestKeySet_OddEntriesAreSkipped(t *testing.T) {
	good := newTestKeys(t)[0]
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	x := base64.RawURLEncoding.EncodeToString(make([]byte, 32))
	var entries []json.RawMessage
	for _, text := range []string{
		`null`, `7`, `"key"`, `[]`, `{}`, `{"kty":"oct","k":"AAAA"}`, `{"kty":"AKP","alg":"ML-DSA-44","pub":"AA"}`, `{"kty":7}`,
		`{"kty":"EC","crv":"secp256k1","x":"` + x + `","y":"` + x + `"}`, `{"kty":"EC","crv":"P-256","x":"` + x + `","y":"` + x + `"}`,
		`{"kty":"OKP","crv":"X25519","x":"` + x + `"}`, `{"kty":"OKP","crv":"X448","x":"AA"}`, `{"kty":"OKP","crv":"Ed448","x":"AA"}`,
		`{"kty":"OKP","crv":"Ed25519","x":"AA"}`, `{"kty":"RSA","n":"!","e":"AQAB"}`, `{"kty":"RSA","n":"","e":"AQAB"}`,
		`{"kty":"RSA","x5c":["AA"]}`, `{"kty":"RSA","kid":7,"n":"AA","e":"AQAB"}`, `{"kty":"RSA","kty":"RSA"}`, `{"kty":"\ud800"}`,
		`{"kty":"RSA","n":"` + strings.Repeat("_", 400) + `","e":"AA"}`,
	} {
		entries = append(entries, json.RawMessage(text))
	}
	entries = append(entries, jwk(t, testKey{"p521", jwt.SigningMethodES512, p521}, nil),
		jwk(t, testKey{"small", jwt.SigningMethodRS256, small}, nil))
	odd := len(entries)
	entries = append(entries, jwk(t, good, map[string]any{"key_ops": []string{"verify", "new"}, "use": "sig", "alg": "RS256", "x5t": "!"}))
	set, err := parseKeySet(setOf(entries...))
	if err != nil || len(set.keys) != 1 || len(set.skipped) != odd {
		t.Fatalf("err = %v, set %+v, want %d entries skipped", err, set, odd)
	}
	bothSources(t, setOf(entries...), func(t *testing.T, j *Verifier) {
		if err := authenticate(t, j, good.token(t)); err != nil {
			t.Error(err)
		}
	})
	if _, err := parseKeySet(setOf(entries[:odd]...)); err == nil {
		t.Error("a set without a usable key is accepted")
	}
}

// Several keys under one kid are all tried.
func TestKeySet_SeveralKeysUnderOneID(t *testing.T) {
	first, second := newTestKeys(t)[1], newTestKeys(t)[1]
	ed := newEdKey(t, first.id)
	set := append([]byte("\xef\xbb\xbf"), setOf(jwk(t, first, nil), jwk(t, second, nil), jwk(t, ed, nil))...)
	bothSources(t, set, func(t *testing.T, j *Verifier) {
		for _, k := range []testKey{first, second, ed} {
			if err := authenticate(t, j, k.token(t)); err != nil {
				t.Error(err)
			}
			if err := authenticate(t, j, k.unnamed(t, claimsWith(nil))); err != nil {
				t.Error(err)
			}
		}
	})
}

// Each entry that is skipped is logged once for each set, and a file whose contents change is noticed.
func TestVerifier_SkippedKeysAreLoggedOncePerChange(t *testing.T) {
	path := filepath.Join(t.TempDir(), "jwks.json")
	before, after := newEdKey(t, "one"), newEdKey(t, "two")
	odd := json.RawMessage(`{"kty":"oct","kid":"odd","k":"secret"}`)
	when := time.Unix(1, 0)
	put := func(k testKey) {
		writeFile(t, path, setOf(odd, jwk(t, k, nil)))
		if err := os.Chtimes(path, when, when); err != nil { // neither time nor size tell the two apart
			t.Fatal(err)
		}
	}
	put(before)
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		j := newJWKSJWT(t, Options{JWKS: path, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		for range 5 {
			<-time.After(fileInterval)
			if err := authenticate(t, j, before.token(t)); err != nil {
				t.Fatal(err)
			}
		}
		put(after)
		<-time.After(50 * time.Millisecond) // a new key is read at once, not at the next second
		if err := authenticate(t, j, after.token(t)); err != nil {
			t.Error(err)
		}
		if n := strings.Count(log.String(), "JWKS key skipped"); n != 2 || strings.Contains(log.String(), "secret") {
			t.Errorf("%d lines about the skipped key, want 2:\n%s", n, &log)
		}
	})
}

// answers is a transport that answers with a set or, without one, not at all.
type answers struct {
	mu     sync.Mutex
	status int
	body   string
	delay  time.Duration
	served atomic.Int64
}

func (a *answers) set(status int, body string, delay time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.status, a.body, a.delay = status, body, delay
}

func (a *answers) RoundTrip(r *http.Request) (*http.Response, error) {
	a.served.Add(1)
	a.mu.Lock()
	status, body, delay := a.status, a.body, a.delay
	a.mu.Unlock()
	select {
	case <-time.After(delay):
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	if status == 0 {
		return nil, errors.New("connection refused")
	}
	return &http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader(body)), Header: http.Header{}}, nil
}

func newAnswersJWT(t *testing.T, a *answers) *Verifier {
	t.Helper()
	return newJWKSJWT(t, Options{JWKS: "https://keys.example", Audience: anyone, Client: &http.Client{Transport: a}})
}

// During a rotation all clients wait for the one fetch in progress; none of them is refused.
func TestVerifier_ClientsOfARotationShareOneFetch(t *testing.T) {
	old, fresh, third := newEdKey(t, "old"), newEdKey(t, "fresh"), newEdKey(t, "third")
	synctest.Test(t, func(t *testing.T) {
		a := &answers{}
		a.set(200, string(jwksOf(t, old)), 0)
		j := newAnswersJWT(t, a)
		a.set(200, string(jwksOf(t, old, fresh)), 500*time.Millisecond)
		var all sync.WaitGroup
		for range 40 {
			all.Go(func() {
				if err := authenticate(t, j, fresh.token(t)); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if n := a.served.Load(); n != 2 {
			t.Errorf("%d fetches, want 2", n)
		}
		// A third key within the limit: nothing is known of it yet, and later it is accepted.
		a.set(200, string(jwksOf(t, third)), 0)
		wantUnavailable(t, authenticate(t, j, third.token(t)))
		<-time.After(unknownKeyInterval)
		if err := authenticate(t, j, third.token(t)); err != nil {
			t.Error(err)
		}
		<-time.After(unknownKeyInterval)
		wantRefusal(t, authenticate(t, j, newEdKey(t, "nobody").token(t)), "Unknown signing key")
	})
}

// A token that names no key may be of one that is not fetched yet, as long as the keys cannot be fetched: because their
// server is away, or because they were fetched for a stranger's token just now. One that has expired is refused all the
// same, and so is one that names a key which has not signed it.
func TestVerifier_UnnamedKeyIsUnknownUntilFetched(t *testing.T) {
	old, fresh, third, stranger := newEdKey(t, "old"), newEdKey(t, ""), newEdKey(t, ""), newEdKey(t, "stranger")
	synctest.Test(t, func(t *testing.T) {
		a := &answers{}
		a.set(200, string(jwksOf(t, old)), 0)
		j := newAnswersJWT(t, a)
		wantRefusal(t, authenticate(t, j, stranger.token(t)), "Unknown signing key")
		a.set(200, string(setOf(jwk(t, old, nil), jwk(t, fresh, nil))), 0)
		wantUnavailable(t, authenticate(t, j, fresh.unnamed(t, claimsWith(nil))))
		expired := fresh.unnamed(t, claimsWith(jwt.MapClaims{"exp": time.Now().Add(-time.Second).Unix()}))
		wantRefusal(t, authenticate(t, j, expired), "Token has expired")
		wantRefusal(t, authenticate(t, j, testKey{"old", stranger.method, stranger.signer}.token(t)), "Invalid signature")
		<-time.After(unknownKeyInterval)
		if err := authenticate(t, j, fresh.unnamed(t, claimsWith(nil))); err != nil {
			t.Errorf("after the interval: %v", err)
		}
		a.set(503, "", 0)
		<-time.After(unknownKeyInterval)
		wantUnavailable(t, authenticate(t, j, third.unnamed(t, claimsWith(nil))))
		a.set(200, string(setOf(jwk(t, old, nil), jwk(t, fresh, nil))), 0)
		<-time.After(unknownKeyInterval)
		wantRefusal(t, authenticate(t, j, third.unnamed(t, claimsWith(nil))), "Invalid signature")
	})
}

// A key that replaces another one under the same name is fetched when a token needs it. Until then, tokens that say that
// they are newer than the last fetch are not refused for good; those of the old key are refused from then on.
func TestVerifier_KeyReplacedUnderItsName(t *testing.T) {
	old, fresh, third := newEdKey(t, "key"), newEdKey(t, "key"), newEdKey(t, "key")
	synctest.Test(t, func(t *testing.T) {
		a := &answers{}
		a.set(200, string(jwksOf(t, old)), 0)
		j := newAnswersJWT(t, a)
		a.set(200, string(jwksOf(t, fresh)), 0)
		if err := authenticate(t, j, fresh.token(t)); err != nil {
			t.Error(err)
		}
		for range 20 {
			wantRefusal(t, authenticate(t, j, old.token(t)), "Invalid signature")
		}
		<-time.After(time.Second) // iat has whole seconds
		a.set(200, string(jwksOf(t, third)), 0)
		late := claimsWith(jwt.MapClaims{"iat": time.Now().Unix()})
		token := sign(t, third.method, third.signer, late, map[string]any{"kid": third.id})
		wantUnavailable(t, authenticate(t, j, token))
		if n := a.served.Load(); n != 2 {
			t.Errorf("%d fetches, want 2", n)
		}
		<-time.After(unknownKeyInterval)
		if err := authenticate(t, j, token); err != nil {
			t.Errorf("after the interval: %v", err)
		}
		wantRefusal(t, authenticate(t, j, sign(t, old.method, old.signer, late, map[string]any{"kid": old.id})), "Invalid signature")
	})
}

// While the file of keys cannot be read, a token of a key that it may hold by now is not refused for good.
func TestVerifier_UnreadableFileRefusesNoNewKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "jwks.json")
	old, fresh := newEdKey(t, "old"), newEdKey(t, "fresh")
	writeFile(t, path, jwksOf(t, old))
	synctest.Test(t, func(t *testing.T) {
		j := newJWKSJWT(t, Options{JWKS: path})
		for _, text := range []string{"", "{}"} {
			<-time.After(time.Second)
			if text == "" {
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
			} else {
				writeFile(t, path, []byte(text))
			}
			wantUnavailable(t, authenticate(t, j, fresh.token(t)))
			forged := testKey{old.id, fresh.method, fresh.signer}
			wantRefusal(t, authenticate(t, j, forged.token(t)), "Invalid signature")
			if err := authenticate(t, j, old.token(t)); err != nil {
				t.Error(err)
			}
		}
		writeFile(t, path, jwksOf(t, old, fresh))
		<-time.After(time.Second)
		if err := authenticate(t, j, fresh.token(t)); err != nil {
			t.Error(err)
		}
		wantRefusal(t, authenticate(t, j, newEdKey(t, "nobody").token(t)), "Unknown signing key")
	})
}

// An empty, broken or missing answer never replaces good keys, and a key that it may hide is not refused.
func TestVerifier_BadAnswerKeepsTheKeys(t *testing.T) {
	good, hidden := newEdKey(t, "good"), newEdKey(t, "hidden")
	for name, body := range map[string]string{
		"empty set": `{"keys":[]}`, "no set": `{}`, "HTML": `<html>`, "only unusable": `{"keys":[{"kty":"oct"}]}`,
		"503": "", "refused": "", "404": "", "hangs": "",
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := &answers{}
				a.set(200, string(jwksOf(t, good)), 0)
				j := newAnswersJWT(t, a)
				status, delay := 200, time.Duration(0)
				switch name {
				case "503":
					status = 503
				case "404":
					status = 404
				case "refused":
					status = 0
				case "hangs":
					delay = time.Hour
				}
				a.set(status, body, delay)
				for range 3 {
					wantUnavailable(t, authenticate(t, j, hidden.token(t)))
					<-time.After(2 * keysInterval)
					if err := authenticate(t, j, good.token(t)); err != nil {
						t.Errorf("the good key: %v", err)
					}
				}
				a.set(200, string(jwksOf(t, good, hidden)), 0)
				<-time.After(keysRetryMax + keysTimeout)
				if err := authenticate(t, j, hidden.token(t)); err != nil {
					t.Errorf("after the recovery: %v", err)
				}
			})
		})
	}
}

// A key server that is away at start leaves the verifier unready, and is asked until it answers.
func TestVerifier_KeyServerAwayAtStart(t *testing.T) {
	key := newEdKey(t, "ed")
	for name, delay := range map[string]time.Duration{"refused": 0, "hangs": time.Hour} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := &answers{}
				a.set(0, "", delay)
				begin := time.Now()
				j := newAnswersJWT(t, a)
				if took := time.Since(begin); took != min(delay, keysTimeout) {
					t.Errorf("New took %v", took)
				}
				if j.Ready() == nil {
					t.Error("ready without keys")
				}
				wantUnavailable(t, authenticate(t, j, key.token(t)))
				a.set(200, string(jwksOf(t, key)), 0)
				<-time.After(keysRetryMax + keysTimeout)
				if err := authenticate(t, j, key.token(t)); err != nil || j.Ready() != nil {
					t.Errorf("once the server is back: %v, ready %v", err, j.Ready())
				}
			})
		})
	}
}

// The keys are fetched again every hour, so a withdrawn key ends.
func TestVerifier_WithdrawnKeyEnds(t *testing.T) {
	old, fresh := newEdKey(t, "old"), newEdKey(t, "fresh")
	synctest.Test(t, func(t *testing.T) {
		a := &answers{}
		a.set(200, string(jwksOf(t, old, fresh)), 0)
		j := newAnswersJWT(t, a)
		a.set(200, string(jwksOf(t, fresh)), 0)
		<-time.After(keysInterval + time.Second)
		wantRefusal(t, authenticate(t, j, old.token(t)), "Unknown signing key")
	})
}

// The audience and the issuer of a token are checked where they are configured, and an audience must be for a URL.
func TestVerifier_AudienceAndIssuer(t *testing.T) {
	j := newSecretJWT(t, Options{Audience: []string{"shoal", "other"}, Issuer: []string{"https://id.example"}})
	for _, c := range []struct {
		claims jwt.MapClaims
		want   string
	}{
		{jwt.MapClaims{"aud": "shoal", "iss": "https://id.example"}, ""},
		{jwt.MapClaims{"aud": []string{"x", "other"}, "iss": "https://id.example"}, ""},
		{jwt.MapClaims{"aud": "another", "iss": "https://id.example"}, "Token is for another audience"},
		{jwt.MapClaims{"aud": []string{}, "iss": "https://id.example"}, "Token is for another audience"},
		{jwt.MapClaims{"aud": 7, "iss": "https://id.example"}, "Token is for another audience"},
		{jwt.MapClaims{"iss": "https://id.example"}, "Token is for another audience"},
		{jwt.MapClaims{"aud": "shoal"}, "Token is of another issuer"},
		{jwt.MapClaims{"aud": "shoal", "iss": "https://evil.example"}, "Token is of another issuer"},
		{jwt.MapClaims{"aud": "shoal", "iss": []string{"https://id.example"}}, "Token is of another issuer"},
	} {
		err := authenticate(t, j, signSecret(t, c.claims))
		if c.want == "" && err != nil {
			t.Errorf("%v: %v", c.claims, err)
		} else if c.want != "" {
			wantRefusal(t, err, c.want)
		}
	}
	token, err := SignHS256([]byte(testSecret), server.Identity{UserID: "a", Expires: time.Now().Add(time.Hour)},
		map[string]any{"aud": "shoal", "iss": "https://id.example"})
	if err != nil || authenticate(t, j, token) != nil {
		t.Errorf("a token with further claims: %v", err)
	}
	for name, o := range map[string]Options{
		"no audience": {JWKS: "https://keys.example"},
		"any beside":  {Secret: []byte(testSecret), Audience: []string{"any", "shoal"}},
		"empty entry": {Secret: []byte(testSecret), Audience: []string{""}},
		"empty iss":   {Secret: []byte(testSecret), Issuer: []string{""}},
	} {
		if _, err := New(o); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// A secret that ends in the line break of its file is refused at start.
func TestVerifier_SecretWithWhiteSpaceIsRefused(t *testing.T) {
	for _, secret := range []string{testSecret + "\n", testSecret + "\r\n", " " + testSecret, strings.Repeat(" ", 40), testSecret + "\u00a0"} {
		if _, err := New(Options{Secret: []byte(secret)}); err == nil || strings.Contains(err.Error(), "thirty") {
			t.Errorf("%q: err = %v", secret, err)
		}
	}
	if err := CheckSecret([]byte("a secret with spaces inside")); err != nil {
		t.Error(err)
	}
}

// A token that will be valid within a minute is not refused for good, and the difference of the clocks is logged.
func TestVerifier_IssuerClockAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		j := newSecretJWT(t, Options{Logger: slog.New(slog.NewTextHandler(&log, nil)), Leeway: 10 * time.Second})
		token := func(ahead time.Duration) string {
			return signSecret(t, jwt.MapClaims{"iat": time.Now().Add(ahead).Unix()})
		}
		if err := authenticate(t, j, token(10*time.Second)); err != nil {
			t.Errorf("within the leeway: %v", err)
		}
		early := token(20 * time.Second)
		for range 3 {
			wantUnavailable(t, authenticate(t, j, early))
		}
		if n := strings.Count(log.String(), "ahead=20s"); n != 1 {
			t.Errorf("%d log lines, want 1:\n%s", n, &log)
		}
		<-time.After(10 * time.Second)
		if err := authenticate(t, j, early); err != nil {
			t.Errorf("later: %v", err)
		}
		wantRefusal(t, authenticate(t, j, token(71*time.Second)), "Token is not valid yet")
	})
}

// An expiry that no clock reaches counts as far in the future, however it is written.
func TestVerifier_HugeExpiry(t *testing.T) {
	j := newSecretJWT(t, Options{})
	header := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256"}`))
	for _, exp := range []string{"1e11", "9223372036854775807", "1e300", "1e999", "99999999999999999999999", "4102444800.5", "4.1024448e9"} {
		signed := header + "." + base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"sub":"a","exp":%s}`, exp))
		signature, err := jwt.SigningMethodHS256.Sign(signed, []byte(testSecret))
		if err != nil {
			t.Fatal(err)
		}
		id, err := j.Authenticate(t.Context(), signed+"."+base64.RawURLEncoding.EncodeToString(signature))
		if err != nil || time.Until(id.Expires) < 24*time.Hour {
			t.Errorf("exp %s: %v, expires %v", exp, err, id.Expires)
		}
	}
}

// Two different subjects never become one user: text that is not valid Unicode is refused, and so is a claim or a
// header that is given twice.
func TestVerifier_AmbiguousClaimsAreRefused(t *testing.T) {
	j := newSecretJWT(t, Options{})
	for claims, want := range map[string]string{
		`{"sub":"\ud800","exp":9e9}`:           "Token has no valid subject",
		"{\"sub\":\"\xff\xff\",\"exp\":9e9}":   "Token has no valid subject",
		`{"sub":"a","sub":"b","exp":9e9}`:      "Invalid token",
		`{"sub":"a","exp":9e9,"exp":9e9}`:      "Invalid token",
		`{"sub":"a\ufffd","exp":9e9}`:          "Token has no valid subject",
		`{"sub":"a","exp":9e9} {}`:             "Invalid token",
		`{"sub":"a","exp":9e9,"x":"\ud800"}`:   "", // no claim that is used
		`{"sub":"\ud83d\ude00","exp":9e9}`:     "",
		`{"sub":"a","exp":9e9,"uploads":null}`: "",
	} {
		header := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256"}`))
		signed := header + "." + base64.RawURLEncoding.EncodeToString([]byte(claims))
		signature, err := jwt.SigningMethodHS256.Sign(signed, []byte(testSecret))
		if err != nil {
			t.Fatal(err)
		}
		err = authenticate(t, j, signed+"."+base64.RawURLEncoding.EncodeToString(signature))
		if want != "" {
			wantRefusal(t, err, want)
		} else if err != nil {
			t.Errorf("%s: %v", claims, err)
		}
	}
}

// An uploads claim that is not a list of strings allows no upload, and the token is accepted.
func TestVerifier_MalformedUploadsClaimAllowsNothing(t *testing.T) {
	j := newSecretJWT(t, Options{})
	for _, uploads := range []any{"*", 7, []any{"*", 1}, map[string]any{}, (*string)(nil)} {
		id, err := j.Authenticate(t.Context(), signSecret(t, jwt.MapClaims{"uploads": uploads}))
		if err != nil || server.AuthorizeClaims(t.Context(), id, "u1") == nil {
			t.Errorf("uploads %v: %v, identity %+v", uploads, err, id)
		}
	}
}
