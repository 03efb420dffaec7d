package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const (
	// maxTokenBytes bounds the work that a token can cause before its signature is checked.
	maxTokenBytes = 8 << 10
	// clockSkew is how far the issuer's clock may be ahead of ours. It applies to nbf and iat alone: a
	// connection ends exactly at exp.
	clockSkew = 5 * time.Second
)

// The algorithms that are accepted, by the family of their keys.
var (
	secretAlgorithms    = []string{"HS256"}
	publicKeyAlgorithms = []string{"RS256", "ES256", "EdDSA"}
)

// JWTOptions configure a JWT. At least one of Secret and JWKS is required. With both, a token's algorithm
// decides which of them its signature is checked with.
type JWTOptions struct {
	// Secret is the key of HS256. It should be random and have 32 bytes at least.
	Secret []byte

	// JWKS is where the public keys of RS256, ES256 and EdDSA are: an http or https URL, or the path of a
	// file. A URL is read at the start, every hour, and when a token names an unknown key, though not
	// more than once in 10 seconds; redirects are not followed. A file is read again when it has changed.
	JWKS string

	// CheckVersion is asked about tokens that have a token_version claim, to refuse those that have been
	// revoked. A *TokenError tells the client why; any other error refuses too. nil: none is refused.
	CheckVersion func(ctx context.Context, userID string, version int64) error

	// Client reads a JWKS URL. nil: a client of its own.
	Client *http.Client

	// Logger gets failures to read the keys. nil: nothing is logged.
	Logger *slog.Logger
}

// JWT decides by JSON Web Tokens who a connection belongs to. Its methods may be called from any number of
// goroutines; Authenticate waits only where a key has to be fetched or CheckVersion does.
//
// A token needs sub, an id of the protocol, and exp. Its type, where it has one, must be "access". Its
// uploads, a list of ids or prefixes that end in "*", are what AuthorizeClaims goes by.
type JWT struct {
	secret       []byte
	keys         keySource
	checkVersion func(ctx context.Context, userID string, version int64) error
	parser       *jwt.Parser
}

// NewJWT returns a JWT. It reads JWKS, which takes 10 seconds at most, and fails if there is no usable set of
// keys. Close must be called in the end.
func NewJWT(o JWTOptions) (*JWT, error) {
	if len(o.Secret) == 0 && o.JWKS == "" {
		return nil, errors.New("server: JWTOptions need a Secret or a JWKS")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	j := &JWT{
		secret:       slices.Clone(o.Secret),
		checkVersion: o.CheckVersion,
		parser: jwt.NewParser(jwt.WithJSONNumber(), jwt.WithExpirationRequired(), jwt.WithIssuedAt(),
			jwt.WithLeeway(clockSkew)),
	}
	if o.JWKS == "" {
		return j, nil
	}
	keys, err := newKeySource(o)
	if err != nil {
		return nil, fmt.Errorf("server: JWKS: %w", err)
	}
	j.keys = keys
	return j, nil
}

// isURL reports whether a JWKS is a URL rather than a path.
func isURL(jwks string) bool {
	return strings.HasPrefix(jwks, "http://") || strings.HasPrefix(jwks, "https://")
}

// Authenticate is an [Authenticate]. It returns a *TokenError for a token that is refused, and other errors
// only if ctx ends or CheckVersion returns one.
func (j *JWT) Authenticate(ctx context.Context, token string) (Identity, error) {
	if len(token) > maxTokenBytes {
		return Identity{}, &TokenError{"Token is too long"}
	}
	claims := jwt.MapClaims{}
	if _, err := j.parser.ParseWithClaims(token, claims, j.keyOf(ctx)); err != nil {
		if ctx.Err() != nil {
			return Identity{}, fmt.Errorf("server: checking a token: %w", context.Cause(ctx))
		}
		return Identity{}, tokenErrorOf(err)
	}
	id, err := identityOf(claims)
	if err != nil {
		return Identity{}, err
	}
	return id, j.checkRevoked(ctx, id.UserID, claims)
}

// keyOf returns what finds the key of a token. The algorithm is the client's word, so each family of
// algorithms is tied to its own kind of key.
func (j *JWT) keyOf(ctx context.Context) jwt.Keyfunc {
	return func(t *jwt.Token) (any, error) {
		if _, critical := t.Header["crit"]; critical {
			return nil, errCriticalHeader
		}
		switch algorithm := t.Method.Alg(); {
		case len(j.secret) > 0 && slices.Contains(secretAlgorithms, algorithm):
			return j.secret, nil
		case j.keys != nil && slices.Contains(publicKeyAlgorithms, algorithm):
			return j.keys.current().KeyfuncCtx(ctx)(t)
		}
		return nil, errAlgorithm
	}
}

func (j *JWT) checkRevoked(ctx context.Context, userID string, claims jwt.MapClaims) error {
	if j.checkVersion == nil || claims["token_version"] == nil {
		return nil
	}
	version, err := intClaim(claims, "token_version")
	if err != nil {
		return err
	}
	return j.checkVersion(ctx, userID, version)
}

// Close ends what keeps the keys fresh. Further calls have no effect. Authenticate goes on with the keys
// there are.
func (j *JWT) Close() {
	if j.keys != nil {
		j.keys.close()
	}
}
