package server

import (
	"encoding/json"
	"errors"
	"time"

	"github.com/MicahParks/keyfunc/v3"
	"github.com/golang-jwt/jwt/v5"

	"github.com/shoal-go/shoal/manager"
)

// Why no key was looked for.
var (
	errAlgorithm      = errors.New("algorithm is not accepted")
	errCriticalHeader = errors.New("header demands an extension")
)

// tokenErrorOf says what is wrong with a token in words for the client. The library's own words are not
// for strangers: some of them repeat parts of the token.
func tokenErrorOf(err error) *TokenError {
	switch {
	case errors.Is(err, keyfunc.ErrKeyfunc):
		return &TokenError{"Unknown signing key"}
	case errors.Is(err, jwt.ErrTokenSignatureInvalid):
		return &TokenError{"Invalid signature"}
	case errors.Is(err, jwt.ErrTokenExpired):
		return errExpired
	case errors.Is(err, jwt.ErrTokenNotValidYet), errors.Is(err, jwt.ErrTokenUsedBeforeIssued):
		return &TokenError{"Token is not valid yet"}
	case errors.Is(err, jwt.ErrTokenRequiredClaimMissing):
		return &TokenError{"Token has no expiry"}
	case errors.Is(err, jwt.ErrTokenUnverifiable):
		return &TokenError{"Algorithm is not accepted"}
	}
	return &TokenError{"Invalid token"}
}

var errExpired = &TokenError{"Token has expired"}

// identityOf returns who the claims of a token with a good signature speak of.
func identityOf(claims jwt.MapClaims) (Identity, error) {
	// The parser has made sure that there is an expiry, but it allows for clockSkew.
	expires, err := claims.GetExpirationTime()
	if err != nil || !time.Now().Before(expires.Time) {
		return Identity{}, errExpired
	}
	if kind, has := claims["type"]; has && kind != "access" {
		return Identity{}, &TokenError{"Token is not an access token"}
	}
	subject, err := claims.GetSubject()
	if err != nil || manager.CheckID("sub", subject) != nil {
		return Identity{}, &TokenError{"Token has no valid subject"}
	}
	tokenID, _ := claims["jti"].(string) // one that is no string names nothing
	uploads, err := listClaim(claims, "uploads")
	return Identity{UserID: subject, TokenID: tokenID, Expires: expires.Time, Uploads: uploads}, err
}

// listClaim returns a claim that is a list of strings; nil if there is none.
func listClaim(claims jwt.MapClaims, name string) ([]string, error) {
	claim, has := claims[name]
	if !has {
		return nil, nil
	}
	values, ok := claim.([]any)
	if !ok {
		return nil, &TokenError{"Token has an invalid " + name + " claim"}
	}
	list := make([]string, len(values))
	for i, value := range values {
		if list[i], ok = value.(string); !ok {
			return nil, &TokenError{"Token has an invalid " + name + " claim"}
		}
	}
	return list, nil
}

func intClaim(claims jwt.MapClaims, name string) (int64, error) {
	number, ok := claims[name].(json.Number)
	if !ok {
		return 0, &TokenError{"Token has an invalid " + name + " claim"}
	}
	value, err := number.Int64()
	if err != nil {
		return 0, &TokenError{"Token has an invalid " + name + " claim"}
	}
	return value, nil
}

// SignHS256 returns a token that a JWT with the same secret accepts as id: the counterpart of
// [JWT.Authenticate], for development, tests and tools. id needs a UserID and Expires.
func SignHS256(secret []byte, id Identity) (string, error) {
	if len(secret) == 0 {
		return "", errors.New("server: a token needs a secret to be signed with")
	}
	if err := manager.CheckID("user_id", id.UserID); err != nil {
		return "", err
	}
	if id.Expires.IsZero() {
		return "", errors.New("server: a token needs an expiry")
	}
	claims := jwt.MapClaims{
		"sub":  id.UserID,
		"type": "access",
		"iat":  jwt.NewNumericDate(time.Now()),
		"exp":  jwt.NewNumericDate(id.Expires),
	}
	if id.TokenID != "" {
		claims["jti"] = id.TokenID
	}
	if id.Uploads != nil {
		claims["uploads"] = id.Uploads
	}
	return jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString(secret)
}
