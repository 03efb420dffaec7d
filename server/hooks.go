package server

import (
	"context"
	"errors"
	"time"
)

// Identity is who a connection belongs to.
type Identity struct {
	// UserID is the user. It must be an id as the protocol has them.
	UserID string
	// TokenID names the token that showed who the user is, so that all its connections can be closed. "": none.
	TokenID string
	// Expires is when the connection must end or show a fresh token. Zero: never.
	Expires time.Time
	// Uploads are the uploads that the user may follow, ids or prefixes that end in "*": what
	// AuthorizeClaims goes by.
	Uploads []string
}

// TokenError is an error of Authenticate whose text is meant for the client: it names what is wrong with
// the token and holds no secret. The client is told nothing of any other error.
type TokenError struct{ Message string }

func (e *TokenError) Error() string { return "server: token refused: " + e.Message }

// ErrForbidden is what Authorize returns for an upload that the user may not follow.
var ErrForbidden = errors.New("server: the user may not follow this upload")

// Authenticate decides whom a token belongs to. It may block, on behalf of this one connection; ctx ends
// with the connection or with the authentication timeout.
type Authenticate func(ctx context.Context, token string) (Identity, error)

// Authorize decides whether a user may follow an upload: nil if so, ErrForbidden if not; any other error
// refuses too, and is logged. It may block, on behalf of this one connection.
type Authorize func(ctx context.Context, id Identity, uploadID string) error
