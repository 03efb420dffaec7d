package main

import (
	"time"

	"github.com/shoal-go/shoal/server"
	"github.com/shoal-go/shoal/server/jwtauth"
)

type tokenCommand struct {
	UserID string `arg:"" name:"user-id" help:"User whom the token is for."`

	TTL       time.Duration `default:"1h" min:"1s" max:"8760h" help:"Time that the token is valid."`
	JWTSecret string        `placeholder:"SECRET" help:"Secret to sign it with: the server's."`
	Uploads   []string      `sep:"none" placeholder:"ID|PREFIX*" help:"Upload that the user may follow; may be repeated."`
	Dev       bool          `help:"Sign with the secret of a development server."`
}

func (c *tokenCommand) check(s *settings) {
	s.checkID("user-id", c.UserID)
	c.JWTSecret = firstSecret(c.JWTSecret)
	switch secret := len(c.JWTSecret); {
	case c.Dev && secret == 0:
		c.JWTSecret = devSecret
	case secret == 0:
		s.refuse("jwt-secret", "is missing, want the server's secret, or --dev for that of a development server")
	case !c.Dev && secret < minSecretBytes:
		s.refuse("jwt-secret", tooShort(secret))
	}
}

func (c *tokenCommand) Run(std streams) error {
	token, err := jwtauth.SignHS256([]byte(c.JWTSecret), server.Identity{
		UserID: c.UserID, Expires: time.Now().Add(c.TTL), Uploads: c.Uploads,
	})
	if err != nil {
		return err
	}
	return printLine(std.out, token)
}
