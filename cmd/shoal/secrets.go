package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/shoal-go/shoal/internal/reload"
	"github.com/shoal-go/shoal/server"
	"github.com/shoal-go/shoal/server/jwtauth"
)

type tokenCommand struct {
	UserID string `arg:"" name:"user-id" help:"User whom the token is for."`

	TTL       time.Duration `default:"1h" min:"1s" max:"8760h" help:"Time that the token is valid."`
	JWTSecret []string      `sep:"none" secret:"" placeholder:"SECRET" help:"Secret to sign it with: the server's; of several, the first."`

	JWTSecretFile string `name:"jwt-secret-file" placeholder:"FILE" help:"File with the secret instead; of several, one a line, the first."`

	JWTAudience []string `name:"jwt-audience" sep:"none" placeholder:"NAME" help:"Its aud claim: the server's; of several, the first; any is none."`
	JWTIssuer   []string `name:"jwt-issuer" sep:"none" placeholder:"NAME" help:"Its iss claim: the server's; of several, the first."`

	Upload []string `aliases:"uploads" sep:"none" placeholder:"ID|PREFIX*" help:"Upload that the user may follow; may be repeated."`
	Dev    bool     `help:"Sign with the secret of a development server."`
}

func (c *tokenCommand) check(s *settings) {
	s.checkID("user-id", c.UserID)
	for _, entry := range c.Upload {
		if prefix := strings.TrimSuffix(entry, "*"); prefix != "" { // * alone stands for all uploads
			s.checkID(s.key("upload"), prefix)
		}
	}
	complaints := len(s.complaints)
	c.JWTSecret = s.credentialsOf("jwt-secret", c.JWTSecret, c.JWTSecretFile)
	if len(s.complaints) > complaints {
		return
	}
	secret := firstSecret(c.JWTSecret)
	if c.Dev && secret == "" {
		secret = devSecret
	}
	c.JWTSecret = []string{secret}
	switch secret := len(secret); {
	case secret == 0:
		s.refuse("jwt-secret", "is missing, want the server's secret, or --dev for that of a development server")
	case !c.Dev && secret < minSecretBytes:
		s.refuse("jwt-secret", tooShort(secret))
	}
}

func (c *tokenCommand) Run(std streams) error {
	token, err := jwtauth.SignHS256([]byte(c.JWTSecret[0]), server.Identity{
		UserID: c.UserID, Expires: time.Now().Add(c.TTL), Uploads: c.Upload,
	}, partyClaims(c.JWTAudience, c.JWTIssuer))
	if err != nil {
		return errors.New(strings.TrimPrefix(err.Error(), "jwtauth: "))
	}
	return printLine(std.out, token)
}

// anyAudience is the value of --jwt-audience that accepts all tokens.
const anyAudience = "any"

// partyClaims returns the claims aud and iss of a token for a server with these values of --jwt-audience and
// --jwt-issuer.
func partyClaims(audience, issuer []string) map[string]any {
	claims := make(map[string]any)
	if len(audience) > 0 && audience[0] != anyAudience {
		claims["aud"] = audience[0]
	}
	if len(issuer) > 0 {
		claims["iss"] = issuer[0]
	}
	return claims
}

// maxSecretFile bounds a file of secrets.
const maxSecretFile = 64 << 10

// readSecrets reads the secrets that stand in files. A line is one secret, and empty lines do not count.
func (f *serveFlags) readSecrets(s *settings) {
	f.JWTSecret = s.secretsOf("jwt-secret", f.JWTSecret, f.JWTSecretFile)
	f.APIKey = s.secretsOf("api-key", f.APIKey, f.APIKeyFile)
	f.ClusterSecret = s.secretOf("cluster-secret", f.ClusterSecret, "", f.ClusterSecretFile)
	f.WebhookSecret = s.secretOf("webhook-secret", f.WebhookSecret, "", f.WebhookSecretFile)
	f.TraceHeader = s.secretsOf("trace-header", f.TraceHeader, f.TraceHeaderFile)
	f.Broker = s.secretOf("broker", f.Broker, string(noEngine), f.BrokerFile)
}

// secretsOf returns the values of a flag, or those in a file.
func (s *settings) secretsOf(flag string, given []string, path string) []string {
	if path == "" {
		return given
	}
	if len(given) > 0 {
		s.refuse(flag, "is given beside "+s.key(flag+"-file")+", want one of them")
		return given
	}
	lines, err := readSecretLines(path)
	if err != nil {
		s.complain(flag+"-file", path, "a readable file of secrets, one a line, but "+err.Error())
		return nil
	}
	return lines
}

// credentialsOf is secretsOf for a command that may share the file of settings with a server: of a value and the name
// of a file, one on the command line wins over one in the environment, and that over one in the file of settings.
func (s *settings) credentialsOf(flag string, given []string, path string) []string {
	switch value, file := s.precedence(flag), s.precedence(flag+"-file"); {
	case len(given) > 0 && value > file:
		path = ""
	case path != "" && file > value:
		given = nil
	}
	return s.secretsOf(flag, given, path)
}

// secretOf is secretsOf for a flag with one value, which has a default.
func (s *settings) secretOf(flag, given, standard, path string) string {
	var values []string
	if given != standard {
		values = []string{given}
	}
	switch values = s.secretsOf(flag, values, path); len(values) {
	case 0:
		return standard
	case 1:
		return values[0]
	}
	s.complain(flag+"-file", path, fmt.Sprintf("a file with one line, but it has %d", len(values)))
	return standard
}

// readSecretLines returns the lines of a file that are not empty, without the white space around them and a byte order
// mark.
func readSecretLines(path string) (lines []string, err error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("it cannot be read: %w", errors.Unwrap(err))
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxSecretFile+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("it cannot be read: %w", err)
	case len(text) > maxSecretFile:
		return nil, fmt.Errorf("it is larger than %d bytes", maxSecretFile)
	case isUTF16(text):
		return nil, errUTF16
	}
	for line := range strings.Lines(string(reload.TrimBOM(text))) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	if len(lines) == 0 {
		return nil, errors.New("it is empty")
	}
	return lines, nil
}

// errUTF16 is the error of a file that PowerShell may have written: its text would be taken for other characters.
var errUTF16 = errors.New("it is in UTF-16, want UTF-8")

// isUTF16 reports whether a text begins with a byte order mark of UTF-16.
func isUTF16(text []byte) bool {
	return bytes.HasPrefix(text, []byte("\xff\xfe")) || bytes.HasPrefix(text, []byte("\xfe\xff"))
}

// firstSecret returns the secret to sign with of a setting that may list several for a rotation: one by one, or with
// commas as in the variable. It is "" if there is none.
func firstSecret(setting []string) string {
	if len(setting) == 0 {
		return ""
	}
	first, _, _ := strings.Cut(setting[0], ",")
	return strings.TrimSpace(first)
}
