package jwtauth

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/shoal-go/shoal/server"
)

const testSecret = "a secret of at least thirty-two bytes"

func newSecretJWT(t *testing.T, o Options) *Verifier {
	t.Helper()
	o.Secret = []byte(testSecret)
	j, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(j.Close)
	return j
}

// claimsWith returns good claims, changed; nil takes one away.
func claimsWith(changes jwt.MapClaims) jwt.MapClaims {
	claims := jwt.MapClaims{"sub": "alice", "exp": time.Now().Add(time.Hour).Unix(), "type": "access"}
	for name, value := range changes {
		if value == nil {
			delete(claims, name)
		} else {
			claims[name] = value
		}
	}
	return claims
}

func sign(t *testing.T, method jwt.SigningMethod, key any, claims jwt.MapClaims, header map[string]any) string {
	t.Helper()
	token := jwt.NewWithClaims(method, claims)
	for name, value := range header {
		token.Header[name] = value
	}
	signed, err := token.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

func signSecret(t *testing.T, changes jwt.MapClaims) string {
	t.Helper()
	return sign(t, jwt.SigningMethodHS256, []byte(testSecret), claimsWith(changes), nil)
}

// wantRefusal checks that err is the refusal with just that text.
func wantRefusal(t *testing.T, err error, message string) {
	t.Helper()
	var refused *server.TokenError
	if !errors.As(err, &refused) {
		t.Fatalf("err = %v, want a *server.TokenError %q", err, message)
	}
	if refused.Message != message {
		t.Errorf("message = %q, want %q", refused.Message, message)
	}
}

// A token that a Verifier would refuse for its length is not signed.
func TestSignHS256_RefusesTooManyUploads(t *testing.T) {
	id := server.Identity{UserID: "a", Expires: time.Now().Add(time.Hour), Uploads: make([]string, 3000)}
	if token, err := SignHS256([]byte(testSecret), id); err == nil || !strings.Contains(err.Error(), "at most 8192") {
		t.Errorf("a token of %d bytes, %v", len(token), err)
	}
}

func TestVerifier_AcceptsTokensOfSignHS256(t *testing.T) {
	j := newSecretJWT(t, Options{})
	expires := time.Now().Add(time.Hour).Truncate(time.Second)
	alice := server.Identity{UserID: "älice", TokenID: "t-1", Expires: expires, Uploads: []string{"u1", "p*"}}
	token, err := SignHS256([]byte(testSecret), alice)
	if err != nil {
		t.Fatal(err)
	}
	id, err := j.Authenticate(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	if id.UserID != "älice" || id.TokenID != "t-1" || !id.Expires.Equal(expires) || strings.Join(id.Uploads, " ") != "u1 p*" {
		t.Errorf("identity = %+v", id)
	}
}

func TestVerifier_AcceptsATokenWithoutType(t *testing.T) {
	j := newSecretJWT(t, Options{})
	id, err := j.Authenticate(t.Context(), signSecret(t, jwt.MapClaims{"type": nil}))
	if err != nil || id.UserID != "alice" || id.Uploads != nil {
		t.Errorf("identity = %+v, err = %v", id, err)
	}
}

func TestVerifier_RefusesClaims(t *testing.T) {
	now := time.Now()
	for name, c := range map[string]struct {
		changes jwt.MapClaims
		want    string
	}{
		"no sub":               {jwt.MapClaims{"sub": nil}, "Token has no valid subject"},
		"empty sub":            {jwt.MapClaims{"sub": ""}, "Token has no valid subject"},
		"sub is a number":      {jwt.MapClaims{"sub": 7}, "Token has no valid subject"},
		"sub with control":     {jwt.MapClaims{"sub": "a\nb"}, "Token has no valid subject"},
		"sub too long":         {jwt.MapClaims{"sub": strings.Repeat("a", 256)}, "Token has no valid subject"},
		"sub in capitals":      {jwt.MapClaims{"sub": nil, "SUB": "alice"}, "Token has no valid subject"},
		"no exp":               {jwt.MapClaims{"exp": nil}, "Token has no expiry"},
		"exp 0":                {jwt.MapClaims{"exp": 0}, "Token has expired"},
		"exp is text":          {jwt.MapClaims{"exp": "tomorrow"}, "Invalid token"},
		"expired":              {jwt.MapClaims{"exp": now.Add(-time.Hour).Unix()}, "Token has expired"},
		"expired, within skew": {jwt.MapClaims{"exp": now.Add(-2 * time.Second).Unix()}, "Token has expired"},
		"refresh token":        {jwt.MapClaims{"type": "refresh"}, "Token is not an access token"},
		"type is a number":     {jwt.MapClaims{"type": 1}, "Token is not an access token"},
		"type is null":         {jwt.MapClaims{"type": (*string)(nil)}, "Token is not an access token"},
		"not yet valid":        {jwt.MapClaims{"nbf": now.Add(time.Hour).Unix()}, "Token is not valid yet"},
		"issued in the future": {jwt.MapClaims{"iat": now.Add(time.Hour).Unix()}, "Token is not valid yet"},
		"exp is null":          {jwt.MapClaims{"exp": (*string)(nil)}, "Token has no expiry"},
		"exp is negative":      {jwt.MapClaims{"exp": -1e300}, "Token has expired"},
		"jti with control":     {jwt.MapClaims{"jti": "a\x00b"}, "Token has an invalid jti"},
		"jti too long":         {jwt.MapClaims{"jti": strings.Repeat("a", 256)}, "Token has an invalid jti"},
		"nbf is text":          {jwt.MapClaims{"nbf": "now"}, "Invalid token"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := newSecretJWT(t, Options{}).Authenticate(t.Context(), signSecret(t, c.changes))
			wantRefusal(t, err, c.want)
		})
	}
}

func TestVerifier_AllowsForAnIssuersClockAhead(t *testing.T) {
	soon := time.Now().Add(2 * time.Second).Unix()
	j := newSecretJWT(t, Options{})
	if _, err := j.Authenticate(t.Context(), signSecret(t, jwt.MapClaims{"nbf": soon, "iat": soon})); err != nil {
		t.Error(err)
	}
}

func TestVerifier_RefusesForms(t *testing.T) {
	good := signSecret(t, nil)
	header, rest, _ := strings.Cut(good, ".")
	payload, signature, _ := strings.Cut(rest, ".")
	extended := map[string]any{"crit": []string{"x"}}
	critical := sign(t, jwt.SigningMethodHS256, []byte(testSecret), claimsWith(nil), extended)
	for name, c := range map[string]struct{ token, want string }{
		"empty":        {"", "Invalid token"},
		"not a token":  {"hello", "Invalid token"},
		"two parts":    {header + "." + payload, "Invalid token"},
		"four parts":   {good + ".x", "Invalid token"},
		"not base64":   {header + ".%%%." + signature, "Invalid token"},
		"not JSON":     {header + ".aGVsbG8." + signature, "Invalid token"},
		"no signature": {header + "." + payload + ".", "Invalid signature"},
		"another's signature": {header + "." + payload + "." + strings.Repeat("A", len(signature)),
			"Invalid signature"},
		"another secret": {sign(t, jwt.SigningMethodHS256, []byte("other"), claimsWith(nil), nil),
			"Invalid signature"},
		"none": {sign(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, claimsWith(nil), nil),
			"Algorithm is not accepted"},
		"HS512": {sign(t, jwt.SigningMethodHS512, []byte(testSecret), claimsWith(nil), nil),
			"Algorithm is not accepted"},
		"unknown algorithm":  {"eyJhbGciOiJYUzEifQ." + payload + "." + signature, "Algorithm is not accepted"},
		"critical extension": {critical, "Algorithm is not accepted"},
		"too long":           {good + strings.Repeat("A", maxTokenBytes), "Token is too long"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := newSecretJWT(t, Options{}).Authenticate(t.Context(), c.token)
			wantRefusal(t, err, c.want)
		})
	}
}

func TestVerifier_ExpiresAtItsSecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newSecretJWT(t, Options{})
		token := signSecret(t, jwt.MapClaims{"exp": time.Now().Add(10 * time.Second).Unix()})
		<-time.After(10*time.Second - time.Nanosecond)
		if _, err := j.Authenticate(t.Context(), token); err != nil {
			t.Errorf("just before exp: %v", err)
		}
		<-time.After(time.Nanosecond)
		_, err := j.Authenticate(t.Context(), token)
		wantRefusal(t, err, "Token has expired")
	})
}

func TestVerifier_CheckVersion(t *testing.T) {
	down := errors.New("database is down")
	j := newSecretJWT(t, Options{CheckVersion: func(_ context.Context, userID string, version int64) error {
		switch {
		case userID != "alice":
			return errors.New("asked about " + userID)
		case version == 1<<53+1: // exact where a float64 would not be
			return nil
		case version == 2:
			return &server.TokenError{Message: "Token has been revoked"}
		}
		return down
	}})
	authenticate := func(version any) error {
		_, err := j.Authenticate(t.Context(), signSecret(t, jwt.MapClaims{"token_version": version}))
		return err
	}
	if err := authenticate(int64(1<<53 + 1)); err != nil {
		t.Errorf("current version: %v", err)
	}
	if err := authenticate(nil); err != nil {
		t.Errorf("no version: %v", err)
	}
	wantRefusal(t, authenticate(2), "Token has been revoked")
	wantRefusal(t, authenticate("three"), "Token has an invalid token_version claim")
	wantRefusal(t, authenticate(1.5), "Token has an invalid token_version claim")
	if err := authenticate(4); !errors.Is(err, down) {
		t.Errorf("err = %v, want the check's own", err)
	}
}

func TestVerifier_RefusalsHoldNoSecret(t *testing.T) {
	j := newSecretJWT(t, Options{})
	for _, token := range []string{"secret-text", signSecret(t, jwt.MapClaims{"sub": "secret-text\n"})} {
		_, err := j.Authenticate(t.Context(), token)
		if err == nil || strings.Contains(err.Error(), "secret-text") || strings.Contains(err.Error(), token) {
			t.Errorf("err = %v", err)
		}
	}
}

func TestSignHS256_RefusesBadInput(t *testing.T) {
	later := time.Now().Add(time.Hour)
	for name, c := range map[string]struct {
		secret string
		id     server.Identity
		want   string
	}{
		"no secret": {"", server.Identity{UserID: "alice", Expires: later}, "secret"},
		"no user":   {"s", server.Identity{Expires: later}, "user_id"},
		"bad user":  {"s", server.Identity{UserID: "a\x00", Expires: later}, "user_id"},
		"bad token": {"s", server.Identity{UserID: "alice", TokenID: "a\x00", Expires: later}, "jti"},
		"no expiry": {"s", server.Identity{UserID: "alice"}, "expiry"},
	} {
		if _, err := SignHS256([]byte(c.secret), c.id); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: err = %v, want one that names %s", name, err, c.want)
		}
	}
}

func TestNew_NeedsAKey(t *testing.T) {
	if _, err := New(Options{}); err == nil {
		t.Error("no error without a secret and a JWKS")
	}
}
