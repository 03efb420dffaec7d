package client

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/shoal-go/shoal/internal/printable"
)

// The reasons for which a loop over an upload ends, beside the end of its context.
var (
	// ErrClosed means that Close was called.
	ErrClosed = errors.New("client: closed")
	// ErrUnauthorized means that the server refuses the token, a fresh one too, or the API key.
	ErrUnauthorized = errors.New("client: not authorized")
	// ErrForbidden means that the user may not follow the upload, or may not connect from here.
	ErrForbidden = errors.New("client: forbidden")
	// ErrLimit means that a limit of the server was exceeded.
	ErrLimit = errors.New("client: a limit of the server was exceeded")
	// ErrStopped means that the server closed the connection for good.
	ErrStopped = errors.New("client: stopped by the server")
	// ErrNotShoal means that the server does not speak the protocol shoal.v1 at this address, or takes no token there.
	ErrNotShoal = errors.New("client: not a shoal server")
	// ErrUnreachable means that the server could not be reached for long enough; see UnreachableError.
	ErrUnreachable = errors.New("client: server out of reach")
)

// RefusedError is a refusal by the server. Unwrap returns ErrUnauthorized, ErrForbidden, ErrLimit, ErrStopped or
// ErrNotShoal.
type RefusedError struct {
	// UploadID is the refused upload, or "" if the whole connection was refused.
	UploadID string
	// Status is the HTTP status of a refused upgrade, CloseCode the close code of a closed connection; else 0.
	Status, CloseCode int
	// Code is the code of an error or auth_error message, such as "forbidden" or "expired"; may be "".
	Code string
	// Message is the server's text, printable and short; may be "".
	Message string

	kind error
}

func (e *RefusedError) Error() string {
	var b strings.Builder
	b.WriteString(e.kind.Error())
	if e.UploadID != "" {
		fmt.Fprintf(&b, ": upload %q", e.UploadID)
	}
	if e.Message != "" {
		b.WriteString(": " + e.Message)
	}
	switch {
	case e.Status != 0:
		fmt.Fprintf(&b, " (HTTP status %d)", e.Status)
	case e.CloseCode != 0:
		fmt.Fprintf(&b, " (close code %d)", e.CloseCode)
	case e.Code != "":
		fmt.Fprintf(&b, " (%s)", e.Code)
	}
	return b.String()
}

// Unwrap returns the variable that the refusal matches.
func (e *RefusedError) Unwrap() error { return e.kind }

// ProtocolError is a message of the server that breaks the protocol. The client reconnects after one; it is final when
// it comes several times in a row.
type ProtocolError struct {
	// Problem names the violation, without the message's text.
	Problem string
}

func (e *ProtocolError) Error() string { return "client: the server broke the protocol: " + e.Problem }

func violation(format string, arguments ...any) error {
	return &ProtocolError{Problem: fmt.Sprintf(format, arguments...)}
}

// GapError reports that messages of an upload were lost: the server's history does not reach back to the last received
// position, or begins with a new epoch. It is not final: a loop that continues gets the newest message next.
type GapError struct {
	UploadID string
	// Last is the position of the last received message, Now the position of the upload when the gap was found.
	Last, Now Position
}

func (e *GapError) Error() string {
	return fmt.Sprintf("client: messages of upload %q after offset %d were lost", e.UploadID, e.Last.Offset)
}

// UnreachableError reports that the server could not be reached for as long as Options.GiveUpAfter or
// Options.PublishTimeout allow. It matches ErrUnreachable and Err.
type UnreachableError struct {
	// After is the time that is over.
	After time.Duration
	// Published is the number of messages of a call of Publish that are known to be published.
	Published int
	// Err is the failure of the last attempt.
	Err error
}

func (e *UnreachableError) Error() string {
	return fmt.Sprintf("%v for %v: %v", ErrUnreachable, e.After, e.Err)
}

// Unwrap returns ErrUnreachable and Err.
func (e *UnreachableError) Unwrap() []error { return []error{ErrUnreachable, e.Err} }

// permanentError marks an error of Options.Token as final.
type permanentError struct{ error }

func (e permanentError) Unwrap() error { return e.error }

// Permanent marks an error of Options.Token as final, for example because the user has logged out: loops end with it
// instead of trying again. It returns nil for nil.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return permanentError{err}
}

// maxQuoted is the length in bytes of the part of a server's text that an error quotes.
const maxQuoted = 300

// quoted returns the beginning of a server's text for an error.
func quoted(text string) string { return strings.TrimSpace(printable.Beginning(text, maxQuoted)) }
