package redisbroker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/rueidis"

	"github.com/shoal-go/shoal/broker"
)

// fatalError is one that no waiting would mend.
type fatalError struct{ error }

func (e fatalError) Unwrap() error { return e.error }

func fatalf(format string, args ...any) error { return fatalError{fmt.Errorf(format, args...)} }

func isFatal(err error) bool {
	var fatal fatalError
	return errors.As(err, &fatal)
}

// unavailable returns an error that wraps ErrUnavailable.
func unavailable(why string) error {
	return fmt.Errorf("redisbroker: %s: %w", why, broker.ErrUnavailable)
}

// kind returns the first word of an error that Redis answered with, and "" for any other error.
func kind(err error) string {
	answer, ok := rueidis.IsRedisErr(err)
	if !ok {
		return ""
	}
	word, _, _ := strings.Cut(answer.Error(), " ")
	return word
}

// said returns the text of an error that Redis answered with. It is cut where Redis repeats a command's
// arguments, among which may be a password or a payload.
func said(err error) string {
	text, _, _ := strings.Cut(err.Error(), ", with args")
	text, _, _ = strings.Cut(text, " script: ")
	return text
}

// explain turns the result of a command into the caller's error.
func explain(ctx context.Context, addr string, err error) error {
	switch word := kind(err); {
	case err == nil:
		return nil
	case word == "OOM":
		return unavailable(addr + " has no memory left for what is written (its maxmemory)")
	case isPassing(word):
		return unavailable(addr + " says: " + said(err))
	case word != "":
		return fmt.Errorf("redisbroker: %s says: %s", addr, said(err))
	case ctx.Err() != nil:
		return ended(ctx, addr)
	default:
		return unavailable(addr + ": " + err.Error())
	}
}

// ended returns the error of a call whose context has ended: waiting too long means that Redis is out of reach.
func ended(ctx context.Context, what string) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("redisbroker: %s: no answer in time: %w: %w", what, broker.ErrUnavailable, ctx.Err())
	}
	return fmt.Errorf("redisbroker: %s: %w", what, ctx.Err())
}

// isPassing reports whether a server that answers so will be of use again, or another in its place.
func isPassing(word string) bool {
	return slices.Contains([]string{
		"READONLY", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "NOREPLICAS", "TRYAGAIN", "BUSY", "MISCONF",
		"NOSCRIPT", "MOVED", "ASK", "UNBLOCKED",
	}, word)
}

// hasMoved reports whether a node of a cluster answers that another one has, or is about to have, the slot.
// The command has not been carried out.
func hasMoved(word string) bool { return word == "MOVED" || word == "ASK" || word == "TRYAGAIN" }

// whileConnecting turns an error of connecting to a server into one that says whether waiting may mend it.
func whileConnecting(addr string, err error) error {
	word := kind(err)
	switch {
	case err == nil || isFatal(err):
		return err
	case word == "WRONGPASS" || word == "NOAUTH":
		return fatalf("redisbroker: %s refuses the user or the password (%s): set the right ones in the URL", addr, word)
	case isForbidden(err):
		return fatalf("redisbroker: %s lets us connect but not do what is needed: %s: allow that by ACL SETUSER",
			addr, said(err))
	case word == "" || isPassing(word):
		return unavailable(addr + ": " + said(err))
	default:
		return fatalf("redisbroker: %s says: %s", addr, said(err))
	}
}

// isForbidden reports whether a server says that the user lacks a permission, in a script or outside.
func isForbidden(err error) bool {
	return kind(err) == "NOPERM" || kind(err) != "" && (strings.Contains(err.Error(), "ACL failure") ||
		strings.Contains(err.Error(), "The user executing the script"))
}

// inScript adds to an error the command that a script was not allowed to run. Redis 7.0 only tells the line.
func inScript(err error, text string) error {
	_, place, found := strings.Cut(err.Error(), "@user_script:")
	if !found || !isForbidden(err) {
		return err
	}
	digits := strings.TrimRight(place, ".")
	number, _ := strconv.Atoi(digits)
	lines := strings.Split(text, "\n")
	if number < 1 || number > len(lines) {
		return err
	}
	_, call, _ := strings.Cut(lines[number-1], "redis.call(")
	command, _, _ := strings.Cut(call, ",")
	return fatalf("redisbroker: not all is allowed that is needed: %s (it is about %s): allow that by ACL SETUSER",
		said(err), strings.ToLower(strings.Trim(command, "'")))
}
