package server

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"strings"
)

// apiKeys are the digests of the keys that open the HTTP API. It is immutable.
type apiKeys [][sha256.Size]byte

func newAPIKeys(keys []string) apiKeys {
	var all apiKeys
	for _, k := range keys {
		if k != "" { // or a request without a key would hold one
			all = append(all, sha256.Sum256([]byte(k)))
		}
	}
	return all
}

// check returns nil if a request holds one of the keys, or else an *apiProblem.
func (k apiKeys) check(r *http.Request) error {
	if len(k) == 0 {
		return newProblem(http.StatusForbidden, "the API is closed, because no API key is configured")
	}
	key := bearer(r)
	switch {
	case key == "":
		return unauthorized(`Bearer realm="shoal"`, "an API key is missing; send it as Authorization: Bearer <key>")
	case !k.hold(key):
		return unauthorized(`Bearer realm="shoal", error="invalid_token"`, "the API key is not one of those configured")
	}
	return nil
}

// hold compares with every key, and digests rather than keys, so that the time it takes tells nothing of how
// much of which key was right.
func (k apiKeys) hold(key string) bool {
	digest := sha256.Sum256([]byte(key))
	found := 0
	for i := range k {
		found |= subtle.ConstantTimeCompare(digest[:], k[i][:])
	}
	return found == 1
}

func unauthorized(challenge, detail string) *apiProblem {
	p := newProblem(http.StatusUnauthorized, detail)
	p.header.Set("WWW-Authenticate", challenge)
	return p
}

// bearer returns the token of a request's Authorization header, or "".
func bearer(r *http.Request) string {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return token
}
