package natsbroker

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/shoal-go/shoal/broker/internal/health"
)

// explain adds the remedy to an error of the connection, if there is one that an operator can apply.
func (o Options) explain(err error) error {
	names := health.Names(o.OptionName)
	switch {
	case isAuthError(err):
		return fmt.Errorf("%w: %s", err, o.authRemedy(err, names))
	case errors.Is(err, nats.ErrSecureConnRequired):
		return fmt.Errorf("%w: the server requires TLS: begin %s with tls://", err, names.Of(health.URLOption))
	case errors.Is(err, nats.ErrSecureConnWanted):
		return fmt.Errorf("%w: the server does not use TLS: begin %s with nats://", err, names.Of(health.URLOption))
	case err != nil && strings.Contains(strings.ToLower(err.Error()), "maximum payload violation"):
		return fmt.Errorf("%w: %s", err, payloadRemedy)
	}
	config := o.TLS
	if config == nil && strings.HasPrefix(o.URL, "tls://") {
		config = new(tls.Config)
	}
	return health.ExplainTLS(err, names, config)
}

// payloadRemedy is what an operator does about messages that are too large for a server. Servers state their limit when
// a node connects only.
const payloadRemedy = "raise max_payload of the NATS servers, then restart the nodes, which read it when they connect"

// explainSize adds the remedy to the error of a message that is too large for the server or for the stream, and returns
// other errors unchanged.
func (s *session) explainSize(err error) error {
	switch {
	case !errors.Is(err, nats.ErrMaxPayload):
		return err
	case errors.As(err, new(*storeError)):
		return fmt.Errorf("%w: raise max_msg_size of stream %s", err, s.opt.Stream)
	}
	return fmt.Errorf("%w, which is %d bytes: %s", err, s.conn.MaxPayload(), payloadRemedy)
}

// isAuthError reports whether the server refused the credentials.
func isAuthError(err error) bool {
	for _, refused := range []error{
		nats.ErrAuthorization, nats.ErrAuthExpired, nats.ErrAuthRevoked, nats.ErrAccountAuthExpired,
		nats.ErrNkeysNotSupported,
	} {
		if errors.Is(err, refused) {
			return true
		}
	}
	return err != nil && strings.Contains(strings.ToLower(err.Error()), "authorization violation")
}

// authRemedy returns the remedy of an error of authentication. Servers do not tell a connecting client why they
// refuse its credentials, but the file holds when these expire.
func (o Options) authRemedy(err error, names health.Names) string {
	credentials := names.Of("CredentialsFile")
	expires := credentialsExpiry(o.CredentialsFile)
	switch {
	case errors.Is(err, nats.ErrAccountAuthExpired):
		return "the account has expired: issue its JWT again and push it to the server"
	case o.CredentialsFile != "" && !expires.IsZero() && !time.Now().Before(expires):
		return fmt.Sprintf("the credentials of %s expired at %s: issue new ones for the file", credentials,
			expires.UTC().Format(time.RFC3339))
	case o.CredentialsFile != "" && errors.Is(err, nats.ErrAuthRevoked):
		return "the credentials of " + credentials + " were revoked: issue new ones for the file"
	case o.CredentialsFile != "":
		return "the credentials of " + credentials + " were revoked, or their account is unknown to the server: issue new " +
			"ones for the file from an account of the server's operator"
	case o.NKeyFile != "":
		return "add the public key of " + names.Of("NKeyFile") + " to the users of the server"
	case o.Token != "":
		return "correct " + names.Of("Token")
	}
	return "correct the user and the password in " + names.Of(health.URLOption)
}

// checkCredentials returns an error if a file does not hold the JWT and the seed of a user. It repeats neither.
func checkCredentials(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	token, err := nkeys.ParseDecoratedJWT(text)
	if err != nil || strings.Count(token, ".") != 2 {
		return errors.New("it has no JWT")
	}
	if _, err := nkeys.ParseDecoratedUserNKey(text); err != nil {
		return errors.New("it has no seed of a user")
	}
	return nil
}

// credentialsExpiry returns when the user of a credentials file expires, the zero time if never, or if the file cannot
// be read.
func credentialsExpiry(file string) (expires time.Time) {
	var claims struct {
		Expires int64 `json:"exp"`
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return expires
	}
	token, err := nkeys.ParseDecoratedJWT(text)
	if err != nil {
		return expires
	}
	_, payload, _ := strings.Cut(token, ".")
	payload, _, _ = strings.Cut(payload, ".")
	decoded, err := base64.RawURLEncoding.DecodeString(payload)
	if err != nil || json.Unmarshal(decoded, &claims) != nil || claims.Expires == 0 {
		return expires
	}
	return time.Unix(claims.Expires, 0)
}

// checkPermissions tries to publish and subscribe to each kind of subject that a node needs. The error names the
// missing permissions, also of the session's own subscriptions that were refused since mark. That a single upload is
// refused, which an operator may want, is no error.
func (s *session) checkPermissions(ctx context.Context, mark refusalMark) error {
	ctx, cancel := context.WithTimeout(ctx, s.opt.CallTimeout)
	defer cancel()
	name := s.permissionName
	live := []string{livePrefix + "upload." + name, livePrefix + othersPrefix + "probe." + name}
	for _, subject := range live {
		sub, err := s.conn.ChanSubscribe(subject, make(chan *nats.Msg, 1))
		if err == nil {
			err = errors.Join(s.conn.Publish(subject, nil), sub.Unsubscribe())
		}
		if err != nil {
			return err
		}
	}
	api := "$JS.API.DIRECT.GET." + s.opt.Stream
	stored := []*nats.Msg{
		refusedPublish("upload." + name), refusedPublish(othersPrefix + "probe." + name), refusedPublish(fenceSubject),
		{Subject: api, Data: firstRequest(streamEpochSubject)}, {Subject: api + "." + fenceSubject},
	}
	for _, m := range stored {
		m.Reply = s.calls.prefix + "permission" // the responses are dropped
		if err := s.conn.PublishMsg(m); err != nil {
			return err
		}
	}
	if err := s.calls.echo(ctx); err != nil {
		return errors.Join(err, permissionError(s.refusals.since(0)))
	}
	// A refusal that follows another one may be handled later still: a second round trip follows all of them.
	refused := s.awaitRefusals(ctx, mark)
	if len(refused) > 0 {
		if err := s.calls.echo(ctx); err == nil {
			refused = s.awaitRefusals(ctx, mark)
		}
	}
	needed := append(s.ownSubjects(), live...)
	for _, m := range stored {
		needed = append(needed, m.Subject)
	}
	return permissionError(slices.DeleteFunc(refused, func(err error) bool {
		subject := refusedSubject(err)
		return subject != "" && !slices.Contains(needed, subject)
	}))
}

// permissionError returns a permanentError that lists refusals and all needed permissions, nil if nothing was refused.
func permissionError(refused []error) error {
	if len(refused) == 0 {
		return nil
	}
	publish, subscribe := Permissions("<stream>")
	return permanentError{fmt.Errorf("natsbroker: missing permissions: %w\nneeded to publish: %s\nneeded to subscribe: %s",
		errors.Join(refused...), strings.Join(publish, ", "), strings.Join(subscribe, ", "))}
}
