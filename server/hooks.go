package server

import (
	"context"
	"errors"
	"time"
)

// Identity is the owner of a connection.
type Identity struct {
	// UserID is the user, an id of the protocol; see manager.CheckID.
	UserID string
	// TokenID names the token or session that authenticated the user, so that all its connections can be closed.
	// "": none.
	TokenID string
	// Expires is when the connection ends unless it has shown a fresh token. Zero: never.
	Expires time.Time
	// Uploads are the uploads that the connection may follow, ids or prefixes that end in "*", for AuthorizeClaims.
	Uploads []string
	// Data belongs to the application, for example a tenant or a role: Identify or Authenticate sets it, Authorize and
	// Client.Identity return it. The server does not read it.
	Data any
}

// The codes of a TokenError, which shoal.v1 clients get in auth_error.
const (
	TokenInvalid = "invalid"
	TokenExpired = "expired"
	TokenRevoked = "revoked"
)

// TokenError means that a token is known to be bad; the connection is closed with 4003. Every other error of
// Authenticate means that the token cannot be checked now; the connection is closed with 1013, and one that is
// already open stays open until its current token expires.
type TokenError struct {
	// Message is sent to the client. It names the problem and must not contain a secret.
	Message string
	// Code is one of the codes above. "": TokenInvalid.
	Code string
}

func (e *TokenError) Error() string { return "server: token refused: " + e.Message }

// code returns the code for the client.
func (e *TokenError) code() string {
	if e.Code == "" {
		return TokenInvalid
	}
	return e.Code
}

// ErrForbidden is returned by Authorize for an upload that the user may not follow.
var ErrForbidden = errors.New("server: the user may not follow this upload")

// Authenticate returns the identity that a token belongs to. A *TokenError refuses the token, any other error means
// that it cannot be checked now and is logged. It may block on behalf of this one connection; ctx ends with the
// connection, and after Options.HookTimeout.
type Authenticate func(ctx context.Context, token string) (Identity, error)

// Authorize decides whether a connection may follow an upload: nil if so, ErrForbidden if not. Any other error means
// that it cannot be decided now and is logged: the client has to try again. It may block on behalf of this one
// connection, and for a resume it is called from several goroutines at a time; ctx ends with the connection, and after
// Options.HookTimeout.
//
// It is called when a connection subscribes or resumes, and for all of a connection's own subscriptions when the
// connection renews its token.
type Authorize func(ctx context.Context, id Identity, uploadID string) error
