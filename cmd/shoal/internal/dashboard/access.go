package dashboard

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/shoal-go/shoal/internal/demo"
	"github.com/shoal-go/shoal/server"
	"github.com/shoal-go/shoal/server/jwtauth"
)

// tokenTTL is how long a page may follow before it must show again that it may.
const tokenTTL = 5 * time.Minute

// access lists the rights of a request.
type access struct {
	// reads: ids of users, addresses and messages. acts: the HTTP API.
	reads, acts bool
}

// access returns the access of a request. An API key that is not accepted is an error. An Authorization header of
// another scheme is for a proxy in front.
func (d *Dashboard) access(r *http.Request) (access, error) {
	trusted := d.opt.Trusted(r)
	if scheme, _, _ := strings.Cut(r.Header.Get("Authorization"), " "); !strings.EqualFold(scheme, "Bearer") {
		return access{reads: trusted}, nil
	}
	if err := d.opt.Server.MayUseAPI(r); err != nil {
		return access{}, err
	}
	return access{reads: true, acts: true}, nil
}

// token answers with a token for the stream of numbers. Its claims are the uploads that the page may follow.
func (d *Dashboard) token(w http.ResponseWriter, r *http.Request) {
	granted, err := d.access(r)
	if err != nil {
		refuse(w, r, err)
		return
	}
	id := server.Identity{
		UserID: viewerID(r, granted), Expires: time.Now().Add(tokenTTL).Truncate(time.Second),
		Uploads: []string{topicNumbers},
	}
	if granted.reads {
		id.Uploads = append(id.Uploads, topicConnections)
	}
	token, err := jwtauth.SignHS256(d.live.secret, id)
	if err != nil {
		problem(w, http.StatusInternalServerError, "the token could not be signed")
		return
	}
	writeJSON(w, http.StatusOK, struct {
		Token     string    `json:"token"`
		ExpiresAt time.Time `json:"expires_at"`
		Reads     bool      `json:"reads"`
		Acts      bool      `json:"acts"`
	}{token, id.Expires.UTC(), granted.reads, granted.acts})
}

// viewerBytes is the length of the random id by which a page keeps its connection through a renewal of its token.
const viewerBytes = 16

// viewerID returns the user of a page: its own random id, or a fresh one. Pages with different access are different
// users, because subscriptions belong to users.
func viewerID(r *http.Request, granted access) string {
	id, err := hex.DecodeString(r.URL.Query().Get("viewer"))
	if err != nil || len(id) != viewerBytes {
		id = make([]byte, viewerBytes)
		_, _ = rand.Read(id) // never fails
	}
	if granted.reads {
		return "reader-" + hex.EncodeToString(id)
	}
	return "viewer-" + hex.EncodeToString(id)
}

// refuse answers a request that the observed server does not accept with its key, as the API of that server does: with
// 503 where the key may be right, so that the page keeps it.
func refuse(w http.ResponseWriter, r *http.Request, err error) {
	var answer http.Handler
	if !errors.As(err, &answer) {
		problem(w, http.StatusInternalServerError, err.Error())
		return
	}
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cross-Origin-Resource-Policy", "same-origin")
	answer.ServeHTTP(w, r)
}

// problem answers with an error, as the HTTP API does. The package that an error names at its beginning is left out.
func problem(w http.ResponseWriter, status int, detail string) {
	for _, name := range []string{"server: ", "manager: ", "dashboard: "} {
		detail = strings.TrimPrefix(detail, name)
	}
	writeBody(w, status, "application/problem+json", map[string]any{
		"type": "about:blank", "title": http.StatusText(status), "status": status, "detail": detail,
	})
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	writeBody(w, status, "application/json", body)
}

func writeBody(w http.ResponseWriter, status int, contentType string, body any) {
	w.Header().Set("Cross-Origin-Resource-Policy", "same-origin")
	demo.WriteJSON(w, status, contentType, body)
}
