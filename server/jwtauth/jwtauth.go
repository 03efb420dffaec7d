// Package jwtauth authenticates the connections of a [server.Server] by JSON Web Tokens: HS256 with a secret, RS256,
// ES256 and EdDSA with a key set in a file or behind a URL. It is separate from package server so that a program with
// sessions of its own compiles no JWT library.
package jwtauth

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/golang-jwt/jwt/v5"

	"github.com/shoal-go/shoal/internal/logs"
	"github.com/shoal-go/shoal/internal/strictjson"
	"github.com/shoal-go/shoal/server"
)

const (
	// maxTokenBytes bounds the work that a token can cause before its signature is checked.
	maxTokenBytes = 8 << 10
	// defaultLeeway is the default of Options.Leeway.
	defaultLeeway = 5 * time.Second
	// anyAudience is the entry of Options.Audience that switches the check off.
	anyAudience = "any"
)

// signingMethods are the accepted algorithms.
var signingMethods = map[string]jwt.SigningMethod{
	"HS256": jwt.SigningMethodHS256,
	"RS256": jwt.SigningMethodRS256,
	"ES256": jwt.SigningMethodES256,
	"EdDSA": jwt.SigningMethodEdDSA,
}

// Options configure a Verifier. At least one of Secret and JWKS is required. With both, a token's algorithm decides
// which of them verifies its signature.
type Options struct {
	// Secret is the key of HS256. It should be random, have at least 32 bytes, and pass [CheckSecret].
	Secret []byte
	// OtherSecrets are further keys of HS256, like the previous one while tokens signed with it are still valid.
	OtherSecrets [][]byte

	// JWKS is the location of the public keys of RS256, ES256 and EdDSA: an http or https URL, or the path of a file.
	// Keys of a set that cannot verify these algorithms are skipped, each with a log line. A URL is fetched at start,
	// every hour, and when a token names an unknown key, but on behalf of tokens at most once in 10 seconds; redirects
	// are not followed. A file is read again when its contents have changed. A set that cannot be read, or has no
	// usable key, never replaces the current one.
	JWKS string

	// Audience lists the accepted values of the aud claim, which must contain one of them, and Issuer the accepted values
	// of the iss claim. Empty: not checked. With a JWKS URL an Audience is required, because an identity
	// provider signs tokens for other applications too; the single entry "any" accepts all of them.
	Audience []string
	Issuer   []string

	// Leeway is the accepted difference between the clocks of the issuer and this node. It applies to nbf and iat
	// only: a connection ends exactly at exp. 0: 5 s; negative: none.
	Leeway time.Duration

	// CheckVersion is called for tokens that have a token_version claim, to refuse revoked ones. A *server.TokenError
	// refuses the token and gives the client the reason; any other error means that it cannot be checked now. It may
	// block, until ctx ends, which is that of Authenticate. nil: none is refused.
	CheckVersion func(ctx context.Context, userID string, version int64) error

	// Client fetches a JWKS URL. nil: a client of its own.
	Client *http.Client

	// Logger gets changes of the keys and failures to read them. nil: nothing is logged.
	Logger *slog.Logger
}

// Verifier authenticates connections by JSON Web Tokens. Its methods may be called from any number of goroutines;
// Authenticate blocks only while a key is fetched or CheckVersion runs.
//
// A token needs sub, an id of the protocol, and exp. Its jti, if it has one, must be an id too, so that its connections
// can be closed by it. Its type, if it has one, must be "access". Its uploads claim, a list of ids or prefixes that end
// in "*", is used by [server.AuthorizeClaims].
type Verifier struct {
	opt  Options
	keys keySource // nil without a JWKS
	// secrets are the keys of HS256, which SetSecrets replaces.
	secrets atomic.Pointer[[][]byte]
	early   logs.Sampled
}

// CheckSecret returns an error for a secret that begins or ends with white space: almost always the line break of the
// file that it was read from, and not part of the key that tokens are signed with.
func CheckSecret(secret []byte) error {
	first, _ := utf8.DecodeRune(secret)
	last, _ := utf8.DecodeLastRune(secret)
	if unicode.IsSpace(first) || unicode.IsSpace(last) {
		return errors.New("begins or ends with white space, such as the line break of a file; remove it")
	}
	return nil
}

// New returns a Verifier, to be closed with Close. It reads JWKS, which takes at most 10 seconds, and fails if it is
// not a usable key set. A JWKS URL that cannot be reached is not an error: it is fetched until that succeeds, and until
// then Ready returns an error.
func New(o Options) (*Verifier, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	switch {
	case o.Leeway == 0:
		o.Leeway = defaultLeeway
	case o.Leeway < 0:
		o.Leeway = 0
	}
	if slices.Equal(o.Audience, []string{anyAudience}) {
		o.Audience = nil
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	o.Audience, o.Issuer = slices.Clone(o.Audience), slices.Clone(o.Issuer)
	j := &Verifier{opt: o, early: logs.Sampled{Interval: time.Minute}}
	if err := j.SetSecrets(o.secrets()...); err != nil {
		return nil, err
	}
	if o.JWKS == "" {
		return j, nil
	}
	keys, err := newKeySource(o)
	if err != nil {
		return nil, fmt.Errorf("jwtauth: JWKS: %w", err)
	}
	j.keys = keys
	return j, nil
}

// secrets returns all keys of HS256.
func (o *Options) secrets() (all [][]byte) {
	if len(o.Secret) > 0 {
		all = append(all, o.Secret)
	}
	return append(all, o.OtherSecrets...)
}

// SetSecrets replaces Options.Secret and OtherSecrets, for a rotation without a restart. Open connections stay open
// until their tokens expire. After an error, because there is no key left or a secret is empty or fails CheckSecret,
// nothing has changed.
func (j *Verifier) SetSecrets(secrets ...[]byte) error {
	all := make([][]byte, len(secrets))
	for i, secret := range secrets {
		if len(secret) == 0 {
			return fmt.Errorf("jwtauth: secret %d is empty", i+1)
		}
		if err := CheckSecret(secret); err != nil {
			return fmt.Errorf("jwtauth: Options.Secret %w", err)
		}
		all[i] = slices.Clone(secret)
	}
	if len(all) == 0 && j.opt.JWKS == "" {
		return errors.New("jwtauth: a Verifier without JWKS needs a secret")
	}
	j.secrets.Store(&all)
	return nil
}

func (o *Options) validate() error {
	var all []error
	if len(o.secrets()) == 0 && o.JWKS == "" {
		all = append(all, errors.New("jwtauth: Options need a Secret or a JWKS"))
	}
	if isURL(o.JWKS) && len(o.Audience) == 0 {
		all = append(all, errors.New(`jwtauth: Options.Audience is empty, want the aud claim of this application's `+
			`tokens, or "any" to accept every token that the keys of the JWKS URL have signed`))
	}
	for name, list := range map[string][]string{"Audience": o.Audience, "Issuer": o.Issuer} {
		if slices.Contains(list, "") {
			all = append(all, fmt.Errorf("jwtauth: Options.%s has an empty entry", name))
		}
	}
	if len(o.Audience) > 1 && slices.Contains(o.Audience, anyAudience) {
		all = append(all, errors.New(`jwtauth: Options.Audience has "any" beside other entries, want one or the other`))
	}
	return errors.Join(all...)
}

// isURL reports whether a JWKS is a URL rather than a path. Schemes are in any case.
func isURL(jwks string) bool {
	scheme, _, found := strings.Cut(jwks, "://")
	return found && (strings.EqualFold(scheme, "http") || strings.EqualFold(scheme, "https"))
}

// Ready returns nil if tokens can be verified, or the reason why not: the JWKS URL has not been fetched yet.
func (j *Verifier) Ready() error {
	if j.keys == nil {
		return nil
	}
	return j.keys.ready()
}

// Close ends the goroutine that fetches a JWKS URL and waits for it. Further calls have no effect. Authenticate
// continues with the current keys.
func (j *Verifier) Close() {
	if j.keys != nil {
		j.keys.close()
	}
}

// Authenticate is a [server.Authenticate]. It returns a *server.TokenError for a token that is known to be bad. Any
// other error means that it cannot be checked now: ctx has ended, the signing key could not be fetched, the token
// becomes valid within a minute, or CheckVersion failed.
func (j *Verifier) Authenticate(ctx context.Context, token string) (server.Identity, error) {
	if len(token) > maxTokenBytes {
		return server.Identity{}, &server.TokenError{Message: "Token is too long"}
	}
	t, err := parseToken(token)
	if err != nil {
		return server.Identity{}, err
	}
	if err := j.verify(ctx, t); err != nil {
		return server.Identity{}, err
	}
	id, err := j.identity(t.claims, time.Now())
	if err != nil {
		return server.Identity{}, err
	}
	return id, j.checkRevoked(ctx, id.UserID, t.claims)
}

// signedToken is a token in the parts of its compact form (RFC 7515), decoded but not verified.
type signedToken struct {
	algorithm string
	keyID     string // "" if the token names no key
	claims    strictjson.Object
	signed    string // the bytes that the signature covers
	signature []byte
}

var (
	errMalformed    = &server.TokenError{Message: "Invalid token"}
	errAlgorithm    = &server.TokenError{Message: "Algorithm is not accepted"}
	errUnknownKey   = &server.TokenError{Message: "Unknown signing key"}
	errBadSignature = &server.TokenError{Message: "Invalid signature"}
)

// parseToken decodes a token. Its errors are *server.TokenError and repeat no part of the token.
func parseToken(token string) (signedToken, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return signedToken{}, errMalformed
	}
	header, err := decodePart(parts[0])
	if err != nil {
		return signedToken{}, errMalformed
	}
	t := signedToken{signed: token[:len(parts[0])+1+len(parts[1])]}
	if t.algorithm, err = header.Text("alg"); err != nil || signingMethods[t.algorithm] == nil {
		return signedToken{}, errAlgorithm
	}
	if _, critical := header.Get("crit"); critical { // the header demands an extension
		return signedToken{}, errAlgorithm
	}
	if t.keyID, err = header.Text("kid"); err != nil {
		return signedToken{}, errUnknownKey
	}
	if t.claims, err = decodePart(parts[1]); err != nil {
		return signedToken{}, errMalformed
	}
	if t.signature, err = base64.RawURLEncoding.DecodeString(parts[2]); err != nil {
		return signedToken{}, errMalformed
	}
	return t, nil
}

// decodePart decodes the header or the claims of a token.
func decodePart(part string) (strictjson.Object, error) {
	text, err := base64.RawURLEncoding.DecodeString(part)
	if err != nil {
		return nil, err
	}
	o, err := strictjson.Decode(text)
	if err != nil {
		return nil, err
	}
	return o, o.Duplicate()
}

// verify checks a token's signature. The algorithm is chosen by the client, so each algorithm is tied to one kind of
// key.
func (j *Verifier) verify(ctx context.Context, t signedToken) error {
	secrets := *j.secrets.Load()
	switch {
	case t.algorithm == "HS256" && len(secrets) > 0:
		for _, secret := range secrets {
			if signingMethods[t.algorithm].Verify(t.signed, t.signature, secret) == nil {
				return nil
			}
		}
		return errBadSignature
	case t.algorithm != "HS256" && j.keys != nil:
		return j.verifyWithKeys(ctx, t)
	}
	return errAlgorithm
}

// verifyWithKeys checks a token's signature with the current keys, and with newer ones if the current ones fail.
//
// A token is known to be bad if no key has signed it of a set that was read for it, or if it has expired by its own
// claims. While the keys cannot be read, or were read for another token just now, a token that names an unknown key or
// none may be of a new key: it cannot be checked. Nor can one that names a known key and says that it was issued after
// the set was read, because a new key may have replaced that one under the same name.
func (j *Verifier) verifyWithKeys(ctx context.Context, t signedToken) error {
	set := j.keys.current()
	result := set.verify(t)
	if result == nil {
		return nil
	}
	newer, asOf, err := j.keys.refresh(ctx)
	switch {
	case newer != nil && newer != set:
		if result = newer.verify(t); result == nil {
			return nil
		}
	case ctx.Err() != nil:
		return fmt.Errorf("jwtauth: verifying a token: %w", context.Cause(ctx))
	}
	if err != nil && (t.keyID == "" || errors.Is(result, errUnknownKey) || t.issuedAfter(asOf)) {
		if _, refused := expiry(t.claims, time.Now()); refused != nil {
			return refused
		}
		return fmt.Errorf("jwtauth: signing key of a token: %w", err)
	}
	return result
}

func (j *Verifier) checkRevoked(ctx context.Context, userID string, claims strictjson.Object) error {
	if _, given := claims.Get("token_version"); j.opt.CheckVersion == nil || !given {
		return nil
	}
	version, err := intClaim(claims, "token_version")
	if err != nil {
		return err
	}
	err = j.opt.CheckVersion(ctx, userID, version)
	var refused *server.TokenError
	if errors.As(err, &refused) && refused.Code == "" {
		return &server.TokenError{Message: refused.Message, Code: server.TokenRevoked}
	}
	return err
}
