package jwtauth

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/shoal-go/shoal/internal/strictjson"
	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"
)

var (
	errExpired     = &server.TokenError{Message: "Token has expired", Code: server.TokenExpired}
	errNotValidYet = &server.TokenError{Message: "Token is not valid yet"}
)

// soon is how early a token may be used to be refused only for the moment: the client should come back.
const soon = time.Minute

// identity returns the identity that the claims of a verified token describe.
func (j *Verifier) identity(claims strictjson.Object, now time.Time) (server.Identity, error) {
	expires, err := expiry(claims, now)
	if err != nil {
		return server.Identity{}, err
	}
	if err := j.checkValidYet(claims, now); err != nil {
		return server.Identity{}, err
	}
	if kind, given := claims.Get("type"); given && string(kind) != `"access"` {
		if text, err := strictjson.String(kind); err != nil || text != "access" {
			return server.Identity{}, &server.TokenError{Message: "Token is not an access token"}
		}
	}
	if err := j.checkParties(claims); err != nil {
		return server.Identity{}, err
	}
	subject, err := claims.Text("sub")
	if err != nil || manager.CheckID("sub", subject) != nil {
		return server.Identity{}, &server.TokenError{Message: "Token has no valid subject"}
	}
	id := server.Identity{UserID: subject, Expires: expires}
	id.TokenID, _ = claims.Text("jti") // one that is not a string names nothing
	if err := checkTokenID(id.TokenID); err != nil {
		return server.Identity{}, &server.TokenError{Message: "Token has an invalid jti"}
	}
	if uploads, given := claims.Get("uploads"); given {
		id.Uploads, _ = strictjson.Strings(uploads) // one that is not a list of strings allows nothing
	}
	return id, nil
}

// checkTokenID returns an error for a jti by which the HTTP API could not close connections.
func checkTokenID(id string) error {
	if id == "" {
		return nil
	}
	return manager.CheckID("jti", id)
}

// expiry returns when a token expires, or a *server.TokenError if it has.
func expiry(claims strictjson.Object, now time.Time) (time.Time, error) {
	value, given := claims.Get("exp")
	if !given || string(value) == "null" {
		return time.Time{}, &server.TokenError{Message: "Token has no expiry"}
	}
	expires, ok := numericDate(value)
	if !ok {
		return time.Time{}, errMalformed
	}
	if !now.Before(expires) {
		return time.Time{}, errExpired
	}
	return expires, nil
}

// checkValidYet checks nbf and iat with the leeway. A token that is early by less than a minute is not known to be
// bad: the clocks differ, which is logged.
func (j *Verifier) checkValidYet(claims strictjson.Object, now time.Time) error {
	for _, name := range []string{"nbf", "iat"} {
		value, given := claims.Get(name)
		if !given || string(value) == "null" {
			continue
		}
		from, ok := numericDate(value)
		if !ok {
			return errMalformed
		}
		early := from.Sub(now)
		if early <= j.opt.Leeway {
			continue
		}
		if early-j.opt.Leeway >= soon {
			return errNotValidYet
		}
		j.early.Log(j.opt.Logger, slog.LevelWarn, "token refused, the clocks of issuer and node differ",
			"claim", name, "ahead", early.Round(time.Millisecond), "leeway", j.opt.Leeway)
		return fmt.Errorf("jwtauth: token becomes valid in %v", early-j.opt.Leeway)
	}
	return nil
}

// issuedAfter reports whether a token that is not verified says that it was issued after a time. One that lies about it
// only gets another refusal.
func (t *signedToken) issuedAfter(at time.Time) bool {
	value, given := t.claims.Get("iat")
	if !given {
		return false
	}
	issued, ok := numericDate(value)
	return ok && issued.After(at)
}

// checkParties checks the issuer and the audience.
func (j *Verifier) checkParties(claims strictjson.Object) error {
	if len(j.opt.Issuer) > 0 {
		issuer, err := claims.Text("iss")
		if err != nil || !slices.Contains(j.opt.Issuer, issuer) {
			return &server.TokenError{Message: "Token is of another issuer"}
		}
	}
	if len(j.opt.Audience) == 0 {
		return nil
	}
	var audience []string
	if value, given := claims.Get("aud"); given {
		if one, err := strictjson.String(value); err == nil {
			audience = []string{one}
		} else {
			audience, _ = strictjson.Strings(value)
		}
	}
	if !slices.ContainsFunc(audience, func(a string) bool { return slices.Contains(j.opt.Audience, a) }) {
		return &server.TokenError{Message: "Token is for another audience"}
	}
	return nil
}

// numericDate decodes a NumericDate of RFC 7519: seconds of Unix time, possibly with a fraction. Times beyond the year
// 9999 become the end of that year.
func numericDate(value []byte) (time.Time, bool) {
	const most = 253402300799
	if strictjson.Kind(value) != "number" {
		return time.Time{}, false
	}
	seconds, err := strconv.ParseFloat(string(value), 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return time.Time{}, false
	}
	whole, fraction := math.Modf(min(max(seconds, 0), most))
	return time.Unix(int64(whole), int64(fraction*1e9)), true
}

func intClaim(claims strictjson.Object, name string) (int64, error) {
	value, _ := claims.Get(name)
	n, err := strconv.ParseInt(string(value), 10, 64)
	if err != nil {
		return 0, &server.TokenError{Message: "Token has an invalid " + name + " claim"}
	}
	return n, nil
}

// SignHS256 returns a token that a Verifier with the same secret authenticates as id: the counterpart of
// [Verifier.Authenticate], for development, tests and tools. id needs a UserID and Expires. Further claims, for example
// aud and iss, are added to those of id and must have a JSON form. The error says which of these is missing or invalid,
// or that the token is longer than a Verifier accepts.
func SignHS256(secret []byte, id server.Identity, further ...map[string]any) (string, error) {
	if len(secret) == 0 {
		return "", errors.New("jwtauth: signing a token needs a secret")
	}
	if err := manager.CheckID("user_id", id.UserID); err != nil {
		return "", err
	}
	if err := checkTokenID(id.TokenID); err != nil {
		return "", err
	}
	if id.Expires.IsZero() {
		return "", errors.New("jwtauth: signing a token needs an expiry")
	}
	claims := jwt.MapClaims{}
	for _, more := range further {
		for name, value := range more {
			claims[name] = value
		}
	}
	claims["sub"], claims["type"] = id.UserID, "access"
	claims["iat"], claims["exp"] = jwt.NewNumericDate(time.Now()), jwt.NewNumericDate(id.Expires)
	if id.TokenID != "" {
		claims["jti"] = id.TokenID
	}
	if id.Uploads != nil {
		claims["uploads"] = id.Uploads
	}
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString(secret)
	if err == nil && len(token) > maxTokenBytes {
		return "", fmt.Errorf("jwtauth: the token has %d bytes, at most %d are accepted; name fewer uploads, or prefixes",
			len(token), maxTokenBytes)
	}
	return token, err
}
