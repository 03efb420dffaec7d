package jwtauth_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/shoal-go/shoal/server"
	"github.com/shoal-go/shoal/server/jwtauth"
)

// While secrets are rotated, tokens of the new and of the previous one are accepted, and afterwards the new ones only.
func TestSecrets_Rotate(t *testing.T) {
	secret := func(letter string) []byte { return []byte(strings.Repeat(letter, 32)) }
	v, err := jwtauth.New(jwtauth.Options{Secret: secret("a")})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	accepted := func(letter string) bool {
		t.Helper()
		token, err := jwtauth.SignHS256(secret(letter), server.Identity{UserID: "ann", Expires: time.Now().Add(time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		_, err = v.Authenticate(t.Context(), token)
		var refused *server.TokenError
		if err != nil && !errors.As(err, &refused) {
			t.Errorf("a token of another secret is not refused for good: %v", err)
		}
		return err == nil
	}
	check := func(step, want string) {
		t.Helper()
		for _, letter := range []string{"a", "b", "c"} {
			if got := accepted(letter); got != strings.Contains(want, letter) {
				t.Errorf("%s: tokens of %s are accepted: %v", step, letter, got)
			}
		}
	}
	check("before", "a")
	if err := v.SetSecrets(secret("b"), secret("a")); err != nil {
		t.Error(err)
	}
	check("during", "ab")
	for name, err := range map[string]error{
		"none": v.SetSecrets(), "empty": v.SetSecrets(secret("c"), nil), "line break": v.SetSecrets([]byte("c\n")),
	} {
		if err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	check("after errors", "ab")
	if err := v.SetSecrets(secret("b")); err != nil {
		t.Error(err)
	}
	check("after", "b")
}
