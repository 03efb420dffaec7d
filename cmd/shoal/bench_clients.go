package main

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/shoal-go/shoal/internal/load"
	"github.com/shoal-go/shoal/server"
	"github.com/shoal-go/shoal/server/jwtauth"
)

// benchTokenSpare is how long a client's token outlasts the time that is planned.
const benchTokenSpare = 24 * time.Hour

// fleetOptions are the clients of a run.
func (b *bench) fleetOptions(onReady func()) (load.Options, error) {
	u, err := url.Parse(b.flags.URL)
	if err != nil {
		return load.Options{}, errors.New("--url cannot be parsed") // the error would repeat a password in it
	}
	o := load.Options{
		Connections: b.flags.Connections,
		Pollers:     b.flags.Pollers,
		DialRate:    b.flags.Ramp,
		Stalled:     b.flags.stalled(),
		Dialect:     b.dialect(strings.TrimSuffix(u.EscapedPath(), "/") + "/ws/uploads"),
		Sent:        benchSentAt,
		OnReady:     onReady,
	}
	port := "80"
	if u.Scheme == "https" {
		port = "443"
		o.TLS = &tls.Config{MinVersion: tls.VersionTLS12, ServerName: u.Hostname(), NextProtos: []string{"http/1.1"}}
	}
	if u.Port() != "" {
		port = u.Port()
	}
	o.Addr = net.JoinHostPort(u.Hostname(), port)
	return o, nil
}

// dialect describes clients that authenticate and follow one upload each.
func (b *bench) dialect(path string) load.Dialect {
	return load.Dialect{
		Path:        path,
		Subprotocol: "shoal.v1", // which acknowledges a subscription
		Hello:       b.hello,
		Ready:       func(payload []byte) bool { return hasAction(payload, "subscribed") },
		Refused:     refusedBy,
		Data:        load.Beginning(string(benchAction)),
		Pong: func(payload []byte) []byte {
			if !hasAction(payload, "ping") {
				return nil
			}
			return []byte(`{"action":"pong"}`)
		},
	}
}

// hello returns the first messages of client i. The ids need no escaping. A token that cannot be signed is
// refused by the server.
func (b *bench) hello(i int) [][]byte {
	upload := b.uploadID(i % b.flags.Uploads)
	token, _ := jwtauth.SignHS256([]byte(b.flags.JWTSecret[0]), server.Identity{
		UserID:  fmt.Sprintf("bench-%s-%d", b.id, i),
		Expires: time.Now().Add(b.flags.Duration + benchTokenSpare),
		Uploads: []string{upload},
	}, partyClaims(b.flags.JWTAudience, b.flags.JWTIssuer))
	return [][]byte{
		fmt.Appendf(nil, `{"type":"auth","token":"%s"}`, token),
		fmt.Appendf(nil, `{"action":"subscribe_upload","upload_id":"%s"}`, upload),
	}
}

// uploadID is the id of an upload of this run. No other run has it, so no other run's messages come.
func (b *bench) uploadID(upload int) string { return fmt.Sprintf("bench-%s-%d", b.id, upload) }

func hasAction(payload []byte, action string) bool {
	rest, ok := bytes.CutPrefix(payload, []byte(`{"action":"`))
	return ok && len(rest) > len(action) && string(rest[:len(action)]) == action && rest[len(action)] == '"'
}

// remedies are the flags to check, by the server's reason for refusing a token.
var remedies = map[string]string{
	"Invalid signature":             "--jwt-secret",
	"Token is for another audience": "--jwt-audience",
	"Token is of another issuer":    "--jwt-issuer",
}

// refusedBy returns the server's reason for refusing a client.
func refusedBy(payload []byte) string {
	if !hasAction(payload, "auth_error") && !hasAction(payload, "error") {
		return ""
	}
	var refusal struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(payload, &refusal) != nil || refusal.Message == "" {
		refusal.Message = "no reason given"
	}
	if flag := remedies[refusal.Message]; flag != "" {
		return refusal.Message + "; check " + flag
	}
	return refusal.Message
}
