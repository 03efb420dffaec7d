package server

import (
	"context"
	"strings"
)

// AuthorizeOpen is an [Authorize] that lets every user follow every upload.
func AuthorizeOpen(context.Context, Identity, string) error { return nil }

// AuthorizeClaims is an [Authorize] that lets a user follow the uploads of Identity.Uploads: those named
// there, and those that begin with what stands before the "*" at an entry's end. "*" alone is every upload.
func AuthorizeClaims(_ context.Context, id Identity, uploadID string) error {
	for _, entry := range id.Uploads {
		prefix, isPrefix := strings.CutSuffix(entry, "*")
		if entry == uploadID || isPrefix && strings.HasPrefix(uploadID, prefix) {
			return nil
		}
	}
	return ErrForbidden
}
